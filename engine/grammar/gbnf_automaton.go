package grammar

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// automaton is a text up to a delimiter, as llama.cpp writes it in GBNF: rules that each take a character and go on
// with another one of them. Followed like that, a rule is complete at each character for each one before it, and a long
// text takes too much work. So the rules are turned around: each is what leads to a state.
type automaton struct {
	states    []string // in the order of their rules; the first one begins
	accepting map[string]bool
	edges     []automatonEdge
}

type automatonEdge struct {
	from, class string
	to          string // empty: the text ends with this character
}

var automatonState = regexp.MustCompile(`^((?:until|ac)-\d+)(?:-\d+)?$`)

// automatonOf is the first state of the automaton that a rule belongs to; empty for every other rule.
func automatonOf(rule string) string {
	if m := automatonState.FindStringSubmatch(rule); m != nil {
		return m[1]
	}
	return ""
}

// automatonRule reads the alternatives of one state: nothing, a character, or a character and the next state.
func (t *translator) automatonRule(group, state string) error {
	a := t.automata[group]
	if a == nil {
		a = &automaton{accepting: make(map[string]bool)}
		if t.automata == nil {
			t.automata = make(map[string]*automaton)
		}
		t.automata[group] = a
	}
	a.states = append(a.states, state)
	for {
		t.skipBlanks(false)
		if t.at >= len(t.in) || t.in[t.at] != '[' {
			a.accepting[state] = true
		} else {
			class, err := t.class()
			if err != nil {
				return err
			}
			t.skipBlanks(false)
			edge := automatonEdge{from: state, class: class, to: t.name()}
			if edge.to != "" && automatonOf(edge.to) != group {
				return t.errorAt(t.at, "%q isn't a state of %q", edge.to, group)
			}
			if t.symbols++; t.symbols > t.symbolsMax {
				return t.errorAt(t.at, "more than %d symbols", t.symbolsMax)
			}
			a.edges = append(a.edges, edge)
			t.skipBlanks(false)
		}
		if !t.take("|") {
			break
		}
	}
	if t.at < len(t.in) && t.in[t.at] != '\n' && t.in[t.at] != '\r' {
		return t.errorAt(t.at, "the end of a line was expected at %q", t.rest())
	}
	return nil
}

func (t *translator) writeAutomata() {
	for _, group := range slices.Sorted(maps.Keys(t.automata)) {
		t.automata[group].write(&t.out, group)
	}
}

// reached is the rule for what leads to a state.
func reached(state string) string { return "s_" + ruleName(state) }

func (a *automaton) write(out *strings.Builder, first string) {
	into := map[string][]string{first: {`""`}}
	var ends []string
	for _, e := range a.edges {
		if e.to == "" {
			ends = append(ends, reached(e.from)+" "+e.class)
		} else {
			into[e.to] = append(into[e.to], reached(e.from)+" "+e.class)
		}
	}
	for _, state := range a.states {
		if a.accepting[state] {
			ends = append(ends, reached(state))
		}
	}
	out.WriteString(ruleName(first) + ": " + strings.Join(ends, " | ") + "\n")
	for _, state := range slices.Sorted(maps.Keys(into)) {
		out.WriteString(reached(state) + ": " + strings.Join(into[state], " | ") + "\n")
	}
}
