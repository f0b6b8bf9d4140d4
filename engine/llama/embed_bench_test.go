//go:build llama

package llama

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// gapSink collects the gaps between the tokens of streams.
type gapSink struct {
	mu   sync.Mutex
	gaps []time.Duration // guarded by mu
	left sync.WaitGroup
}

func (s *gapSink) Emit(step *batch.Step) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range step.Tokens {
		if t.Index > 0 {
			s.gaps = append(s.gaps, t.SinceLast)
		}
	}
	for range step.Done {
		s.left.Done()
	}
	return true
}

// BenchmarkStreamsBesideEmbeddings measures the gaps of four streams, alone and while 32 texts at a time are embedded.
// SMOLLM2 names the model; without it the demo model is used, which is too small to say much.
func BenchmarkStreamsBesideEmbeddings(b *testing.B) {
	executor := batch.NewExecutor(batch.Options{})
	defer executor.Close(context.Background())
	o := Options{BackendDir: backendDir(b), OnDevice: executor.Do, OnTurn: executor.TakeTurn, Logger: slog.New(slog.DiscardHandler)}
	backend, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	path := os.Getenv("SMOLLM2")
	if path == "" {
		path = demoFile(b, "demo-q8_0.gguf")
	}
	loaded, err := backend.LoadBase(b.Context(), models.BaseSpec{Name: "m", Key: "m", Path: path, Parallel: 8, Context: 2048}, nil)
	if err != nil {
		b.Fatal(err)
	}
	base := loaded.(*Base)
	defer base.Close()
	if err := executor.Attach(b.Context(), "m", base); err != nil {
		b.Fatal(err)
	}
	defer executor.Detach(context.Background(), "m")
	var texts [][]batch.Token
	for _, text := range mixedTexts(32, 200) {
		texts = append(texts, tokensOf(b, base, text))
	}
	embedTokens(b, base, nil, texts[0])

	b.Run("streams alone", func(b *testing.B) { reportGaps(b, runStreams(b, executor, base)) })
	b.Run("embeddings alone", func(b *testing.B) {
		b.StopTimer()
		embedded, began := 0, time.Now()
		b.StartTimer()
		for range b.N {
			embedTogether(b, base, nil, texts)
			for _, t := range texts {
				embedded += len(t)
			}
		}
		b.ReportMetric(float64(embedded)/time.Since(began).Seconds(), "embedded-tokens/s")
	})
	b.Run("streams beside embeddings", func(b *testing.B) {
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		embedded, began := 0, time.Now()
		for i := range texts {
			wg.Go(func() {
				for ctx.Err() == nil {
					if _, err := base.Embed(ctx, models.TaskEmbed, nil, texts[i]); err == nil {
						mu.Lock()
						embedded += len(texts[i])
						mu.Unlock()
					}
				}
			})
		}
		gaps := runStreams(b, executor, base)
		took := time.Since(began)
		cancel()
		wg.Wait()
		reportGaps(b, gaps)
		b.ReportMetric(float64(embedded)/took.Seconds(), "embedded-tokens/s")
	})
}

// runStreams lets four streams of 100 tokens run at a time, and returns the gaps between their tokens.
func runStreams(b *testing.B, executor *batch.Executor, base *Base) []time.Duration {
	sink := &gapSink{}
	prompt := tokensOf(b, base, strings.Repeat("The capital of France is Paris. ", 4))
	for i := range b.N {
		for k := range 4 {
			sink.left.Add(1)
			r := &batch.Request{
				ID: uint64(4*i + k + 1), Base: "m", Prompt: prompt, MaxNewTokens: 100, Sink: sink,
				Sampling: batch.Sampling{Temperature: 1, TopP: 1, RepeatPenalty: 1, Seed: uint64(k)},
			}
			if err := executor.Submit(r); err != nil {
				b.Fatal(err)
			}
		}
		sink.left.Wait()
	}
	return sink.gaps
}

func reportGaps(b *testing.B, gaps []time.Duration) {
	if len(gaps) == 0 {
		return
	}
	slices.Sort(gaps)
	for name, at := range map[string]int{"gap-p50-ms": len(gaps) / 2, "gap-p99-ms": len(gaps) * 99 / 100, "gap-max-ms": len(gaps) - 1} {
		b.ReportMetric(float64(gaps[at].Microseconds())/1000, name)
	}
}
