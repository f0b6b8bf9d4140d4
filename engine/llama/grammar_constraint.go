//go:build llama

package llama

/*
#include "shim.h"
#include "sampler.h"
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
	firstMaskBudget             = time.Second // of a mask when a grammar is checked, before its request is accepted
)

// grammarConstraint constrains an answer to a grammar.
type grammarConstraint struct {
	matcher *grammar.Matcher
	trigger *grammarTrigger // nil: the grammar has begun
	budget  time.Duration   // for one token
	drawn   batch.Token     // drawn, but not yet accepted by the matcher; noToken: none
	mask    []uint32        // of the next draw
	logits  []float32       // of the next draw
}

func (b *Base) newGrammarConstraint(sampling batch.Sampling) (*grammarConstraint, error) {
	vocabulary, err := b.grammarVocabulary()
	if err != nil {
		return nil, err
	}
	matcher, err := vocabulary.NewMatcher(grammar.Parse(sampling.Grammar))
	if err != nil {
		return nil, grammarError(err)
	}
	return &grammarConstraint{
		matcher: matcher, trigger: newGrammarTrigger(b.vocab, sampling.Triggers), budget: sampling.GrammarBudget, drawn: noToken,
		mask: make([]uint32, matcher.MaskWords()),
	}, nil
}

// checkGrammar returns an error when a grammar can't be followed with this vocabulary.
func (b *Base) checkGrammar(source grammar.Source) error {
	vocabulary, err := b.grammarVocabulary()
	if err != nil {
		return err
	}
	return grammarError(vocabulary.Check(source, firstMaskBudget))
}

// grammarVocabulary returns the vocabulary's prefix tree, which the first request with a grammar builds.
func (b *Base) grammarVocabulary() (*grammar.Vocabulary, error) {
	b.grammarOnce.Do(func() {
		b.grammarVocab, b.grammarErr = grammar.NewVocabulary(b.vocab.grammarTokens())
		if b.grammarErr != nil {
			b.grammarErr = fmt.Errorf("%w: %w", grammar.ErrInvalid, b.grammarErr)
		}
	})
	return b.grammarVocab, b.grammarErr
}

// grammarError wraps an error of package grammar in the one that package batch knows.
func grammarError(err error) error {
	if errors.Is(err, grammar.ErrTooComplex) {
		return fmt.Errorf("%w: %w", batch.ErrGrammarTooComplex, err)
	}
	return err
}

func (c *grammarConstraint) keepLogits(logits []float32) { c.logits = append(c.logits[:0], logits...) }

func isTooComplex(err error) bool { return errors.Is(err, batch.ErrGrammarTooComplex) }

func (c *grammarConstraint) accept(t batch.Token) error {
	if c.trigger != nil {
		return c.acceptBeforeGrammar(t)
	}
	return grammarError(c.matcher.Accept(t, c.budget))
}

// Advance accepts the token that was drawn, returns the tokens that the grammar forces then, and computes the mask of
// the next draw. With log-probabilities no token is forced, since one that isn't drawn has none.
func (s *Sampler) Advance(room int) ([]batch.Token, error) {
	c := s.constraint
	if t := c.drawn; t != noToken {
		c.drawn = noToken
		if err := c.accept(t); err != nil {
			return nil, err
		}
	}
	if c.trigger != nil {
		return nil, nil
	}
	var forced []batch.Token
	if !s.sampling.Logprobs && s.sampling.TopLogprobs == 0 {
		var err error
		if forced, err = s.takeForced(room); err != nil {
			return nil, err
		}
	}
	if n := len(forced); n > 0 && (n >= room || s.base.vocab.isEnd(forced[n-1])) {
		return forced, nil // nothing is drawn any more
	}
	return forced, grammarError(c.matcher.Mask(c.mask, c.budget))
}

func (s *Sampler) takeForced(room int) ([]batch.Token, error) {
	forced, err := s.constraint.matcher.Forced(room, s.constraint.budget)
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

// Draw draws a token that the grammar allows from the kept logits.
func (s *Sampler) Draw(index int) (batch.Draw, error) {
	c := s.constraint
	if s.handle == nil || c == nil || len(c.logits) == 0 {
		return batch.Draw{}, errors.New("draw without logits or grammar")
	}
	if len(c.mask)*32 < len(c.logits) {
		return batch.Draw{}, fmt.Errorf("a mask of %d words for %d logits", len(c.mask), len(c.logits))
	}
	var out C.tdm_draw
	if c.trigger != nil {
		draw, err := s.drawFrom(c.logits, index)
		if err == nil {
			c.logits, c.drawn = c.logits[:0], draw.Token
			C.tdm_sampler_accept(s.handle, C.int32_t(draw.Token))
		}
		return draw, err
	}
	if !C.tdm_sampler_draw_masked(s.handle, (*C.float)(&c.logits[0]), C.int32_t(len(c.logits)), C.uint32_t(index), (*C.uint32_t)(&c.mask[0]), &out) {
		return batch.Draw{}, fmt.Errorf("%w: it allows no token of this vocabulary here", grammar.ErrInvalid)
	}
	c.logits = c.logits[:0]
	draw := drawOf(&out)
	c.drawn = draw.Token
	C.tdm_sampler_accept(s.handle, C.int32_t(draw.Token))
	return draw, nil
}
