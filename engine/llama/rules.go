//go:build llama

package llama

/*
#include "shim.h"
#include "sample.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"time"

	"tandem/engine/batch"
	"tandem/engine/grammar"
)

const (
	noToken         batch.Token = -1
	firstMaskBudget             = time.Second // of a grammar that is tried before its request is taken
)

// rules hold an answer to a grammar.
type rules struct {
	matcher *grammar.Matcher
	budget  time.Duration // for one token
	drawn   batch.Token   // drawn, but not yet known to the matcher; noToken: none
	mask    []uint32      // of the next draw
	logits  []float32     // kept for it
}

func (b *Base) openRules(how batch.Sampling) (*rules, error) {
	vocabulary, err := b.grammarVocabulary()
	if err != nil {
		return nil, err
	}
	matcher, err := vocabulary.NewMatcher(grammar.Parse(how.Grammar))
	if err != nil {
		return nil, grammarError(err)
	}
	return &rules{matcher: matcher, budget: how.GrammarBudget, drawn: noToken, mask: make([]uint32, matcher.MaskWords())}, nil
}

// checkGrammar tells whether a grammar can be followed with this vocabulary.
func (b *Base) checkGrammar(source grammar.Source) error {
	vocabulary, err := b.grammarVocabulary()
	if err != nil {
		return err
	}
	return grammarError(vocabulary.Check(source, firstMaskBudget))
}

// grammarVocabulary builds the prefix tree when the first grammar comes.
func (b *Base) grammarVocabulary() (*grammar.Vocabulary, error) {
	b.grammarOnce.Do(func() {
		b.grammars, b.grammarErr = grammar.NewVocabulary(b.vocab.forGrammars())
		if b.grammarErr != nil {
			b.grammarErr = fmt.Errorf("%w: %w", grammar.ErrInvalid, b.grammarErr)
		}
	})
	return b.grammars, b.grammarErr
}

// grammarError gives an error of package grammar the name that package batch knows.
func grammarError(err error) error {
	if errors.Is(err, grammar.ErrTooComplex) {
		return fmt.Errorf("%w: %w", batch.ErrGrammarTooComplex, err)
	}
	return err
}

func (r *rules) keep(logits []float32) { r.logits = append(r.logits[:0], logits...) }

func (r *rules) accept(t batch.Token) error { return grammarError(r.matcher.Accept(t, r.budget)) }

// Advance tells the grammar what was drawn, takes what it forces then, and finds what the next draw may choose from. Who wants
// log-probabilities gets every token drawn, since a forced one has none.
func (s *Sampler) Advance(room int) ([]batch.Token, error) {
	r := s.rules
	if t := r.drawn; t != noToken {
		r.drawn = noToken
		if err := r.accept(t); err != nil {
			return nil, err
		}
	}
	var forced []batch.Token
	if !s.how.Logprobs && s.how.TopLogprobs == 0 {
		var err error
		if forced, err = s.takeForced(room); err != nil {
			return nil, err
		}
	}
	if n := len(forced); n > 0 && (n >= room || s.base.vocab.isEnd(forced[n-1])) {
		return forced, nil // nothing is drawn any more
	}
	return forced, grammarError(r.matcher.Mask(r.mask, r.budget))
}

func (s *Sampler) takeForced(room int) ([]batch.Token, error) {
	forced, err := s.rules.matcher.Forced(room, s.rules.budget)
	if err != nil {
		return nil, grammarError(err)
	}
	for i, t := range forced {
		if s.base.vocab.isEnd(t) {
			return forced[:i+1], nil
		}
		if err := s.Accept(t); err != nil {
			return nil, err
		}
	}
	return forced, nil
}

// Draw takes a token that the grammar allows from the kept logits.
func (s *Sampler) Draw(index int) (batch.Draw, error) {
	r := s.rules
	if s.handle == nil || r == nil || len(r.logits) == 0 {
		return batch.Draw{}, errors.New("draw without logits or grammar")
	}
	if len(r.mask)*32 < len(r.logits) {
		return batch.Draw{}, fmt.Errorf("a mask of %d words for %d logits", len(r.mask), len(r.logits))
	}
	var out C.tdm_draw
	if !C.tdm_sampler_draw_masked(s.handle, (*C.float)(&r.logits[0]), C.int32_t(len(r.logits)), C.uint32_t(index), (*C.uint32_t)(&r.mask[0]), &out) {
		return batch.Draw{}, fmt.Errorf("%w: it allows no token of this vocabulary here", grammar.ErrInvalid)
	}
	r.logits = r.logits[:0]
	draw := drawOf(&out)
	r.drawn = draw.Token
	C.tdm_sampler_accept(s.handle, C.int32_t(draw.Token))
	return draw, nil
}
