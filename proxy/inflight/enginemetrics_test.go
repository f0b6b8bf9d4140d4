package inflight

import (
	"context"
	"testing"

	"tandem/proxy/metrics"
)

// What counts failed reads must not rise while there is nothing to read: the alert about it would come after every outage.
func TestNoEngineIsNoFailedReadOfItsMetrics(t *testing.T) {
	var b *bench
	m := metrics.New(metrics.Options{EngineText: func(ctx context.Context) ([]byte, error) { return b.EngineMetrics(ctx) }})
	b = newBench(t, Options{})
	failures := func() float64 {
		families, err := m.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "llm_engine_metrics_fetch_errors_total" {
				return f.Metric[0].Counter.GetValue()
			}
		}
		t.Fatal("the counter is missing")
		return 0
	}
	for range 2 { // before the first engine and after the last
		if n := failures(); n != 0 {
			t.Errorf("%v failed reads without an engine", n)
		}
		b.lose(b.attach(LastExit{}))
	}
}
