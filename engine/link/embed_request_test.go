package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"tandem/engine/models"
	"tandem/schema"
)

// bothTasks is a base that embeds and scores.
var bothTasks = models.Facts{Abilities: models.Abilities{Embeddings: true, Scores: true}, EmbeddingSize: 3}

func embedTask(r schema.InferRequest) error { r.SetTask(schema.Task_embed); return nil }

func scoreTask(texts ...string) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error {
		r.SetTask(schema.Task_score)
		list, err := r.NewMessages(int32(len(texts)))
		for i, text := range texts {
			err = errors.Join(err, list.At(i).SetContent([]byte(text)))
		}
		return err
	}
}

// numbers decodes an embedding.
func numbers(vector string) (out []float32) {
	for b := []byte(vector); len(b) >= 4; b = b[4:] {
		out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return out
}

func TestEmbeddingsAndScores(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{facts: bothTasks})
	p := e.acceptConnection()
	for i, c := range []struct {
		name   string
		change []func(schema.InferRequest) error
		want   []float32
		tokens []int32
	}{
		{"a text, with the tokens around it", []func(schema.InferRequest) error{embedTask}, []float32{3, '^', 'i'}, []int32{'^', 'h', 'i'}},
		{"tokens in place of a text", []func(schema.InferRequest) error{embedTask, promptTokens(7, 8)}, []float32{2, 7, 8}, []int32{7, 8}},
		{"a score", []func(schema.InferRequest) error{scoreTask("ab", "c")}, []float32{4}, []int32{'a', 'b', '|', 'c'}},
	} {
		id := uint64(i + 1)
		p.infer(id, "hi", c.change...)
		if got := p.awaitKind("accepted"); !slices.Equal(got.prompt, c.tokens) || got.limit != 0 {
			t.Errorf("%s: accepted with %v and an answer of %d tokens", c.name, got.prompt, got.limit)
		}
		text, _, end := p.awaitAnswer(id)
		if text != "" || end.reason != schema.FinishReason_stop || end.prompt != len(c.tokens) || end.output != 0 {
			t.Errorf("%s: %q, %+v", c.name, text, end)
		}
		if got := numbers(end.vector); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	e.awaitIdle()
}

func TestEmbeddingOfAReplay(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{facts: bothTasks})
	p := e.acceptConnection()
	p.infer(1, "hi", embedTask)
	revision := p.awaitKind("accepted").bytes
	p.awaitAnswer(1)
	replay := func(revision []byte) func(schema.InferRequest) error {
		return func(r schema.InferRequest) error {
			rendered, err := r.NewRendered()
			if err != nil {
				return err
			}
			list, err := rendered.NewPromptTokens(2)
			list.Set(0, 'x')
			list.Set(1, 'y')
			return errors.Join(err, r.SetExpectRevision(revision))
		}
	}
	p.infer(2, "hi", embedTask, replay(revision))
	if _, _, end := p.awaitAnswer(2); !slices.Equal(numbers(end.vector), []float32{2, 'x', 'y'}) {
		t.Errorf("with the same revision: %v", numbers(end.vector))
	}
	p.infer(3, "hi", embedTask, replay([]byte("another revision of the model's files")))
	if _, _, end := p.awaitAnswer(3); !slices.Equal(numbers(end.vector), []float32{3, '^', 'i'}) {
		t.Errorf("with another revision the text is read again: %v", numbers(end.vector))
	}
}

func TestEmbeddingsRefused(t *testing.T) {
	generator, encoder, reranker := models.Facts{}, models.Facts{Abilities: models.Abilities{EncoderOnly: true, Embeddings: true}}, models.Facts{Abilities: models.Abilities{EncoderOnly: true, Scores: true}}
	long := strings.Repeat("x", contextTokens)
	for _, c := range []struct {
		name        string
		facts       models.Facts
		err         error // of the backend
		prompt      string
		change      func(schema.InferRequest) error
		code, param string
	}{
		{"an embedding of a model without", generator, nil, "hi", embedTask, "invalid_request", "base_model"},
		{"an embedding of a reranker", reranker, nil, "hi", embedTask, "invalid_request", "base_model"},
		{"a score of a model without", encoder, nil, "hi", scoreTask("a", "b"), "invalid_request", "base_model"},
		{"an answer of an encoder", encoder, nil, "hi", maxTokens(1), "invalid_request", "base_model"},
		{"a score of one text", bothTasks, nil, "hi", scoreTask("a"), "invalid_request", "messages"},
		{"a text longer than the context", bothTasks, nil, long, embedTask, "context_length_exceeded", "prompt"},
		{"tokens that don't exist", bothTasks, nil, "hi", promptTokensEmbed(5, 256), "invalid_request", "prompt"},
		{"more tokens than the context", bothTasks, nil, "", promptTokensEmbed(make([]int32, contextTokens+1)...), "context_length_exceeded", "prompt"},
		{"a full queue", bothTasks, models.ErrEmbeddingsFull, "hi", embedTask, "queue_full", ""},
		{"no memory", bothTasks, models.ErrEmbeddingMemory, "hi", embedTask, "out_of_memory", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newLinkTest(t, &fakeBackend{facts: c.facts, embedError: c.err})
			p := e.acceptConnection()
			p.infer(1, c.prompt, c.change)
			if _, _, end := p.awaitAnswer(1); end.reason != schema.FinishReason_error || end.code != c.code || end.param != c.param {
				t.Errorf("ended with %+v", end)
			}
			e.awaitIdle()
		})
	}
}

