//go:build llama

package llama

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// BenchmarkDeterministic compares steps with and without Options.Deterministic, a few of the one and a few of the other
// in turns, so that both have the same neighbours. SMOLLM2 names the model; otherwise it is the demo, whose steps are
// too small to say much. BENCH_THREADS is how many threads compute (default 1).
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

// BenchmarkOwnAttention compares llama.cpp's attention on CPUs with the one that is used here with and without the
// setting: a long prompt beside cells that other sequences keep.
func BenchmarkOwnAttention(b *testing.B) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		b.Skip("SMOLLM2 names no model")
	}
	const kept, others = 1000, 8
	for _, length := range []int{1000, 7000} {
		b.Run(fmt.Sprintf("prompt=%d", length), func(b *testing.B) {
			r := newDeterministicBench(b, path, invariantNothing, invariantAttention)
			for mode := range r.modes {
				for seq := range others {
					r.prefill(b, mode, seq+1, kept, false)
				}
			}
			b.ResetTimer()
			for i := range max(b.N, 4) {
				r.prefill(b, i%2, 0, length, true)
				r.truncate(i%2, 0, 0)
			}
			r.report(b)
		})
	}
}

// benchThreads is how many threads compute.
func benchThreads(b *testing.B) int {
	text := os.Getenv("BENCH_THREADS")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatalf("BENCH_THREADS: %v", err)
	}
	return n
}

// deterministicBench has a model loaded twice. A context belongs to one way of computing: its graphs are built for it,
// and used again.
type deterministicBench struct {
	executor *testExecutor
	rng      *rand.Rand
	modes    [2]batchInvariance
	bases    [2]*Base
	cpu      [2]time.Duration
	wall     [2]time.Duration
	tokens   [2]int
}

func newDeterministicBench(b *testing.B, path string, modes ...batchInvariance) *deterministicBench {
	backend, executor := newBackend(b, func(o *Options) {
		o.Threads = benchThreads(b)
		o.CacheBytes, o.CacheCells, o.Deterministic = 1<<30, 16384, true
	})
	r := &deterministicBench{executor: executor, modes: [2]batchInvariance(modes), rng: rand.New(rand.NewPCG(1, 1))}
	for mode := range r.modes {
		r.bases[mode] = loadFile(b, backend, path, func(s *models.BaseSpec) { s.Parallel = 40 })
	}
	return r
}

func processTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (r *deterministicBench) token() batch.Token {
	return batch.Token(r.rng.IntN(r.bases[0].vocab.size()))
}

// runStep runs a step and, if counted, adds its cost.
func (r *deterministicBench) runStep(b *testing.B, mode, tokens int, counted bool, slices []batch.Slice) {
	var err error
	r.executor.run(func() {
		setBatchInvariance(r.modes[mode])
		cpu, began := processTime(), time.Now()
		err = r.bases[mode].decode(slices)
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

// prefill computes a prompt of random tokens.
func (r *deterministicBench) prefill(b *testing.B, mode, seq, length int, counted bool) {
	const chunk = 512
	tokens := make([]batch.Token, length)
	for i := range tokens {
		tokens[i] = r.token()
	}
	for start := 0; start < length; start += chunk {
		part := tokens[start:min(start+chunk, length)]
		r.runStep(b, mode, len(part), counted, []batch.Slice{{Seq: seq, Start: start, Tokens: part}})
	}
}

func (r *deterministicBench) truncate(mode, seq, length int) {
	r.executor.run(func() { r.bases[mode].Truncate(seq, length) })
}

func (r *deterministicBench) report(b *testing.B) {
	var cost, speed [2]float64
	for mode, name := range []string{"off", "on"} {
		if r.tokens[mode] == 0 {
			return
		}
		cost[mode] = float64(r.cpu[mode].Microseconds()) / float64(r.tokens[mode])
		speed[mode] = float64(r.tokens[mode]) / r.wall[mode].Seconds()
		b.ReportMetric(cost[mode], name+"-cpu-µs/token")
		b.ReportMetric(speed[mode], name+"-tokens/s")
	}
	b.ReportMetric(100*(1-speed[1]/speed[0]), "%-fewer-tokens/s")
	b.ReportMetric(100*(cost[1]/cost[0]-1), "%-more-cpu")
	b.ReportMetric(0, "ns/op")
}

func benchDecode(b *testing.B, path string, streams int) {
	const prompt, longest, turn = 64, 320, 6
	r := newDeterministicBench(b, path, invariantNothing, invariantAll)
	var at [2][]int
	for mode := range at {
		at[mode] = make([]int, streams)
		for seq := range at[mode] {
			r.prefill(b, mode, seq, prompt, false)
			at[mode][seq] = prompt
		}
	}
	b.ResetTimer()
	for i := range max(b.N, 4*turn) {
		mode := i / turn % 2
		slices := make([]batch.Slice, streams)
		for seq := range slices {
			if at[mode][seq] >= min(longest, r.bases[mode].limits.SequenceMax-1) {
				r.truncate(mode, seq, prompt)
				at[mode][seq] = prompt
			}
			slices[seq] = batch.Slice{Seq: seq, Start: at[mode][seq], Tokens: []batch.Token{r.token()}, Sampler: dryRun{}}
			at[mode][seq]++
		}
		r.runStep(b, mode, streams, true, slices)
	}
	r.report(b)
}

func benchPrompt(b *testing.B, path string, length int) {
	r := newDeterministicBench(b, path, invariantNothing, invariantAll)
	if length > r.bases[0].limits.SequenceMax {
		b.Skip("longer than the context")
	}
	for i := range max(b.N, 6) {
		r.prefill(b, i%2, 0, length, true)
		r.truncate(i%2, 0, 0)
	}
	r.report(b)
}
