package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"tandem/scripts/bench/load"
	"tandem/scripts/launch"
)

const (
	peerName    = "llama-server"
	promptWords = 48
	rounds      = 2
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

// speed measures a number of streams at once, and tells tokens/s and the time to the first token.
func (b *bench) speed(ctx context.Context, s load.Server, a asked, streams int, column string) error {
	random := rand.New(rand.NewPCG(uint64(streams), uint64(a.adapters))) // the same for each column
	var perSecond, first []float64
	for range rounds {
		jobs := make([]load.Job, streams)
		for i := range jobs {
			jobs[i] = load.Job{Prompt: prompt(random), MaxTokens: b.tokens, Adapter: load.NoAdapter}
			if a.adapters > 0 {
				jobs[i].Adapter = i % a.adapters
			}
		}
		run := load.Closed(ctx, s, jobs, streams)
		if err := run.Failure(); err != nil {
			return fmt.Errorf("%d streams: %w", streams, err)
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
	return load.Closed(ctx, s, []load.Job{{Prompt: "the capital", MaxTokens: 4, Adapter: load.NoAdapter}}, 1).Failure()
}

// serveShape starts our server with a random model.
func (b *bench) serveShape(ctx context.Context, shape string, settings ...string) (*server, error) {
	if err := b.ensureModel(shape); err != nil {
		return nil, err
	}
	return b.start(ctx, append([]string{"MODELS_DIR=" + b.models(), "DEFAULT_MODEL=" + shape, "DEFAULT_VERSION=base", "CONTEXT=1024",
		fmt.Sprintf("PARALLEL=%d", max(32, slices.Max(b.streams)))}, settings...)...)
}

// startPeer starts llama-server with the same model, and nothing set but the sizes that the work needs.
func (b *bench) startPeer(ctx context.Context, shape string) (url string, stop func(), err error) {
	program := filepath.Join(b.programs, "lib", peerName) // where it looks for its backends
	ports, err := launch.FreePorts(1)
	if err != nil {
		return "", nil, err
	}
	const cellsOfStream = 512
	streams := slices.Max(b.streams)
	output := &launch.Log{}
	p, err := launch.Start(peerName, program, environment("LD_LIBRARY_PATH="+filepath.Join(b.programs, "lib")), output,
		"--host", "127.0.0.1", "--port", fmt.Sprint(ports[0]), "-m", b.modelPath(shape), "-ngl", "999", "-np", fmt.Sprint(streams),
		"-c", fmt.Sprint(streams*cellsOfStream), "-t", fmt.Sprint(runtime.NumCPU()), "--no-webui")
	if err != nil {
		return "", nil, err
	}
	leave := killAfter(ctx, p)
	stop = func() {
		leave()
		_ = p.Stop(stopLimit) // how it ends is of no interest here
	}
	url = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	err = poll(ctx, func() (bool, error) {
		select {
		case <-p.Ended():
			return false, fmt.Errorf("llama-server ended: %s", complaints(output.String()))
		default:
		}
		return isOK(ctx, http.DefaultClient, url+"/health"), nil
	})
	if err != nil {
		stop()
		return "", nil, err
	}
	return url, stop, nil
}