func TestUnknownTokensAreNamed(t *testing.T) {
	err := embedError(fmt.Errorf("embed with m: %w", &models.TokenError{Token: 256, Place: 1}), nil)
	const want = "prompt has a token that can't be used: token 256 at place 1 isn't in the model's vocabulary"
	if got := failureOf(err); got.text != want || got.param != "prompt" {
		t.Errorf("got %+v, want %s", got, want)
	}
}

func promptTokensEmbed(ids ...int32) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error { return errors.Join(embedTask(r), promptTokens(ids...)(r)) }
}

func TestEmbeddingEndedEarly(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(p *fakeProxy)
		want schema.FinishReason
	}{
		"cancelled": {func(p *fakeProxy) { p.cancel(1) }, schema.FinishReason_cancelled},
		"moved":     {func(p *fakeProxy) { p.send(0, 0, func(f schema.Frame) error { f.SetMove(); return nil }) }, schema.FinishReason_movedAway},
		"deadline":  {func(*fakeProxy) {}, schema.FinishReason_deadline},
	} {
		t.Run(name, func(t *testing.T) {
			b := &fakeBackend{facts: bothTasks, embedGate: make(chan struct{}), embedStarted: make(chan struct{}, 1)}
			e := newLinkTest(t, b)
			p := e.acceptConnection()
			p.infer(1, "hi", embedTask, func(r schema.InferRequest) error {
				if c.want == schema.FinishReason_deadline {
					r.SetTimeoutNs(50e6)
				}
				return nil
			})
			<-b.embedStarted
			c.end(p)
			if _, _, end := p.awaitAnswer(1); end.reason != c.want || end.vector != "" {
				t.Errorf("ended with %+v", end)
			}
			e.awaitIdle()
		})
	}
}

func TestTextsAndTokensByCall(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	tokenize := func(text string, special bool) decodedFrame {
		p.send(1, 0, func(f schema.Frame) error {
			c, err := f.NewCall()
			if err != nil {
				return err
			}
			in, err := c.NewTokenize()
			if err != nil {
				return err
			}
			in.SetRaw(true)
			in.SetAddSpecial(special)
			return errors.Join(in.SetModel("abc"), in.SetText([]byte(text)))
		})
		return p.awaitKind("reply")
	}
	detokenize := func(ids ...int32) decodedFrame {
		p.send(1, 0, func(f schema.Frame) error {
			c, err := f.NewCall()
			if err != nil {
				return err
			}
			in, err := c.NewDetokenize()
			if err != nil {
				return err
			}
			list, err := in.NewTokens(int32(len(ids)))
			for i, id := range ids {
				list.Set(i, id)
			}
			return errors.Join(err, in.SetModel("abc"))
		})
		return p.awaitKind("reply")
	}
	if got := tokenize("hi", false); !slices.Equal(got.ids, []int32{'h', 'i'}) {
		t.Errorf("tokenize: %+v", got)
	}
	if got := tokenize("hi", true); !slices.Equal(got.ids, []int32{'^', 'h', 'i'}) {
		t.Errorf("tokenize with the tokens around it: %+v", got)
	}
	if got := tokenize(strings.Repeat("x", contextTokens+1), false); len(got.ids) != contextTokens+1 {
		t.Errorf("a text longer than the context has %d tokens", len(got.ids))
	}
	if got := tokenize(strings.Repeat("x", maxCallText+1), false); got.text != "invalid_request" {
		t.Errorf("a text over the limit: %+v", got)
	}
	if got := detokenize('h', 'i'); string(got.bytes) != "hi" {
		t.Errorf("detokenize: %+v", got)
	}
	if got := detokenize('h', 1000); got.text != "invalid_request" {
		t.Errorf("detokenize of no token: %+v", got)
	}
	if got := detokenize(make([]int32, maxCallTokens+1)...); got.text != "invalid_request" {
		t.Errorf("detokenize over the limit: %+v", got)
	}
	if got := detokenize(slices.Repeat([]int32{longToken}, maxCallTokens)...); got.text != "invalid_request" {
		t.Errorf("detokenize to more text than a frame holds: %+v", got)
	}
	if got := detokenize(slices.Repeat([]int32{longToken}, 5000)...); len(got.bytes) != 5000*64 {
		t.Errorf("detokenize in parts gives %d bytes", len(got.bytes))
	}
	e.awaitIdle()
}
