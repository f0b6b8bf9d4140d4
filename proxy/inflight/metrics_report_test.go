package inflight

import (
	"context"
	"testing"
	"time"

	"tandem/proxy/metrics"
)

// The count of failed fetches must not rise while there is nothing to fetch: its alert would fire after every outage.
func TestNoEngineIsNoMetricsFetchError(t *testing.T) {
	var table *tableTest
	m := metrics.New(metrics.Options{EngineText: func(ctx context.Context) ([]byte, error) { return table.EngineMetrics(ctx) }})
	table = newTableTest(t, Options{})
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
		table.lose(table.attach(LastExit{}))
	}
}

// A model that the engine's catalog doesn't list any more loses its series after an hour, but not while a request for
// it runs.
func TestSeriesOfRemovedModelsAreRemoved(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Catalog(f, catalogOf("demo", "old"))
		ask := func() Answer {
			return table.admit(func(r *Request) { r.Infer.Model, r.Infer.Version, r.Timeout = "old", "base", 0 })
		}
		a := ask()
		table.serve(f, f.last(t), 3)
		a.Settle(Delivered)

		long := ask()
		table.sendAccepted(f, f.last(t))
		table.Catalog(f, catalogOf("demo"))
		time.Sleep(59 * time.Minute)
		table.wantMetric(3, "tokens_generated_total", "model=old")
		table.lose(f) // without an engine, no model is known to be gone, or to be there again
		f = table.attach(LastExit{})
		table.Catalog(f, catalogOf("demo"))
		time.Sleep(time.Minute)
		table.wantAnswer(long, "", "model_changed", true)
		table.wantMetric(3, "tokens_generated_total", "model=old")
		table.wantMetric(0, "failed_inferences_total", "model=old")
		long.Settle(Failed)
		table.wantMetric(1, "failed_inferences_total", "model=old", "error_type=model_changed")
		time.Sleep(2 * metricsSweepInterval)
		for _, name := range []string{"tokens_generated_total", "failed_inferences_total", "llm_request_finish_total", "llm_request_phase_seconds"} {
			if n := table.seriesCount(name, "old"); n != 0 {
				t.Errorf("%d series of %s are left", n, name)
			}
		}
		if table.seriesCount("tokens_generated_total", "demo") == 0 {
			t.Error("the series of an installed model went, too")
		}
	})
}

// Counters of the page would jump if it went from one engine to another and back.
func TestPageShowsOneEngineUntilItLeaves(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		attach := func(name string) *fakeEngine { return table.attachEngine(&fakeEngine{metrics: name}, LastExit{}) }
		want := func(name, when string) {
			t.Helper()
			if got, err := table.EngineMetrics(t.Context()); err != nil || string(got) != name {
				t.Errorf("%s the page shows %q, %v; want %q", when, got, err, name)
			}
		}
		f := attach("old")
		want("old", "with one engine")
		table.lose(attach("new"))
		want("old", "after a new one that was taken back")
		g := attach("new")
		want("old", "beside a new one")
		table.Draining(f, time.Minute, false)
		want("new", "when the old one drains")
		table.lose(g)
		want("", "when the new one is lost")
		g = attach("newer")
		want("newer", "with the next one")
		table.Draining(g, time.Minute, false)
		want("newer", "when nobody takes its place")
	})
}

// An engine whose connection broke for a moment is shown again, for there is no other.
func TestPageShowsAnEngineThatCameBack(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attachEngine(&fakeEngine{metrics: "old"}, LastExit{})
		hello := table.lastHello
		g := table.attachEngine(&fakeEngine{metrics: "new"}, LastExit{})
		table.lose(f)
		for range 2 {
			if got, _ := table.EngineMetrics(t.Context()); string(got) != "new" {
				t.Errorf("the page shows %q", got)
			}
			table.Attached(f, hello)
		}
		table.lose(g)
		if got, _ := table.EngineMetrics(t.Context()); string(got) != "old" {
			t.Errorf("the page shows %q", got)
		}
	})
}
