//go:build llama

package llama

import (
	"math"
	"math/rand/v2"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// sureMargin is a lead over the second token that the order of additions doesn't turn round, here where tokens follow each other at
// random: the lead changes by up to 0.3, and by 0.03 on average.
const sureMargin, meanBound = 0.5, 0.1

// path is what one sequence is fed: a prompt in pieces, then an answer token by token, whatever is drawn.
type path struct {
	tokens []batch.Token
	prompt int
	piece  int // prompt tokens of a step
	fed    int
	draws  []batch.Draw
}

func (p *path) slice(seq int, s batch.Sampler) batch.Slice {
	n := 1
	if p.fed < p.prompt {
		n = min(p.piece, p.prompt-p.fed)
	}
	out := batch.Slice{Seq: seq, Start: p.fed, Tokens: p.tokens[p.fed : p.fed+n], Index: len(p.draws)}
	if p.fed+n >= p.prompt {
		out.Sampler = s
	}
	return out
}

// walk feeds all paths; join tells in which step a path begins. Each gets its draws.
func walk(t *testing.T, base *Base, d *device, paths []*path, join func(i int) int) {
	t.Helper()
	sampler, err := base.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	for step := 0; ; step++ {
		var slices []batch.Slice
		var who []*path
		waiting := false
		for i, p := range paths {
			if step < join(i) {
				waiting = true
			} else if p.fed < len(p.tokens) {
				slices, who = append(slices, p.slice(i, sampler)), append(who, p)
			}
		}
		if len(slices) == 0 && !waiting {
			break
		}
		d.run(func() { err = base.Step(nil, slices) })
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range who {
			p.fed += len(slices[i].Tokens)
			if slices[i].Sampler != nil {
				p.draws = append(p.draws, slices[i].Draw)
			}
		}
	}
	d.run(func() {
		for i := range paths {
			base.Truncate(i, 0)
		}
	})
}

// Sequences that share a cache and steps draw what they draw alone: cells that lie between each other, prompts of all lengths in whole
// and in pieces beside tokens of answers, in passes below and above the 64 rows at which llama.cpp computes attention in tiles.
func TestACrowdDrawsWhatEachDrawsAlone(t *testing.T) {
	const crowd, answer = 40, 16
	backend, d := newBackend(t, func(o *Options) { o.Threads = 2 })
	base := loadFile(t, backend, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) { s.Parallel, s.Context = crowd, 256 })
	rng := rand.New(rand.NewPCG(3, 4))
	paths := make([]*path, crowd)
	for i := range paths {
		p := &path{prompt: 1 + rng.IntN(120), piece: 1 << 20}
		if i%3 == 0 {
			p.piece = 1 + rng.IntN(40)
		}
		for range p.prompt + answer {
			p.tokens = append(p.tokens, batch.Token(3+rng.IntN(base.vocab.size()-3)))
		}
		paths[i] = p
	}
	walk(t, base, d, paths, func(i int) int { return i / 4 })
	sum, draws := 0.0, 0
	for i, p := range paths {
		alone := &path{tokens: p.tokens, prompt: p.prompt, piece: p.piece}
		walk(t, base, d, []*path{alone}, func(int) int { return 0 })
		for k, want := range alone.draws {
			got := p.draws[k]
			if got.Token != want.Token && want.Margin > sureMargin {
				t.Errorf("sequence %d, prompt of %d in pieces of %d, draw %d: token %d, alone %d by %g", i, p.prompt, p.piece, k, got.Token, want.Token, want.Margin)
			}
			sum += math.Abs(float64(got.Margin - want.Margin))
			draws++
		}
	}
	if mean := sum / float64(draws); mean > meanBound {
		t.Errorf("the lead of the token drawn differs by %g on average", mean)
	}
}
