//go:build llama

// Command schemas measures constrained output against JSON schemas with known instances: does every mask let the valid instances through and
// stop the invalid ones, and how long does it take?
//
//	schemas -model FILE.gguf [-strict] [-v] FILE…
//
// A file holds one JSON object a line, {"name": …, "schema": …, "tests": [{"valid": …, "data": …}]}, .xz or not, or is one of the JSON Schema
// Test Suite: a list of {"description": …, "schema": …, "tests": …}. Exit status 1: an invalid instance was taken; with -strict also when a
// valid one was refused. That an answer's members keep the order of the schema and a whole number is never written 1.0 makes some valid
// instances of the suite impossible, and is meant.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"tandem/engine/grammar"
	"tandem/engine/llama"
)

func main() {
	model := flag.String("model", "", "GGUF `file` whose vocabulary is used")
	strict := flag.Bool("strict", false, "fail when a valid instance is refused, too")
	verbose := flag.Bool("v", false, "name every schema that is refused or judged wrongly")
	flag.Parse()
	if *model == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	wrong, err := run(*model, flag.Args(), *strict, *verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(2)
	}
	if wrong {
		os.Exit(1)
	}
}

func run(model string, files []string, strict, verbose bool) (wrong bool, err error) {
	vocabulary, err := llama.OpenVocabulary(model)
	if err != nil {
		return false, err
	}
	defer vocabulary.Close()
	b := bench{vocabulary: vocabulary, verbose: verbose, refusals: make(map[string]int)}
	for _, file := range files {
		cases, err := readCases(file)
		if err != nil {
			return false, fmt.Errorf("read %s: %w", file, err)
		}
		for _, c := range cases {
			if err := b.try(c); err != nil {
				return false, fmt.Errorf("%s: %s: %w", filepath.Base(file), c.Name, err)
			}
		}
	}
	b.report(os.Stdout)
	return b.invalidTaken > 0 || strict && b.validRefused > 0, nil
}

// bench adds up what came of all schemas.
type bench struct {
	vocabulary *llama.Vocabulary
	verbose    bool

	schemas, instances         int
	right, refused, tooComplex int // schemas
	invalidTaken, validRefused int // instances
	wrong                      int // schemas with any of them
	refusals                   map[string]int
	compiles, masks            []time.Duration
	tokens, forced             int
}

// budget is far above what anything may take here, so that times are measured rather than cut.
const budget = 10 * time.Second

func (b *bench) try(c schemaCase) error {
	b.schemas++
	began := time.Now()
	m, err := b.vocabulary.NewMatcher(grammar.Source{Kind: grammar.JSONSchema, Text: string(c.Schema)})
	b.compiles = append(b.compiles, time.Since(began))
	if errors.Is(err, grammar.ErrInvalid) || errors.Is(err, grammar.ErrTooComplex) {
		b.refuse(c, err)
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	judged, complex := true, false
	for i, test := range c.Tests {
		b.instances++
		if err := test.Data.Compact(); err != nil { // how it is laid out says nothing about the schema
			return err
		}
		taken, err := b.follow(m.Clone(), test.Data)
		switch {
		case errors.Is(err, grammar.ErrTooComplex):
			complex = true
			b.say("%s: instance %d: %v", c.Name, i, err)
		case err != nil:
			return fmt.Errorf("instance %d: %w", i, err)
		case taken && !test.Valid:
			b.invalidTaken, judged = b.invalidTaken+1, false
			b.say("%s: instance %d is invalid and taken: %.300s", c.Name, i, test.Data)
		case !taken && test.Valid:
			b.validRefused, judged = b.validRefused+1, false
			b.say("%s: instance %d is valid and refused: %.300s", c.Name, i, test.Data)
		}
	}
	switch {
	case !judged:
		b.wrong++
	case complex:
		b.tooComplex++
	default:
		b.right++
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	if b.verbose {
		fmt.Printf(format+"\n", args...)
	}
}

// follow tells whether the grammar lets a text through as a whole answer, token by token.
func (b *bench) follow(m *grammar.Matcher, text []byte) (bool, error) {
	defer m.Close()
	words := make([]uint32, m.MaskWords())
	forced := 0
	for _, t := range b.vocabulary.Encode(text) {
		if forced == 0 {
			list, err := m.Forced(64, budget)
			if err != nil {
				return false, err
			}
			forced = len(list)
			b.forced += forced
		}
		forced = max(forced-1, 0)
		b.tokens++
		if err := b.mask(m, words); err != nil {
			return false, err
		}
		if words[t/32]>>(t%32)&1 == 0 {
			return false, nil
		}
		if err := m.Accept(t, budget); err != nil {
			return false, err
		}
	}
	if err := b.mask(m, words); err != nil {
		return false, err
	}
	for t := range int32(b.vocabulary.Size()) {
		if words[t/32]>>(t%32)&1 != 0 && b.vocabulary.IsEnd(t) {
			return true, nil
		}
	}
	return false, nil
}

func (b *bench) mask(m *grammar.Matcher, words []uint32) error {
	began := time.Now()
	err := m.Mask(words, budget)
	b.masks = append(b.masks, time.Since(began))
	return err
}

func (b *bench) report(out *os.File) {
	fmt.Fprintf(out, "vocabulary            %d tokens\n", b.vocabulary.Size())
	fmt.Fprintf(out, "schemas, instances    %d, %d\n", b.schemas, b.instances)
	fmt.Fprintf(out, "schemas right         %d\n", b.right)
	fmt.Fprintf(out, "schemas refused       %d\n", b.refused)
	fmt.Fprintf(out, "schemas too complex   %d (found out on the way)\n", b.tooComplex)
	fmt.Fprintf(out, "schemas wrong         %d\n", b.wrong)
	fmt.Fprintf(out, "invalid taken         %d\n", b.invalidTaken)
	fmt.Fprintf(out, "valid refused         %d\n", b.validRefused)
	fmt.Fprintf(out, "compile               %s\n", times(b.compiles))
	fmt.Fprintf(out, "mask                  %s\n", times(b.masks))
	fmt.Fprintf(out, "forced tokens         %d of %d\n", b.forced, b.tokens)
	reasons := make([]string, 0, len(b.refusals))
	for reason := range b.refusals {
		reasons = append(reasons, reason)
	}
	sort.Slice(reasons, func(i, k int) bool { return b.refusals[reasons[i]] > b.refusals[reasons[k]] })
	for _, reason := range reasons {
		fmt.Fprintf(out, "  refused for %-20s %d\n", reason, b.refusals[reason])
	}
}

func times(list []time.Duration) string {
	if len(list) == 0 {
		return "none"
	}
	sort.Slice(list, func(i, k int) bool { return list[i] < list[k] })
	var sum time.Duration
	for _, d := range list {
		sum += d
	}
	at := func(q float64) time.Duration {
		return list[min(int(q*float64(len(list))), len(list)-1)].Round(time.Microsecond)
	}
	return fmt.Sprintf("mean %s, p50 %s, p99 %s, most %s (%d)", (sum / time.Duration(len(list))).Round(time.Microsecond), at(0.5), at(0.99), at(1), len(list))
}
