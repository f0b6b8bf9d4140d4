//go:build llama

package llama

import (
	"math"
	"math/rand/v2"
	"testing"

	"tandem/engine/batch"
)

// What OpenAI says of logit_bias: -100 bans a token, 100 leaves no other.
func TestLogitBiasBansAndForces(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	_, usual, err := generate(base, executor, nil, 0, prompt, greedy, 4)
	if err != nil {
		t.Fatal(err)
	}
	banned, forced := usual[0], batch.Token(300)
	for _, sampling := range []batch.Sampling{{}, {Temperature: 1.5, Seed: 3}, {Temperature: 0.1, TopK: 40, TopP: 0.9, MinP: 0.05, RepeatPenalty: 1.1, PenaltyWindow: 64, Seed: 3}} {
		sampling.LogitBias = map[batch.Token]float32{banned: -100}
		if _, tokens, err := generate(base, executor, nil, 0, prompt, sampling, 4); err != nil || tokens[0] == banned {
			t.Errorf("%+v: drew %v, %v", sampling, tokens, err)
		}
		sampling.LogitBias = map[batch.Token]float32{forced: 100}
		if _, tokens, err := generate(base, executor, nil, 0, prompt, sampling, 4); err != nil || len(tokens) != 4 || tokens[3] != forced {
			t.Errorf("%+v: drew %v, %v", sampling, tokens, err)
		}
	}
	// A grammar's masks win.
	sampling := batch.Sampling{Grammar: `root ::= "yes" | "no"`, LogitBias: map[batch.Token]float32{forced: 100}}
	if text, _, err := generate(base, executor, nil, 0, prompt, sampling, 10); err != nil || text != "yes" && text != "no" {
		t.Errorf("a bias beside a grammar gives %q, %v", text, err)
	}
}

// Biases and penalties change each logit once, and the row is as before after the draw.
func TestManyBiasesBesidePenalties(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	const n = 5000
	bias, window := make(map[batch.Token]float32), make([]batch.Token, 64)
	for range 2000 {
		bias[batch.Token(r.IntN(n))] = float32(r.NormFloat64() * 5)
	}
	for i := range window {
		window[i] = batch.Token(r.IntN(n))
	}
	sampling := batch.Sampling{Temperature: 0.7, LogitBias: bias, RepeatPenalty: 1.2, FrequencyPenalty: 0.3, PenaltyWindow: 64, Seed: 4}
	compareDraws(t, sampling, n, 2)
}

func TestIgnoredEndsAreNotDrawn(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	for _, sampling := range []batch.Sampling{{}, {Temperature: 1, Seed: 2}, {LogitBias: map[batch.Token]float32{1: 100}}} {
		sampling.IgnoreEnd = true
		if _, tokens, err := generate(base, executor, nil, 0, prompt, sampling, 200); err != nil || len(tokens) != 200 {
			t.Errorf("%+v: %d tokens, %v", sampling, len(tokens), err)
		}
	}
	// Where a grammar may go on it does, and it ends where it can't.
	for grammar, want := range map[string]int{`root ::= "x"+`: 30, `root ::= "yes"`: 0} {
		text, tokens, err := generate(base, executor, nil, 0, prompt, batch.Sampling{Grammar: grammar, IgnoreEnd: true}, 30)
		ended := err == nil && len(tokens) > 0 && base.IsEnd(tokens[len(tokens)-1])
		if err != nil || want > 0 && (len(tokens) != want || ended) || want == 0 && (text != "yes" || !ended) {
			t.Errorf("%s: %q in %d tokens, %v", grammar, text, len(tokens), err)
		}
	}
}

// A mask that allows the end alone, as after the last brace of a schema's object, without a grammar's forced tokens.
func TestAMaskOfIgnoredTokensAloneIsObeyed(t *testing.T) {
	base, _ := loadDemo(t, nil)
	made, err := base.NewSampler(batch.Sampling{Grammar: `root ::= "x"`, IgnoreEnd: true, Logprobs: true, Temperature: 1}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := made.(*Sampler)
	defer s.Close()
	row := make([]float32, base.vocab.size())
	for text := ""; ; {
		if _, err := s.Advance(10); err != nil {
			t.Fatal(err)
		}
		s.constraint.keepLogits(row)
		draw, err := s.Draw(0)
		if err != nil {
			t.Fatal(err)
		}
		if want := -math.Log(float64(len(row))); math.Abs(float64(draw.Logprob)-want) > 1e-3 {
			t.Errorf("log-probability %g, want %g", draw.Logprob, want)
		}
		if base.IsEnd(draw.Token) {
			if text != "x" {
				t.Errorf("ended after %q", text)
			}
			return
		}
		text += string(base.Piece(draw.Token))
	}
}
