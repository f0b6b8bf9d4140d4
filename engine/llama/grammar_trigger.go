//go:build llama

package llama

import (
	"bytes"
	"fmt"
	"regexp"

	"tandem/engine/batch"
)

// grammarTrigger watches an answer for the place at which its grammar begins. What it finds depends on the tokens
// alone.
type grammarTrigger struct {
	vocab    *vocab
	tokens   map[batch.Token]bool
	words    [][]byte
	patterns []*regexp.Regexp

	thinkStart []byte   // an answer that begins with this has reasoning first; empty: it has, if there are thinkEnds
	thinkEnds  [][]byte // what ends the reasoning; none: it has ended

	text   []byte        // of the answer, control tokens written out, from the end of its reasoning on
	answer []batch.Token // the tokens of text
	ends   []int         // where each of them ends in text
}

// patternTextMax bounds the text that is searched for patterns, which are searched for after each token.
const patternTextMax = 4 << 10

// newGrammarTrigger returns nil if there is nothing to wait for. A pattern that Go can't search for (with a look ahead)
// is left out: the answer isn't constrained then, and is parsed all the same.
func newGrammarTrigger(v *vocab, triggers []batch.Trigger) *grammarTrigger {
	if len(triggers) == 0 {
		return nil
	}
	g := &grammarTrigger{vocab: v, tokens: make(map[batch.Token]bool)}
	for _, t := range triggers {
		switch t.Kind {
		case batch.TriggerToken:
			g.tokens[t.Token] = true
		case batch.TriggerWord:
			if t.Value != "" {
				g.words = append(g.words, []byte(t.Value))
			}
		case batch.TriggerPattern, batch.TriggerPatternFull:
			value := t.Value
			if t.Kind == batch.TriggerPatternFull {
				value = `\A(?:` + value + `)\z`
			}
			if pattern, err := regexp.Compile(value); err == nil {
				g.patterns = append(g.patterns, pattern)
			}
		case batch.TriggerReasoningStart:
			g.thinkStart = []byte(t.Value)
		case batch.TriggerReasoningEnd:
			if t.Value != "" {
				g.thinkEnds = append(g.thinkEnds, []byte(t.Value))
			}
		}
	}
	return g
}

// take takes the next token and returns the tokens with which the grammar begins, once there is a trigger.
func (g *grammarTrigger) take(t batch.Token) (begin []batch.Token, found bool) {
	before := len(g.text)
	g.add(t)
	if len(g.thinkEnds) > 0 {
		if g.isThinking(before) {
			return nil, false
		}
		before = 0
	}
	if g.tokens[t] {
		return []batch.Token{t}, true
	}
	at := g.find(before)
	if at < 0 {
		return nil, false
	}
	return g.tokensFrom(at), true
}

func (g *grammarTrigger) add(t batch.Token) {
	if !g.vocab.isEnd(t) {
		g.text = append(g.text, g.vocab.written(t)...)
	}
	g.answer, g.ends = append(g.answer, t), append(g.ends, len(g.text))
}

// isThinking reports whether the answer's reasoning hasn't ended, or may still begin. Once it has, the answer is what
// follows, with the text that ended it: that may be a trigger.
func (g *grammarTrigger) isThinking(before int) bool {
	if len(g.thinkStart) > 0 {
		text := bytes.TrimLeft(g.text, " \t\r\n")
		if len(text) < len(g.thinkStart) && bytes.HasPrefix(g.thinkStart, text) {
			return true
		}
		if !bytes.HasPrefix(text, g.thinkStart) {
			g.thinkEnds = nil
			return false
		}
		before = len(g.text) - len(text) + len(g.thinkStart)
		g.thinkStart = nil
	}
	at := g.firstOf(g.thinkEnds, before)
	if at < 0 {
		return true
	}
	rest := g.tokensFrom(at)
	g.again()
	for _, t := range rest {
		g.add(t)
	}
	g.thinkEnds = nil
	return false
}

// firstOf returns where the first of some texts is, -1 for nowhere. Before was searched already.
func (g *grammarTrigger) firstOf(texts [][]byte, before int) int {
	first := -1
	for _, text := range texts {
		from := max(0, before-len(text)+1)
		if i := bytes.Index(g.text[from:], text); i >= 0 && (first < 0 || from+i < first) {
			first = from + i
		}
	}
	return first
}

// find returns where the grammar begins in the text, -1 for nowhere. Before was searched already.
func (g *grammarTrigger) find(before int) int {
	first := g.firstOf(g.words, before)
	if first >= 0 || len(g.text) > patternTextMax {
		return first
	}
	for _, pattern := range g.patterns {
		found := pattern.FindSubmatchIndex(g.text)
		if found == nil {
			continue
		}
		for i := 2; i < len(found); i += 2 { // the first group that matches
			if found[i] >= 0 {
				return found[i]
			}
		}
		return found[0]
	}
	return -1
}

// tokensFrom returns tokens of the text from a place on. A token that the place is inside of is taken apart.
func (g *grammarTrigger) tokensFrom(at int) []batch.Token {
	for i, end := range g.ends {
		if end <= at {
			continue
		}
		start := 0
		if i > 0 {
			start = g.ends[i-1]
		}
		if start == at {
			return g.answer[i:]
		}
		return append(g.vocab.encodePlain(g.text[at:end]), g.answer[i+1:]...)
	}
	return nil
}

// again begins to watch anew, after a place that the grammar doesn't allow.
func (g *grammarTrigger) again() { g.text, g.answer, g.ends = nil, nil, nil }

// acceptBeforeGrammar takes a token before the grammar has begun, and begins it at a trigger. What the grammar doesn't
// allow there isn't a call: the answer goes on without.
func (c *grammarConstraint) acceptBeforeGrammar(t batch.Token) error {
	begin, found := c.trigger.take(t)
	if !found {
		return nil
	}
	matcher := c.matcher.Clone()
	for _, t := range begin {
		if err := grammarError(matcher.Accept(t, c.budget)); err != nil {
			matcher.Close()
			if isTooComplex(err) {
				return fmt.Errorf("begin a grammar at a trigger: %w", err)
			}
			c.trigger.again()
			return nil
		}
	}
	c.matcher.Close()
	c.matcher, c.trigger = matcher, nil
	return nil
}
