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
	"maps"
	"math"
	"runtime"
	"slices"
	"time"

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
	// Used only on the goroutine that steps, once the sampler is made.
	takesCandidates bool // a token may be drawn from the largest logits of a row
	shortDraws      int  // for which those didn't suffice
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
	s := &Sampler{base: b, sampling: sampling, handle: newSamplerChain(sampling, b.vocab.ends)}
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
	s.takesCandidates = s.mayDrawFromCandidates(candidatesOfARow, b.vocab.size())
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

func newSamplerChain(sampling batch.Sampling, ends []batch.Token) *C.tdm_sampler {
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
	tokens := slices.Sorted(maps.Keys(sampling.LogitBias))
	biases := make([]float32, len(tokens))
	for i, t := range tokens {
		biases[i] = sampling.LogitBias[t]
	}
	var ignored []batch.Token
	if sampling.IgnoreEnd {
		ignored = ends
	}
	var pinned runtime.Pinner
	defer pinned.Unpin()
	rules := C.tdm_token_rules{n_bias: C.int32_t(len(tokens)), n_ignored: C.int32_t(len(ignored))}
	if len(tokens) > 0 {
		pinned.Pin(&tokens[0])
		pinned.Pin(&biases[0])
		rules.bias_token, rules.bias = (*C.int32_t)(&tokens[0]), (*C.float)(&biases[0])
	}
	if len(ignored) > 0 {
		pinned.Pin(&ignored[0])
		rules.ignored = (*C.int32_t)(&ignored[0])
	}
	return C.tdm_sampler_new(&chain, &rules)
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
	out.Top = topOf(int(d.n_top), &d.top_token, &d.top_logprob)
	return out
}

func topOf(n int, tokens *[C.TDM_TOP_MAX]C.int32_t, logprobs *[C.TDM_TOP_MAX]C.float) []batch.TopLogprob {
	var top []batch.TopLogprob
	for i := range n {
		top = append(top, batch.TopLogprob{Token: batch.Token(tokens[i]), Logprob: float32(logprobs[i])})
	}
	return top
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
