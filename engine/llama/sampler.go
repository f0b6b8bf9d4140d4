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
	grammarCandidates    = 256 // how many of the best tokens are checked first when the grammar refuses the drawn one
)

var errNoLogits = errors.New("the model gave no finite logit")

// Sampler draws the tokens of one answer. One goroutine at a time.
type Sampler struct {
	base    *Base
	how     batch.Sampling
	handle  *C.tdm_sampler
	grammar *C.tdm_grammar // nil: none
	logits  []float32      // kept for Draw, with a grammar
}

// NewSampler builds the chain and feeds it what is already known. Errors wrap ErrGrammar or batch.ErrGrammarTooComplex for a grammar.
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
		if err := s.openGrammar(); err != nil {
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

func (s *Sampler) openGrammar() error {
	if err := checkGrammar(s.how.Grammar); err != nil {
		return err
	}
	text := C.CString(s.how.Grammar)
	defer C.free(unsafe.Pointer(text))
	var status C.int32_t
	s.grammar = C.tdm_grammar_new(s.base.vocab.handle, text, C.int64_t(s.how.GrammarBudget.Microseconds()), &status)
	if s.grammar != nil {
		return nil
	}
	if status == C.TDM_TIMEOUT {
		return batch.ErrGrammarTooComplex
	}
	return fmt.Errorf("%w: llama.cpp can't parse it", ErrGrammar)
}

// Slow tells that there is a grammar, whose checks may take longer than a step.
func (s *Sampler) Slow() bool { return s.grammar != nil }

func (s *Sampler) keep(logits []float32) { s.logits = append(s.logits[:0], logits...) }

// Draw takes a token that the grammar allows from the kept logits. batch.ErrGrammarTooComplex: the budget is used up.
func (s *Sampler) Draw(index int) (batch.Draw, error) {
	if s.handle == nil || s.logits == nil {
		return batch.Draw{}, errors.New("draw without logits")
	}
	draw, err := s.drawFrom(s.logits, index)
	if err != nil || s.grammar == nil {
		return draw, err
	}
	until := time.Now().Add(s.how.GrammarBudget)
	allowed, err := s.allows(draw.Token, until)
	if err != nil {
		return batch.Draw{}, err
	}
	if !allowed {
		if draw, err = s.drawAllowed(index, until); err != nil {
			return batch.Draw{}, err
		}
	}
	return draw, s.accept(draw.Token, until)
}

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

func (s *Sampler) allows(t batch.Token, until time.Time) (bool, error) {
	if s.base.vocab.control(t) && !s.base.vocab.isEnd(t) {
		return false, nil // the grammar would match its name, which nobody sees
	}
	return grammarAnswer(C.tdm_grammar_check(s.grammar, C.int32_t(t), remaining(until)))
}

// drawAllowed draws among the tokens that the grammar allows. Greedy and top-k draws need only the best of them, which are nearly
// always among the first few hundred; the others need all.
func (s *Sampler) drawAllowed(index int, until time.Time) (batch.Draw, error) {
	need := s.how.TopK
	if s.how.Temperature <= 0 {
		need = 1
	}
	n := len(s.logits)
	allowed := make([]uint8, n)
	for count := grammarCandidates; need > 0 && count < n/4; count *= 16 {
		found, err := s.mask(count, allowed, until)
		if err != nil {
			return batch.Draw{}, err
		}
		if found >= need {
			return s.drawMasked(index, allowed)
		}
	}
	found, err := s.mask(n, allowed, until)
	if err != nil {
		return batch.Draw{}, err
	}
	if found == 0 {
		return batch.Draw{}, fmt.Errorf("%w: it allows no token of this vocabulary here", ErrGrammar)
	}
	return s.drawMasked(index, allowed)
}

// mask marks which of the count best tokens are allowed and says how many.
func (s *Sampler) mask(count int, allowed []uint8, until time.Time) (int, error) {
	best := make([]int32, count)
	n := int(C.tdm_sampler_best(s.handle, (*C.float)(&s.logits[0]), C.int32_t(len(s.logits)), C.int32_t(count), (*C.int32_t)(&best[0])))
	kept := best[:0]
	for _, t := range best[:n] {
		if !s.base.vocab.control(t) || s.base.vocab.isEnd(t) {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		return 0, nil
	}
	if _, err := grammarAnswer(C.tdm_grammar_mask(s.grammar, (*C.int32_t)(&kept[0]), C.int32_t(len(kept)), (*C.uint8_t)(&allowed[0]), remaining(until))); err != nil {
		return 0, err
	}
	found := 0
	for _, t := range kept {
		found += int(allowed[t])
	}
	return found, nil
}

func (s *Sampler) drawMasked(index int, allowed []uint8) (batch.Draw, error) {
	var out C.tdm_draw
	if !C.tdm_sampler_draw_masked(s.handle, (*C.float)(&s.logits[0]), C.int32_t(len(s.logits)), C.uint32_t(index), (*C.uint8_t)(&allowed[0]), &out) {
		return batch.Draw{}, errNoLogits
	}
	return drawOf(&out), nil
}

// Accept moves penalties and grammar past a known token. An error means that the grammar doesn't allow it here.
func (s *Sampler) Accept(t batch.Token) error {
	if s.handle == nil {
		return errors.New("the sampler is closed")
	}
	return s.accept(t, time.Now().Add(s.how.GrammarBudget))
}

func (s *Sampler) accept(t batch.Token, until time.Time) error {
	if s.grammar != nil {
		ok, err := grammarAnswer(C.tdm_grammar_accept(s.grammar, C.int32_t(t), remaining(until)))
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: token %d isn't allowed here", ErrGrammar, t)
		}
	}
	C.tdm_sampler_accept(s.handle, C.int32_t(t))
	return nil
}

// remaining is what is left of a budget, at least a microsecond since 0 means no limit.
func remaining(until time.Time) C.int64_t { return C.int64_t(max(time.Until(until).Microseconds(), 1)) }

func grammarAnswer(status C.int32_t) (bool, error) {
	switch status {
	case C.TDM_OK:
		return true, nil
	case C.TDM_REFUSED:
		return false, nil
	case C.TDM_TIMEOUT:
		return false, batch.ErrGrammarTooComplex
	}
	return false, fmt.Errorf("%w: llama.cpp failed on it", ErrGrammar)
}

// Close frees the chain. Twice is harmless.
func (s *Sampler) Close() {
	if s.handle != nil {
		C.tdm_sampler_free(s.handle)
		s.handle = nil
	}
	if s.grammar != nil {
		C.tdm_grammar_free(s.grammar)
		s.grammar = nil
	}
	s.logits = nil
}
