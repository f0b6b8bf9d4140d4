//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
#include "sample.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"tandem/engine/batch"
)

const (
	penaltyWindowMax     = 4096
	defaultGrammarBudget = 250 * time.Millisecond
)

var errNoLogits = errors.New("the model gave no finite logit")

// Sampler draws the tokens of one answer. One goroutine at a time.
type Sampler struct {
	base   *Base
	how    batch.Sampling
	handle *C.tdm_sampler
	rules  *rules // nil: no grammar
}

// NewSampler builds the chain and feeds it what is already known. Errors wrap grammar.ErrInvalid or batch.ErrGrammarTooComplex for a grammar.
func (b *Base) NewSampler(how batch.Sampling, prompt, generated []batch.Token) (batch.Sampler, error) {
	if err := checkSampling(how); err != nil {
		return nil, err
	}
	how.PenaltyWindow = min(max(how.PenaltyWindow, 0), penaltyWindowMax)
	if how.GrammarBudget <= 0 {
		how.GrammarBudget = defaultGrammarBudget
	}
	s := &Sampler{base: b, how: how, handle: newChain(how)}
	if s.handle == nil {
		return nil, errors.New("make a sampler: out of memory")
	}
	if how.Grammar != "" {
		var err error
		if s.rules, err = b.openRules(how); err != nil {
			s.Close()
			return nil, err
		}
	}
	for _, t := range prompt[max(0, len(prompt)-how.PenaltyWindow):] {
		C.tdm_sampler_accept(s.handle, C.int32_t(t))
	}
	for i, t := range generated {
		if err := s.Accept(t); err != nil {
			s.Close()
			return nil, fmt.Errorf("replay token %d of %d: %w", i, len(generated), err)
		}
	}
	return s, nil
}

func checkSampling(how batch.Sampling) error {
	for _, x := range []float32{how.Temperature, how.TopP, how.MinP, how.RepeatPenalty, how.PresencePenalty, how.FrequencyPenalty} {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return errors.New("a sampling number isn't finite")
		}
	}
	if how.TopLogprobs < 0 || how.TopLogprobs > C.TDM_TOP_MAX {
		return fmt.Errorf("%d top log-probabilities, at most %d are possible", how.TopLogprobs, C.TDM_TOP_MAX)
	}
	return nil
}

func newChain(how batch.Sampling) *C.tdm_sampler {
	chain := C.tdm_sampling{
		temperature: C.float(how.Temperature),
		top_k:       C.int32_t(max(how.TopK, 0)),
		top_p:       C.float(how.TopP),
		min_p:       C.float(how.MinP),
		repeat:      C.float(how.RepeatPenalty),
		presence:    C.float(how.PresencePenalty),
		frequency:   C.float(how.FrequencyPenalty),
		window:      C.int32_t(how.PenaltyWindow),
		top:         C.int32_t(how.TopLogprobs),
		logprobs:    C.bool(how.Logprobs || how.TopLogprobs > 0),

		key: C.tdm_sampler_key(C.uint64_t(how.Seed), C.uint32_t(how.Choice)),
	}
	if how.TopP <= 0 { // the zero value of Sampling, and nothing would be left
		chain.top_p = 1
	}
	tokens, biases := make([]int32, 0, len(how.LogitBias)+1), make([]float32, 0, len(how.LogitBias)+1)
	for t, x := range how.LogitBias {
		tokens, biases = append(tokens, t), append(biases, x)
	}
	return C.tdm_sampler_new(&chain, C.int32_t(len(tokens)), (*C.int32_t)(unsafe.SliceData(tokens)), (*C.float)(unsafe.SliceData(biases)))
}

// Constrained tells that there is a grammar.
func (s *Sampler) Constrained() bool { return s.rules != nil }

func (s *Sampler) drawFrom(logits []float32, index int) (batch.Draw, error) {
	var out C.tdm_draw
	if !C.tdm_sampler_draw(s.handle, (*C.float)(&logits[0]), C.int32_t(len(logits)), C.uint32_t(index), &out) {
		return batch.Draw{}, errNoLogits
	}
	return drawOf(&out), nil
}

func drawOf(d *C.tdm_draw) batch.Draw {
	out := batch.Draw{Token: batch.Token(d.token), Logprob: float32(d.logprob), Margin: float32(d.margin)}
	for i := range int(d.n_top) {
		out.Top = append(out.Top, batch.TopLogprob{Token: batch.Token(d.top_token[i]), Logprob: float32(d.top_logprob[i])})
	}
	return out
}

// Accept moves penalties and grammar past a known token. An error means that the grammar doesn't allow it here.
func (s *Sampler) Accept(t batch.Token) error {
	if s.handle == nil {
		return errors.New("the sampler is closed")
	}
	if s.rules != nil {
		if err := s.rules.accept(t); err != nil {
			return err
		}
	}
	C.tdm_sampler_accept(s.handle, C.int32_t(t))
	return nil
}

// Close frees the chain. Twice is harmless.
func (s *Sampler) Close() {
	if s.handle != nil {
		C.tdm_sampler_free(s.handle)
		s.handle = nil
	}
	if s.rules != nil {
		s.rules.matcher.Close()
	}
}
