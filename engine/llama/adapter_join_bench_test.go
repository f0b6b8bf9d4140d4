//go:build llama

package llama

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// BenchmarkAdapterJoins measures what an adapter that joins costs the step in which it is first used, beside six others
// of rank 16, on the model that SMOLLM2 names: one of their rank takes a free slot, one of a higher rank has the stacks
// laid out anew.
func BenchmarkAdapterJoins(b *testing.B) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		b.Skip("SMOLLM2 names no model")
	}
	for _, rank := range []int{16, 32, 64} {
		b.Run(fmt.Sprintf("rank %d", rank), func(b *testing.B) {
			var before, joining time.Duration
			for range b.N {
				step, join := adapterJoins(b, path, rank)
				before += step
				joining += join
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(before.Seconds()*1000/float64(b.N), "ms/step-before")
			b.ReportMetric(joining.Seconds()*1000/float64(b.N), "ms/step-of-joining")
		})
	}
}

// adapterJoins returns what a step takes with six adapters, and the one that has a seventh for the first time.
func adapterJoins(b *testing.B, path string, rank int) (before, joining time.Duration) {
	backend, executor := newBackend(b, nil)
	base := loadFile(b, backend, path, func(s *models.BaseSpec) { s.Parallel, s.Context = 8, 512 })
	var adapters []batch.Adapter
	for i := range 7 {
		l := loraFile{rank: 16, kind: tensorF16, seed: uint64(i), size: 0.02}
		if i == 6 {
			l.rank = rank
		}
		adapters = append(adapters, loadLoRA(b, base, l.write(b, path)))
	}
	position := 0
	step := func(adapters []batch.Adapter) time.Duration {
		s := make([]batch.Slice, len(adapters))
		for i := range s {
			start := position
			if i == 6 { // it begins now
				start = 0
			}
			s[i] = batch.Slice{Seq: i, Adapter: adapters[i], Start: start, Tokens: []batch.Token{base.gapFiller()}, Sampler: dryRun{}}
		}
		position++
		var err error
		start := time.Now()
		executor.run(func() { err = errors.Join(base.useAdapters(s), base.decode(s)) })
		if err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	for range 20 {
		before = step(adapters[:6])
	}
	return before, step(adapters)
}
