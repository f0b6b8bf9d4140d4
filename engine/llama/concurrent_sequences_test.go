//go:build llama

package llama

import (
	"math"
	"math/rand/v2"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// sureMargin is a lead over the second token that another order of additions doesn't reverse. In this test, where
// tokens follow each other at random, the lead changes by up to 0.3, and by 0.03 on average.
const sureMargin, maxMeanDifference = 0.5, 0.1

// testSequence is a fixed sequence to decode: a prompt in chunks, then an answer token by token, whatever is drawn.
type testSequence struct {
	tokens       []batch.Token
	promptTokens int
	chunk        int // prompt tokens of a step
	decoded      int // tokens so far
	draws        []batch.Draw
}

func (p *testSequence) slice(seq int, s batch.Sampler) batch.Slice {
	n := 1
	if p.decoded < p.promptTokens {
		n = min(p.chunk, p.promptTokens-p.decoded)
	}
	out := batch.Slice{Seq: seq, Start: p.decoded, Tokens: p.tokens[p.decoded : p.decoded+n], Index: len(p.draws)}
	if p.decoded+n >= p.promptTokens {
		out.Sampler = s
	}
	return out
}

// runSequences decodes all sequences and records their draws; join returns the step in which a sequence begins.
func runSequences(t *testing.T, base *Base, executor *testExecutor, sequences []*testSequence, join func(i int) int) {
	t.Helper()
	decodeSequences(t, base, executor, sequences, join)
	executor.run(func() {
		for i := range sequences {
			base.Truncate(i, 0)
		}
	})
}

// decodeSequences is runSequences, and leaves the cells.
func decodeSequences(t *testing.T, base *Base, executor *testExecutor, sequences []*testSequence, join func(i int) int) {
	t.Helper()
	sampler, err := base.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	for step := 0; ; step++ {
		var slices []batch.Slice
		var decoding []*testSequence
		waiting := false
		for i, p := range sequences {
			if step < join(i) {
				waiting = true
			} else if p.decoded < len(p.tokens) {
				slices, decoding = append(slices, p.slice(i, sampler)), append(decoding, p)
			}
		}
		if len(slices) == 0 && !waiting {
			break
		}
		executor.run(func() { err = base.Step(slices) })
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range decoding {
			p.decoded += len(slices[i].Tokens)
			if slices[i].Sampler != nil {
				p.draws = append(p.draws, slices[i].Draw)
			}
		}
	}
}

// Sequences that share steps draw what they draw alone, with a cache in common and with streams: interleaved cells,
// prompts of all lengths in one chunk and in several beside tokens of answers, in passes below and above the 64 rows
// from which llama.cpp computes attention in tiles.
func TestConcurrentSequencesDrawWhatEachDrawsAlone(t *testing.T) {
	for _, layout := range []models.KVLayout{unified, streams} {
		t.Run(string(layout), func(t *testing.T) { compareWithAlone(t, layout) })
	}
}

func compareWithAlone(t *testing.T, layout models.KVLayout) {
	const sequenceCount, answerTokens = 40, 16
	backend, executor := newBackend(t, func(o *Options) { o.Threads = 2 })
	base := loadFile(t, backend, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) {
		s.Parallel, s.Context, s.Attention.Layout = sequenceCount, 256, layout
	})
	rng := rand.New(rand.NewPCG(3, 4))
	sequences := make([]*testSequence, sequenceCount)
	for i := range sequences {
		p := &testSequence{promptTokens: 1 + rng.IntN(120), chunk: 1 << 20}
		if i%3 == 0 {
			p.chunk = 1 + rng.IntN(40)
		}
		for range p.promptTokens + answerTokens {
			p.tokens = append(p.tokens, batch.Token(3+rng.IntN(base.vocab.size()-3)))
		}
		sequences[i] = p
	}
	runSequences(t, base, executor, sequences, func(i int) int { return i / 4 })
	sum, draws := 0.0, 0
	for i, p := range sequences {
		alone := &testSequence{tokens: p.tokens, promptTokens: p.promptTokens, chunk: p.chunk}
		runSequences(t, base, executor, []*testSequence{alone}, func(int) int { return 0 })
		for k, want := range alone.draws {
			got := p.draws[k]
			if got.Token != want.Token && want.Margin > sureMargin {
				t.Errorf("sequence %d, prompt of %d in pieces of %d, draw %d: token %d, alone %d by %g", i, p.promptTokens, p.chunk, k, got.Token, want.Token, want.Margin)
			}
			sum += math.Abs(float64(got.Margin - want.Margin))
			draws++
		}
	}
	if mean := sum / float64(draws); mean > maxMeanDifference {
		t.Errorf("the lead of the token drawn differs by %g on average", mean)
	}
}
