package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"tandem/scripts/bench/load"
)

const (
	promptWords     = 48
	rounds          = 2
	uncountedTokens = 4 // of an answer whose time doesn't count
)

// words are tokens of the demo model's vocabulary, so that a prompt has about as many tokens as words.
var words = strings.Fields("the of is a in and to what who name capital city country Paris France you are I it me")

// prompt makes a prompt that shares no beginning worth keeping with another.
func prompt(random *rand.Rand) string {
	list := make([]string, promptWords)
	for i := range list {
		list[i] = words[random.IntN(len(words))]
	}
	return strings.Join(list, " ")
}

// asked is what a load asks for beside the numbers of streams and tokens.
type asked struct {
	model       string
	adapters    int // versions a0, a1 … by turns; 0: the base
	temperature float64
}

// target describes a server to the load generator. Both servers speak OpenAI's completions, which knows how to leave
// out the end token: answers of random models would end anywhere.
func (a asked) target(name, url string) load.Server {
	return load.Server{
		Name: name,
		Request: func(j load.Job) (*http.Request, error) {
			body := map[string]any{"model": a.model, "prompt": j.Prompt, "max_tokens": j.MaxTokens, "ignore_eos": true, "stream": true,
				"stream_options": map[string]any{"include_usage": true}, "temperature": a.temperature, "top_k": 40, "seed": 7}
			if name != peerName {
				body["model"] = a.model + ":base"
				if j.Adapter != load.NoAdapter {
					body["model"] = fmt.Sprintf("%s:a%d", a.model, j.Adapter)
				}
			}
			r, err := newRequest(url+"/v1/completions", body)
			if err == nil {
				r.Header["Idempotency-Key"] = nil // not sent; makes the client try again where a connection was closed
			}
			return r, err
		},
		Last: lastOfCompletion,
	}
}

// lastOfCompletion finds the event with the numbers of tokens, which ends a stream but for the end mark.
func lastOfCompletion(event []byte) (tokens int, last bool, err error) {
	if bytes.HasPrefix(event, []byte(`{"error"`)) {
		return 0, false, fmt.Errorf("error event: %s", event)
	}
	if !bytes.Contains(event, []byte(`"usage":{`)) {
		return 0, false, nil
	}
	var e struct {
		Usage struct {
			Tokens int `json:"completion_tokens"`
		}
	}
	err = json.Unmarshal(event, &e)
	return e.Usage.Tokens, true, err
}

// speed measures a number of streams at once, and tells tokens/s and the time to the first token, each the mean of two
// rounds. A short one goes ahead: a server's first batch of a size pays for kernels that are loaded then, unless it has
// computed that size at its start, as ours does.
func (b *bench) speed(ctx context.Context, s load.Server, a asked, streams int, column string) error {
	random := rand.New(rand.NewPCG(uint64(streams), uint64(a.adapters))) // the same for each column
	var perSecond, first []float64
	for round := range 1 + rounds {
		tokens := b.tokens
		if round == 0 {
			tokens = min(tokens, uncountedTokens)
		}
		jobs := make([]load.Job, streams)
		for i := range jobs {
			jobs[i] = load.Job{Prompt: prompt(random), MaxTokens: tokens, Adapter: load.NoAdapter}
			if a.adapters > 0 {
				jobs[i].Adapter = i % a.adapters
			}
		}
		run := load.Closed(ctx, s, jobs, streams)
		if err := run.Failure(); err != nil {
			return fmt.Errorf("%d streams: %w", streams, err)
		}
		if round == 0 {
			continue
		}
		perSecond, first = append(perSecond, run.TokensPerSecond()), append(first, 1000*load.Median(run.FirstTokens()))
	}
	work := fmt.Sprintf("%s, %d streams", a.model, streams)
	b.add(work, "speed", "tokens/s", column, load.Median(perSecond))
	b.add(work, "time to the first token", "ms", column, load.Median(first))
	return nil
}

// warm asks once: the first request of a server pays for what is done for the first time.
func (b *bench) warm(ctx context.Context, s load.Server) error {
	return load.Closed(ctx, s, []load.Job{{Prompt: "the capital", MaxTokens: uncountedTokens, Adapter: load.NoAdapter}}, 1).Failure()
}

// serveWarmShape is serveShape after a first request, with what /status then says.
func (b *bench) serveWarmShape(ctx context.Context, shape string) (*server, status, error) {
	s, err := b.serveShape(ctx, shape)
	if err != nil {
		return nil, status{}, err
	}
	if err := b.warm(ctx, asked{model: shape}.target("tandem", s.url)); err != nil {
		s.stop()
		return nil, status{}, err
	}
	st, err := s.status(ctx)
	if err != nil {
		s.stop()
		return nil, status{}, err
	}
	return s, st, nil
}

// serveShape starts our server with a random model.
func (b *bench) serveShape(ctx context.Context, shape string, settings ...string) (*server, error) {
	if err := b.ensureModel(shape); err != nil {
		return nil, err
	}
	return b.start(ctx, append([]string{"MODELS_DIR=" + b.models(), "DEFAULT_MODEL=" + shape, "DEFAULT_VERSION=base", "CONTEXT=1024",
		fmt.Sprintf("PARALLEL=%d", max(32, slices.Max(b.streams)))}, settings...)...)
}
