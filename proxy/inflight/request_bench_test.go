package inflight

import (
	"context"
	"log/slog"
	"testing"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// BenchmarkRequest is the cost of one request of two tokens in the table, from admission to its end.
func BenchmarkRequest(b *testing.B) {
	quiet := slog.New(slog.DiscardHandler)
	table := New(Options{
		DefaultModel: "demo", Log: quiet, Metrics: metrics.New(metrics.Options{Log: quiet}),
		QueueCapacity: 256, QueueMaxBytes: 1 << 20, JournalMaxBytes: 1 << 40,
	})
	f := &fakeEngine{}
	table.Attached(f, Hello{Instance: 1})
	table.Catalog(f, &Catalog{Models: []Model{{Name: "demo"}}})
	table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 32}}})
	b.ReportAllocs()
	for b.Loop() {
		a, err := table.Admit(context.Background(), Request{Infer: &api.Request{Prompt: "x"}})
		if err != nil {
			b.Fatal(err)
		}
		s := f.infers[0]
		f.infers = f.infers[:0]
		table.Accepted(f, s.ID, s.Attempt, &Accepted{MaxNewTokens: 100})
		for i := range 2 {
			table.Step(f, &Step{Tokens: []Token{letterToken(s, i)}})
		}
		table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, OutputTokens: 2}}})
		a.Take(nil)
		a.Settle(Delivered)
	}
}
