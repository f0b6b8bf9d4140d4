//go:build llama

package llama

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// BenchmarkCacheTypes measures what the formats of the KV cache take and how fast they are, on the model that SMOLLM2
// names: the memory of 1,000 tokens, a prompt of 1,024 tokens, and steps of one sequence behind it. All are loaded
// together and measured in turns, so that they have the same neighbours; medians of the rounds.
func BenchmarkCacheTypes(b *testing.B) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		b.Skip("SMOLLM2 names no model")
	}
	const promptTokens, steps, rounds = 1024, 32, 5
	backend, executor := newBackend(b, func(o *Options) { o.Threads = 2 })
	wanted := []models.Attention{{Flash: models.FlashOff}, {KeyType: "f32", ValueType: "f32", Flash: models.FlashOff}, {KeyType: "q8_0", Flash: models.FlashOff}}
	for _, kind := range models.CacheTypes() {
		wanted = append(wanted, models.Attention{KeyType: kind, ValueType: kind})
	}
	wanted = append(wanted, models.Attention{KeyType: "q8_0", ValueType: "q5_1"})
	var bases []*Base
	for _, a := range wanted {
		bases = append(bases, loadFile(b, backend, path, func(s *models.BaseSpec) { s.Attention, s.Parallel, s.Context = a, 1, 1280 }))
	}
	prompt := slices.Repeat(tokensOf(b, bases[0], strings.Repeat("The capital of France is Paris. ", 40)), 8)[:promptTokens]
	prefill, decode := make([][]float64, len(bases)), make([][]float64, len(bases))
	b.ResetTimer()
	for range rounds {
		for i, base := range bases {
			executor.run(func() {
				timed := func(slices []batch.Slice) float64 {
					start := time.Now()
					if err := base.decode(slices); err != nil {
						b.Fatal(err)
					}
					return time.Since(start).Seconds()
				}
				base.Truncate(0, 0)
				prefill[i] = append(prefill[i], timed([]batch.Slice{{Seq: 0, Tokens: prompt}}))
				for at := range steps {
					decode[i] = append(decode[i], timed([]batch.Slice{{Seq: 0, Start: promptTokens + at, Tokens: prompt[:1], Sampler: dryRun{}}}))
				}
			})
		}
	}
	for i, base := range bases {
		slices.Sort(prefill[i])
		slices.Sort(decode[i])
		kv := base.Facts().KV
		b.Run(fmt.Sprintf("k=%s/v=%s/flash=%v", kv.KeyType, kv.ValueType, kv.Flash), func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(kv.Bytes)/float64(base.limits.Cells)/1000, "MB/1000tokens")
			b.ReportMetric(promptTokens/prefill[i][rounds/2], "prompt-tokens/s")
			b.ReportMetric(1/decode[i][rounds*steps/2], "steps/s")
		})
	}
}
