package link

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"tandem/schema"
)

func promptTokens(ids ...int32) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error {
		list, err := r.NewPromptTokens(int32(len(ids)))
		for i, id := range ids {
			list.Set(i, id)
		}
		return err
	}
}

func logprobs(top uint8) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error {
		s, err := r.NewSampling()
		if err == nil {
			s.SetWantLogprobs(true)
			s.SetTopLogprobs(top)
		}
		return err
	}
}

// Bytes and log-probabilities of the tokens reach the proxy, those of the prompt before the first token.
func TestLogprobsOnTheWire(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	p.infer(1, "", promptTokens('e', 'n', 'd', ' ', '1', 0), logprobs(2), func(r schema.InferRequest) error { r.SetPromptLogprobs(true); return nil })
	first := p.awaitFrame("prompt", func(f decodedFrame) bool { return len(f.prompts) > 0 })
	if len(first.prompts) != 6 || first.from != 0 || len(first.tokens) != 1 {
		t.Fatalf("%d tokens of the prompt from %d on came with %d of the answer", len(first.prompts), first.from, len(first.tokens))
	}
	if s := first.prompts[0]; s.piece != "e" || !math.IsNaN(float64(s.logprob)) || s.top != "" {
		t.Errorf("the first token, before which nothing stands: %+v", s)
	}
	if s := first.prompts[1]; s != (decodedScore{"n", -2, "110:n 0:<end>"}) {
		t.Errorf("the second token: %+v", s)
	}
	if s := first.prompts[5]; s.piece != "<end>" {
		t.Errorf("a control token in a prompt: %+v", s)
	}
	if s := first.tokens[0].decodedScore; s != (decodedScore{"a", -1, "97:a 0:<end>"}) {
		t.Errorf("a token of the answer: %+v", s)
	}
	last := p.awaitFrame("end", func(f decodedFrame) bool { return len(f.done) > 0 })
	if s := last.tokens[0].decodedScore; s.piece != "" {
		t.Errorf("the end token has the text %q", s.piece)
	}
	p.infer(2, "end 1")
	p.awaitFrame("token", func(f decodedFrame) bool {
		if len(f.tokens) > 0 && (f.tokens[0].piece != "" || f.tokens[0].top != "") {
			t.Errorf("a request without log-probabilities: %+v", f.tokens[0])
		}
		return len(f.done) > 0
	})
	e.awaitIdle()
}

// Only the client's own stop string is told: it can't know the template's.
func TestStopStringIsReported(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	for id, tc := range []struct {
		stops []string
		want  string
	}{{nil, ""}, {[]string{"cd", "zz"}, "cd"}, {[]string{"bcd", "d"}, "bcd"}} {
		p.infer(uint64(id+1), "end 5", func(r schema.InferRequest) error {
			list, err := r.NewStops(int32(len(tc.stops)))
			for i, s := range tc.stops {
				err = errors.Join(err, list.Set(i, s))
			}
			return err
		})
		if _, _, end := p.awaitAnswer(uint64(id + 1)); end.stop != tc.want {
			t.Errorf("stops %s: ended by %q", fmt.Sprint(tc.stops), end.stop)
		}
	}
	e.backend.stops = []string{"c"}
	p.infer(9, "end 5")
	if text, _, end := p.awaitAnswer(9); text != "ab" || end.stop != "" {
		t.Errorf("a stop string of the template: %q, ended by %q", text, end.stop)
	}
	e.awaitIdle()
}
