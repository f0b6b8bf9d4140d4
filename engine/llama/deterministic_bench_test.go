//go:build llama

package llama

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// BenchmarkDeterministic compares steps with and without Options.Deterministic, a few of the one and a few of the other
// in turns, so that both run beside the same other processes. SMOLLM2 names the model; otherwise it is the demo, whose
// steps are too small to say much.
func BenchmarkDeterministic(b *testing.B) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		path = demoFile(b, "demo-q8_0.gguf")
	}
	for _, streams := range []int{1, 4, 16, 32} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) { benchDecode(b, path, streams) })
	}
	for _, prompt := range []int{64, 512, 1500} {
		b.Run(fmt.Sprintf("prompt=%d", prompt), func(b *testing.B) { benchPrompt(b, path, prompt) })
	}
}

type deterministicBench struct {
	backend  *Backend
	base     *Base
	executor *testExecutor
	cpu      [2]time.Duration
	wall     [2]time.Duration
	tokens   [2]int
}

func newDeterministicBench(b *testing.B, path string) *deterministicBench {
	backend, executor := newBackend(b, func(o *Options) { o.Threads = 1; o.CacheBytes = 1 << 30; o.CacheCells = 16384; o.Deterministic = true })
	return &deterministicBench{backend: backend, executor: executor, base: loadFile(b, backend, path, func(s *models.BaseSpec) { s.Parallel = 32 })}
}

func processTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// runStep runs a step and, if counted, adds its cost. The first step after a switch rebuilds the graph and isn't
// counted.
func (r *deterministicBench) runStep(b *testing.B, mode, tokens int, counted bool, slices []batch.Slice) {
	var err error
	r.executor.run(func() {
		setBatchInvariance([]batchInvariance{invariantNothing, invariantAll}[mode])
		cpu, began := processTime(), time.Now()
		err = r.base.decode(slices)
		if counted {
			r.cpu[mode] += processTime() - cpu
			r.wall[mode] += time.Since(began)
			r.tokens[mode] += tokens
		}
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (r *deterministicBench) report(b *testing.B) {
	for mode, name := range []string{"off", "on"} {
		if r.tokens[mode] > 0 {
			b.ReportMetric(float64(r.cpu[mode].Microseconds())/float64(r.tokens[mode]), name+"-cpu-µs/token")
			b.ReportMetric(float64(r.tokens[mode])/r.wall[mode].Seconds(), name+"-tokens/s")
		}
	}
	b.ReportMetric(100*(float64(r.cpu[1])/float64(r.tokens[1])/(float64(r.cpu[0])/float64(r.tokens[0]))-1), "%-more-cpu")
	b.ReportMetric(0, "ns/op")
}

func benchDecode(b *testing.B, path string, streams int) {
	r := newDeterministicBench(b, path)
	rng := rand.New(rand.NewPCG(1, 1))
	token := func() batch.Token { return batch.Token(rng.IntN(r.base.vocab.size())) }
	at := make([]int, streams)
	for seq := range at {
		prompt := make([]batch.Token, 64)
		for i := range prompt {
			prompt[i] = token()
		}
		r.runStep(b, 1, 0, false, []batch.Slice{{Seq: seq, Tokens: prompt}})
		at[seq] = len(prompt)
	}
	const turn = 6
	b.ResetTimer()
	for i := range max(b.N, 4*turn) {
		slices := make([]batch.Slice, streams)
		for seq := range slices {
			if at[seq] >= 320 || at[seq] >= r.base.limits.SequenceMax-1 {
				r.executor.run(func() { r.base.Truncate(seq, 64) })
				at[seq] = 64
			}
			slices[seq] = batch.Slice{Seq: seq, Start: at[seq], Tokens: []batch.Token{token()}, Sampler: dryRun{}}
			at[seq]++
		}
		r.runStep(b, i/turn%2, streams, i%turn > 0, slices)
	}
	r.report(b)
}

func benchPrompt(b *testing.B, path string, length int) {
	r := newDeterministicBench(b, path)
	if length > r.base.limits.SequenceMax {
		b.Skip("longer than the context")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range max(b.N, 6) {
		prompt := make([]batch.Token, length)
		for k := range prompt {
			prompt[k] = batch.Token(rng.IntN(r.base.vocab.size()))
		}
		for start := 0; start < length; start += 512 {
			r.runStep(b, i%2, min(512, length-start), true, []batch.Slice{{Start: start, Tokens: prompt[start:min(start+512, length)]}})
		}
		r.executor.run(func() { r.base.Truncate(0, 0) })
	}
	r.report(b)
}
