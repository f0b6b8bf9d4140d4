//go:build llama

package llama

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"tandem/engine/batch"
)

const (
	mixAdapters = 8
	mixPrompt   = 48 // tokens
	mixAnswer   = 16
	mixTurn     = 4 // steps of one adapter when they take turns
)

// BenchmarkMixedAdapters compares ways to serve sequences on SmolLM2 (SMOLLM2 names it) in alternating rounds: without
// adapters, with one for all, with eight that take turns, and with eight in one step. Tokens are per second of CPU time
// of one thread.
func BenchmarkMixedAdapters(b *testing.B) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		b.Skip("SMOLLM2 names no model")
	}
	var list []loraFile
	for range mixAdapters {
		list = append(list, loraFile{rank: 16, kind: tensorF16, alpha: 32})
	}
	files := writeFleet(b, path, list, false)
	for _, sequences := range []int{8, 32} {
		b.Run(fmt.Sprintf("sequences=%d", sequences), func(b *testing.B) {
			m := loadMixedBases(b, path, sequences, 1, files, files)
			none := make([]batch.Adapter, sequences)
			several := make([]batch.Adapter, sequences)
			turns := make([]batch.Adapter, sequences)
			for i := range sequences {
				several[i], turns[i] = m.inMixed[1+i%mixAdapters], m.inTurns[1+i%mixAdapters]
			}
			ways := []struct {
				name     string
				base     *Base
				adapters []batch.Adapter
			}{
				{"none", m.turns, none},
				{"one", m.turns, slices.Repeat(m.inTurns[1:2], sequences)},
				{"turns", m.turns, turns},
				{"mixed", m.mixed, several},
				{"mixed-one", m.mixed, slices.Repeat(m.inMixed[1:2], sequences)},
				{"mixed-half", m.mixed, append(slices.Clone(several[:sequences/2]), none[sequences/2:]...)},
			}
			prompts, steps := make([][]time.Duration, len(ways)), make([][]time.Duration, len(ways))
			for b.Loop() {
				for i, w := range ways {
					prompt, answer := m.serve(w.base, w.adapters)
					prompts[i], steps[i] = append(prompts[i], prompt), append(steps[i], answer)
				}
			}
			for i, w := range ways {
				b.ReportMetric(float64(sequences*mixPrompt)/median(prompts[i]).Seconds(), w.name+"-prompt-tok/s")
				b.ReportMetric(float64(sequences*mixAnswer)/median(steps[i]).Seconds(), w.name+"-tok/s")
			}
		})
	}
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// threadTime is the CPU time of this thread, which computes alone: on a busy machine it says more than a clock.
func threadTime() time.Duration {
	const ofThread = 1
	var usage syscall.Rusage
	if err := syscall.Getrusage(ofThread, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// serve computes a prompt and an answer for each sequence and returns the CPU time of the two parts.
func (m *mixedBases) serve(base *Base, adapters []batch.Adapter) (prompts, answers time.Duration) {
	var err error
	step := func(s []batch.Slice) {
		for len(s) > 0 && err == nil { // as many tokens as a step takes
			n, tokens := 0, 0
			for n < len(s) && tokens+len(s[n].Tokens) <= base.limits.StepTokens {
				tokens += len(s[n].Tokens)
				n++
			}
			err = errors.Join(base.useAdapters(s[:n]), base.decode(s[:n]))
			s = s[n:]
		}
	}
	prompt := slices.Repeat([]batch.Token{21, 345, 678, 90}, mixPrompt/4)
	m.executor.run(func() {
		groups := sameAdapter(base, adapters)
		began := threadTime()
		for _, group := range groups {
			var s []batch.Slice
			for _, seq := range group {
				s = append(s, batch.Slice{Seq: seq, Adapter: adapters[seq], Tokens: prompt, Sampler: dryRun{}})
			}
			step(s)
		}
		prompts = threadTime() - began
		began = threadTime()
		for from := 0; from < mixAnswer; from += mixTurn {
			for _, group := range groups {
				for at := from; at < from+mixTurn; at++ {
					var s []batch.Slice
					for _, seq := range group {
						next := prompt[at : at+1]
						s = append(s, batch.Slice{Seq: seq, Adapter: adapters[seq], Start: mixPrompt + at, Tokens: next, Sampler: dryRun{}})
					}
					step(s)
				}
			}
		}
		answers = threadTime() - began
		for seq := range adapters {
			base.Truncate(seq, 0)
		}
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return prompts, answers
}

// sameAdapter lists the sequences of each turn.
func sameAdapter(base *Base, adapters []batch.Adapter) [][]int {
	var groups [][]int
	at := map[batch.Adapter]int{}
	for seq, a := range adapters {
		if base.limits.MixedAdapters {
			a = nil
		}
		if _, known := at[a]; !known {
			at[a] = len(groups)
			groups = append(groups, nil)
		}
		groups[at[a]] = append(groups[at[a]], seq)
	}
	return groups
}
