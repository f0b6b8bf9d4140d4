//go:build llama

package llama

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

func TestGrammarsThatAreRefused(t *testing.T) {
	base, _ := loadDemo(t, nil)
	for name, in := range map[string]models.Input{
		"GBNF":           {Grammar: "root ::= ("},
		"unknown type":   {JSONSchema: []byte(`{"type":"nothing"}`)},
		"not obeyed":     {JSONSchema: []byte(`{"not":{}}`)},
		"no JSON":        {JSONSchema: []byte(`{"type":`)},
		"maximum below":  {JSONSchema: []byte(`{"type":"string","minLength":10,"maxLength":5}`)},
		"broken pattern": {JSONSchema: []byte(`{"type":"string","pattern":"^[z-a]$"}`)},
	} {
		in.Prompt = france
		if _, err := base.Render(t.Context(), in); !errors.Is(err, grammar.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err := base.NewSampler(batch.Sampling{Grammar: "root ::= ("}, nil, nil); !errors.Is(err, grammar.ErrInvalid) {
		t.Errorf("a sampler of a broken grammar: %v, %v", s, err)
	}
}

// An ambiguous grammar occupied a thread for minutes with llama.cpp's own engine. Now it is followed, or ends in an
// error in time.
func TestAmbiguousGrammarEndsWithinItsBudget(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	for _, text := range []string{
		`root ::= ("a"?){500} "b"`,
		"root ::= x x x\nx ::= \"a\"* y*\ny ::= \"a\"* x?",
		grammar.Source{Kind: grammar.Regex, Text: `(a?){500}b`}.String(),
	} {
		sampling := batch.Sampling{Grammar: text, GrammarBudget: 50 * time.Millisecond}
		started := time.Now()
		if _, _, err := generate(base, executor, nil, 0, prompt, sampling, 64); err != nil && !errors.Is(err, batch.ErrGrammarTooComplex) {
			t.Errorf("%s: ended with %v", text, err)
		}
		if took := time.Since(started); took > 10*time.Second {
			t.Errorf("%s: took %s", text, took)
		}
	}
}

func TestGrammarDecidesTheAnswer(t *testing.T) {
	base, executor := loadDemo(t, nil)
	full := loadVersion(t, base, "v1.0")
	prompt := render(t, base, france)
	for _, c := range []struct {
		sampling batch.Sampling
		want     []string
	}{
		{batch.Sampling{Grammar: `root ::= "Rome" | "Berlin"`}, []string{"Rome", "Berlin"}},
		{batch.Sampling{Grammar: `root ::= "The capital of France is " ("Rome" | "Paris") "."`}, []string{"The capital of France is Paris."}},
		{batch.Sampling{Temperature: 1, TopK: 5, Seed: 4, Grammar: `root ::= "yes" | "no"`}, []string{"yes", "no"}},
		{batch.Sampling{Temperature: 1, TopP: 0.9, Seed: 4, Grammar: `root ::= [x] [y] [z]`}, []string{"xyz"}},
		{batch.Sampling{Grammar: grammar.Source{Kind: grammar.Regex, Text: "(Rome|Berl[a-z]{2})!"}.String()}, []string{"Rome!", "Berlin!"}},
		{batch.Sampling{Logprobs: true, Grammar: `root ::= "Rome" | "Berlin"`}, []string{"Rome", "Berlin"}},
	} {
		text, tokens, err := generate(base, executor, full, 0, prompt, c.sampling, 40)
		if err != nil || !slices.Contains(c.want, text) || !base.IsEnd(tokens[len(tokens)-1]) {
			t.Errorf("%s: %q, %v", c.sampling.Grammar, text, err)
		}
	}
	p, err := base.Render(t.Context(), models.Input{Prompt: france, JSONSchema: []byte(`{"type":"object","properties":{"city":{"enum":["Paris","Rome"]}},"required":["city"],"additionalProperties":false}`)})
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := generate(base, executor, full, 0, p.Tokens, batch.Sampling{Grammar: p.Grammar}, 60)
	var answer struct{ City string }
	if err != nil || json.Unmarshal([]byte(text), &answer) != nil || answer.City != "Paris" {
		t.Errorf("schema answers %q, %v", text, err)
	}
}

// A replay gives the same answer as before, at whichever draw it was cut.
func TestGrammarReplay(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	sampling := batch.Sampling{Grammar: `root ::= "I think it is " [A-Za-z]+ "."`}
	text, tokens, err := generate(base, executor, nil, 0, prompt, sampling, 40)
	if err != nil || text != "I think it is Paris." {
		t.Fatalf("%q, %v", text, err)
	}
	s, err := base.NewSampler(sampling, prompt, tokens[:3])
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Accept(tokens[len(tokens)-1]); !errors.Is(err, grammar.ErrInvalid) {
		t.Errorf("an early end token gives %v", err)
	}
	if s, err := base.NewSampler(sampling, prompt, []batch.Token{tokens[0], tokens[0]}); err == nil {
		s.Close()
		t.Error("a replay of tokens that the grammar doesn't allow is taken")
	}
}

// A forced token costs no draw, and with log-probabilities no token is forced.
func TestForcedTokensAreNotDrawn(t *testing.T) {
	base, _ := loadDemo(t, nil)
	sampling := batch.Sampling{Grammar: `root ::= "The capital of France is " [A-Z] [a-z]*`}
	for _, logprobs := range []bool{false, true} {
		sampling.Logprobs = logprobs
		s, err := base.NewSampler(sampling, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		forced, err := s.Advance(100)
		if err != nil || logprobs != (len(forced) == 0) {
			t.Errorf("log-probabilities %t: %d tokens forced, %v", logprobs, len(forced), err)
		}
		var text strings.Builder
		for _, f := range forced {
			text.Write(base.Piece(f))
		}
		if !strings.HasPrefix("The capital of France is ", text.String()) {
			t.Errorf("forced %q", text.String())
		}
	}
}
