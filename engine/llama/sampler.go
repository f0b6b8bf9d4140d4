//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
#include "sampler.h"
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
	base       *Base
	sampling   batch.Sampling
	handle     *C.tdm_sampler
	constraint *grammarConstraint // nil: no grammar
}

// NewSampler builds the sampler chain and accepts the tokens that there are already. Errors about a grammar wrap
// grammar.ErrInvalid or batch.ErrGrammarTooComplex.
func (b *Base) NewSampler(sampling batch.Sampling, prompt, generated []batch.Token) (batch.Sampler, error) {
	if err := checkSampling(sampling); err != nil {
		return nil, err
	}
	sampling.PenaltyWindow = min(max(sampling.PenaltyWindow, 0), penaltyWindowMax)
	if sampling.GrammarBudget <= 0 {
		sampling.GrammarBudget = defaultGrammarBudget
	}
	s := &Sampler{base: b, sampling: sampling, handle: newSamplerChain(sampling)}
	if s.handle == nil {
		return nil, errors.New("make a sampler: out of memory")
	}
	if sampling.Grammar != "" {
		var err error
		if s.constraint, err = b.newGrammarConstraint(sampling); err != nil {
			s.Close()
			return nil, err
		}
	}
	for _, t := range prompt[max(0, len(prompt)-sampling.PenaltyWindow):] {
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

func checkSampling(sampling batch.Sampling) error {
	for _, x := range []float32{sampling.Temperature, sampling.TopP, sampling.MinP, sampling.RepeatPenalty, sampling.PresencePenalty, sampling.FrequencyPenalty} {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return errors.New("a sampling number isn't finite")
		}
	}
	if sampling.TopLogprobs < 0 || sampling.TopLogprobs > C.TDM_TOP_MAX {
		return fmt.Errorf("%d top log-probabilities, at most %d are possible", sampling.TopLogprobs, C.TDM_TOP_MAX)
	}
	return nil
}

func newSamplerChain(sampling batch.Sampling) *C.tdm_sampler {
	chain := C.tdm_sampling{
		temperature: C.float(sampling.Temperature),
		top_k:       C.int32_t(max(sampling.TopK, 0)),
		top_p:       C.float(sampling.TopP),
		min_p:       C.float(sampling.MinP),
		repeat:      C.float(sampling.RepeatPenalty),
		presence:    C.float(sampling.PresencePenalty),
		frequency:   C.float(sampling.FrequencyPenalty),
		window:      C.int32_t(sampling.PenaltyWindow),
		top:         C.int32_t(sampling.TopLogprobs),
		logprobs:    C.bool(sampling.Logprobs || sampling.TopLogprobs > 0),

		key: C.tdm_sampler_key(C.uint64_t(sampling.Seed), C.uint32_t(sampling.Choice)),
	}
	if sampling.TopP <= 0 { // the zero value of Sampling, and nothing would be left
		chain.top_p = 1
	}
	tokens, biases := make([]int32, 0, len(sampling.LogitBias)+1), make([]float32, 0, len(sampling.LogitBias)+1)
	for t, x := range sampling.LogitBias {
		tokens, biases = append(tokens, t), append(biases, x)
	}
	return C.tdm_sampler_new(&chain, C.int32_t(len(tokens)), (*C.int32_t)(unsafe.SliceData(tokens)), (*C.float)(unsafe.SliceData(biases)))
}

// Constrained reports whether there is a grammar.
func (s *Sampler) Constrained() bool { return s.constraint != nil }

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

// Accept moves the penalties and the grammar past a token. An error means that the grammar doesn't allow it here.
func (s *Sampler) Accept(t batch.Token) error {
	if s.handle == nil {
		return errors.New("the sampler is closed")
	}
	if s.constraint != nil {
		if err := s.constraint.accept(t); err != nil {
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
	if s.constraint != nil {
		s.constraint.matcher.Close()
	}
}
