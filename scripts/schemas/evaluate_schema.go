//go:build llama

package main

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"tandem/engine/grammar"
	"tandem/engine/llama"
)

// evaluation adds up the results of all schemas.
type evaluation struct {
	vocabulary *llama.Vocabulary
	verbose    bool

	schemaCount, instanceCount                      int
	schemasRight, schemasRefused, schemasTooComplex int
	invalidAccepted, validRejected                  int
	schemasWrong                                    int // schemas with any of those two
	refusalsByKeyword                               map[string]int
	compileTimes, maskTimes                         []time.Duration
	tokenCount, forcedTokens                        int
}

// callTimeout is far above what any call may take, so that calls are measured, not aborted.
const callTimeout = 10 * time.Second

// evaluate compiles a schema and follows each of its instances through the grammar.
func (e *evaluation) evaluate(c schemaCase) error {
	e.schemaCount++
	began := time.Now()
	m, err := e.vocabulary.NewMatcher(grammar.Source{Kind: grammar.JSONSchema, Text: string(c.Schema)})
	e.compileTimes = append(e.compileTimes, time.Since(began))
	if errors.Is(err, grammar.ErrInvalid) || errors.Is(err, grammar.ErrTooComplex) {
		e.countRefusal(c, err)
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	correct, tooComplex := true, false
	for i, test := range c.Tests {
		e.instanceCount++
		if err := test.Data.Compact(); err != nil { // white space says nothing about the schema
			return err
		}
		accepted, err := e.accepts(m.Clone(), test.Data)
		switch {
		case errors.Is(err, grammar.ErrTooComplex):
			tooComplex = true
			e.logf("%s: instance %d: %v", c.Name, i, err)
		case err != nil:
			return fmt.Errorf("instance %d: %w", i, err)
		case accepted && !test.Valid:
			e.invalidAccepted, correct = e.invalidAccepted+1, false
			e.logf("%s: instance %d is invalid and taken: %.300s", c.Name, i, test.Data)
		case !accepted && test.Valid:
			e.validRejected, correct = e.validRejected+1, false
			e.logf("%s: instance %d is valid and refused: %.300s", c.Name, i, test.Data)
		}
	}
	switch {
	case !correct:
		e.schemasWrong++
	case tooComplex:
		e.schemasTooComplex++
	default:
		e.schemasRight++
	}
	return nil
}

func (e *evaluation) logf(format string, args ...any) {
	if e.verbose {
		fmt.Printf(format+"\n", args...)
	}
}

// accepts reports whether the grammar allows a text as a complete answer, token by token.
func (e *evaluation) accepts(m *grammar.Matcher, text []byte) (bool, error) {
	defer m.Close()
	mask := make([]uint32, m.MaskWords())
	forced := 0
	for _, t := range e.vocabulary.Encode(text) {
		if forced == 0 {
			list, err := m.Forced(64, callTimeout)
			if err != nil {
				return false, err
			}
			forced = len(list)
			e.forcedTokens += forced
		}
		forced = max(forced-1, 0)
		e.tokenCount++
		if err := e.timedMask(m, mask); err != nil {
			return false, err
		}
		if mask[t/32]>>(t%32)&1 == 0 {
			return false, nil
		}
		if err := m.Accept(t, callTimeout); err != nil {
			return false, err
		}
	}
	if err := e.timedMask(m, mask); err != nil {
		return false, err
	}
	for t := range int32(e.vocabulary.Size()) {
		if mask[t/32]>>(t%32)&1 != 0 && e.vocabulary.IsEnd(t) {
			return true, nil
		}
	}
	return false, nil
}

func (e *evaluation) timedMask(m *grammar.Matcher, mask []uint32) error {
	began := time.Now()
	err := m.Mask(mask, callTimeout)
	e.maskTimes = append(e.maskTimes, time.Since(began))
	return err
}

var keywordInError = regexp.MustCompile(`(\$?[A-Za-z]+) at /`)

// countRefusal counts a refused schema under the keyword that isn't supported.
func (e *evaluation) countRefusal(c schemaCase, err error) {
	e.schemasRefused++
	reason := "other"
	if m := keywordInError.FindStringSubmatch(err.Error()); m != nil {
		reason = m[1]
	}
	e.refusalsByKeyword[reason]++
	e.logf("%s: refused: %v", c.Name, err)
}
