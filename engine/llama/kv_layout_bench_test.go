//go:build llama

package llama

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// BenchmarkKVLayouts compares steps of decoding sequences on SmolLM2 (SMOLLM2 names it) with a unified cache and with
// streams, in alternating rounds, and what a copied prefix costs the step that follows. 32 sequences have 128 tokens
// each; some decode and the others are kept.
func BenchmarkKVLayouts(b *testing.B) {
	const sequences, promptTokens, steps = 32, 128, 8
	path := os.Getenv("SMOLLM2")
	if path == "" {
		b.Skip("SMOLLM2 names no model")
	}
	backend, executor := newBackend(b, func(o *Options) { o.CacheBytes, o.Threads = 2<<30, 2 })
	layouts := []models.KVLayout{unified, streams}
	var bases []*Base
	for _, layout := range layouts {
		base := loadFile(b, backend, path, func(s *models.BaseSpec) { s.Parallel, s.Context, s.Attention.Layout = sequences, 1024, layout })
		bases = append(bases, base)
		rng := rand.New(rand.NewPCG(1, 2))
		for seq := range sequences {
			prompt := make([]batch.Token, promptTokens)
			for i := range prompt {
				prompt[i] = batch.Token(3 + rng.IntN(base.vocab.size()-3))
			}
			mustDecode(b, base, executor, []batch.Slice{{Seq: seq, Tokens: prompt}})
		}
	}
	every := func(n, distance int) (list []int) {
		for i := range n {
			list = append(list, i*distance)
		}
		return list
	}
	for name, list := range map[string][]int{"1": every(1, 1), "8": every(8, 1), "8-of-16": every(8, 2), "8-of-24": every(8, 3), "8-of-32": every(8, 4), "32": every(32, 1)} {
		b.Run(name, func(b *testing.B) {
			times := make([][]time.Duration, len(bases))
			for b.Loop() {
				for i, base := range bases {
					began := time.Now()
					for k := range steps {
						var slices []batch.Slice
						for _, seq := range list {
							slices = append(slices, batch.Slice{Seq: seq, Start: promptTokens + k, Tokens: []batch.Token{100}, Sampler: dryRun{}})
						}
						mustDecode(b, base, executor, slices)
					}
					times[i] = append(times[i], time.Since(began)/steps)
					executor.run(func() {
						for _, seq := range list {
							base.Truncate(seq, promptTokens)
						}
					})
				}
			}
			for i, layout := range layouts {
				b.ReportMetric(median(times[i]).Seconds()*1e3, fmt.Sprint(layout, "-ms/step"))
			}
		})
	}
	b.Run("copy", func(b *testing.B) {
		base := bases[1]
		var plain, copied []time.Duration
		one := []batch.Slice{{Seq: 0, Start: promptTokens, Tokens: []batch.Token{100}, Sampler: dryRun{}}}
		timed := func() time.Duration {
			began := time.Now()
			mustDecode(b, base, executor, one)
			took := time.Since(began)
			executor.run(func() { base.Truncate(0, promptTokens) })
			return took
		}
		for b.Loop() {
			plain = append(plain, timed())
			executor.run(func() {
				base.Truncate(1, 0)
				if !base.CopyPrefix(0, 1, promptTokens) {
					b.Error("the prefix isn't copied")
				}
			})
			copied = append(copied, timed())
		}
		b.ReportMetric((median(copied)-median(plain)).Seconds()*1e3, "ms/copy")
	})
}

// mustDecode computes logits and draws nothing.
func mustDecode(b *testing.B, base *Base, executor *testExecutor, slices []batch.Slice) {
	b.Helper()
	var err error
	executor.run(func() { err = base.decode(slices) })
	if err != nil {
		b.Fatal(err)
	}
}
