package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tandem/schema/catalogue"
)

const engineMetricsText = `# HELP llm_engine_queue_requests
# TYPE llm_engine_queue_requests gauge
llm_engine_queue_requests{model="demo"} 2
# HELP llm_engine_tokens_total
# TYPE llm_engine_tokens_total counter
llm_engine_tokens_total{model="demo",kind="prompt"} 7
# HELP llm_engine_batch_tokens
# TYPE llm_engine_batch_tokens histogram
llm_engine_batch_tokens_bucket{model="demo",le="1"} 1
llm_engine_batch_tokens_bucket{model="demo",le="+Inf"} 2
llm_engine_batch_tokens_sum{model="demo"} 9
llm_engine_batch_tokens_count{model="demo"} 2
# HELP process_resident_memory_bytes
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 123456
# HELP go_goroutines
# TYPE go_goroutines gauge
go_goroutines 9
# HELP go_gc_forced_count
# TYPE go_gc_forced_count counter
go_gc_forced_count 1
# HELP api_requests_total
# TYPE api_requests_total counter
api_requests_total{endpoint="/infer"} 99
`

func TestEngineMetricsJoinThePage(t *testing.T) {
	m := newTestMetrics(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) { return []byte(engineMetricsText), nil }
	})
	formats := map[string]string{
		"text": "", "openmetrics": "application/openmetrics-text;version=1.0.0",
		"protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
	}
	h := m.Handler()
	for name, accept := range formats {
		resp, body := scrape(t, h, accept)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") == "" {
			t.Errorf("%s: status %d, content type %q", name, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		if !strings.Contains(body, "llm_engine_queue_requests") || !strings.Contains(body, "llm_engine_process_resident_memory_bytes") {
			t.Errorf("%s: engine families are missing", name)
		}
		if strings.Contains(body, "forced_count") {
			t.Errorf("%s: a family outside the list is shown", name)
		}
	}
	f := scrapeFamilies(t, m)
	if got := sumSeries(f["llm_engine_tokens_total"], "kind=prompt", "model=demo"); got != 7 {
		t.Errorf("engine counter = %v", got)
	}
	if got := sumSeries(f["llm_engine_batch_tokens"]); got != 2 {
		t.Errorf("engine histogram has %v observations", got)
	}
	if f["llm_engine_queue_requests"].GetHelp() == "" {
		t.Error("no help")
	}
	if got := sumSeries(f["api_requests_total"]); got != 0 {
		t.Errorf("the engine wrote into a family of the proxy: %v", got)
	}
}

// recordedEngine returns metrics that an engine wrote.
func recordedEngine(t *testing.T) func(context.Context) ([]byte, error) {
	t.Helper()
	text, err := os.ReadFile("testdata/engine.prom")
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context) ([]byte, error) { return text, nil }
}

func TestEveryEngineFamilyIsJoined(t *testing.T) {
	f := scrapeFamilies(t, newTestMetrics(t, func(o *Options) { o.EngineText = recordedEngine(t) }))
	want := catalogue.ByOwner(catalogue.Engine)
	for _, name := range catalogue.EngineRuntimeNames() {
		renamed, _ := catalogue.EngineRuntime(name)
		want = append(want, &renamed)
	}
	for _, c := range want {
		got := f[c.Name]
		if got == nil || strings.ToLower(got.GetType().String()) != c.Kind.String() || got.GetHelp() != c.Help {
			t.Errorf("%s: %v", c.Name, got.GetType())
		}
	}
	for name := range f {
		if strings.HasPrefix(name, "llm_engine_go_") || strings.HasPrefix(name, "llm_engine_process_") {
			if _, ok := catalogue.EngineRuntime(strings.TrimPrefix(name, "llm_engine_")); !ok {
				t.Errorf("%s is not on the list", name)
			}
		}
	}
	if own, engine := f["go_goroutines"], f["llm_engine_go_goroutines"]; own == nil || engine == nil {
		t.Error("both processes have goroutines")
	}
}

func TestFailedFetchLeavesThePageGood(t *testing.T) {
	cases := map[string]func(ctx context.Context) ([]byte, error){
		"error":   func(context.Context) ([]byte, error) { return nil, errors.New("gone") },
		"garbage": func(context.Context) ([]byte, error) { return []byte("{{{ not metrics"), nil },
		"twice":   func(context.Context) ([]byte, error) { return []byte(engineMetricsText + "go_goroutines 9\n"), nil },
		"too big": func(context.Context) ([]byte, error) { return bytes.Repeat([]byte("#\n"), maxEngineTextBytes), nil },
		"hangs":   func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
	}
	for name, fetch := range cases {
		t.Run(name, func(t *testing.T) {
			f := scrapeFamilies(t, newTestMetrics(t, func(o *Options) { o.EngineText = fetch }))
			if got := sumSeries(f["llm_engine_metrics_fetch_errors_total"]); got != 1 {
				t.Errorf("fetch errors = %v", got)
			}
			if f["llm_engine_queue_requests"] != nil || f["api_requests_total"] == nil {
				t.Error("the page is not the proxy's alone")
			}
		})
	}
}

func TestNoEngineIsNoFetchError(t *testing.T) {
	f := scrapeFamilies(t, newTestMetrics(t, func(o *Options) { o.EngineText = func(context.Context) ([]byte, error) { return nil, nil } }))
	if got := sumSeries(f["llm_engine_metrics_fetch_errors_total"]); got != 0 {
		t.Errorf("fetch errors = %v", got)
	}
}

func TestFetchIsSharedForASecond(t *testing.T) {
	calls := 0
	m := newTestMetrics(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) { calls++; return []byte(engineMetricsText), nil }
	})
	now := time.Unix(1000, 0)
	m.engine.now = func() time.Time { return now }
	scrapeFamilies(t, m)
	now = now.Add(900 * time.Millisecond)
	scrapeFamilies(t, m)
	if calls != 1 {
		t.Errorf("%d fetches within a second", calls)
	}
	now = now.Add(200 * time.Millisecond)
	scrapeFamilies(t, m)
	if calls != 2 {
		t.Errorf("%d fetches after a second, want 2", calls)
	}
}

// An engine on a busy machine has time to answer; of one that hangs, not every scrape waits that long.
func TestAFetchAfterAFailureIsShorter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took time.Duration // of the engine
		m := newTestMetrics(t, func(o *Options) {
			o.EngineText = func(ctx context.Context) ([]byte, error) {
				select {
				case <-time.After(took):
					return []byte(engineMetricsText), nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
		})
		for _, c := range []struct {
			took, waited time.Duration
			there        bool
		}{
			{900 * time.Millisecond, 900 * time.Millisecond, true},
			{time.Hour, time.Second, false},
			{time.Hour, 300 * time.Millisecond, false},
			{200 * time.Millisecond, 200 * time.Millisecond, true},
			{900 * time.Millisecond, 900 * time.Millisecond, true},
		} {
			time.Sleep(fetchCacheTTL)
			took = c.took
			began := time.Now()
			f := scrapeFamilies(t, m)
			if there := f["llm_engine_queue_requests"] != nil; there != c.there || time.Since(began) != c.waited {
				t.Errorf("an engine that takes %s: its metrics are there: %v, after %s; want %v after %s", c.took, there, time.Since(began), c.there, c.waited)
			}
		}
	})
}

func TestScrapesAndUpdatesAtOnce(t *testing.T) {
	m := newTestMetrics(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) { return []byte(engineMetricsText), nil }
	})
	h, e := m.Handler(), m.Endpoint("/infer")
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for range 5 {
				if resp, body := scrape(t, h, ""); resp.StatusCode != http.StatusOK {
					t.Errorf("scrape: %d %s", resp.StatusCode, body)
				}
				m.WriteRouterPage(new(bytes.Buffer))
			}
		})
		wg.Go(func() {
			for n := range 50 {
				m.RegisterModel("demo", fmt.Sprintf("v%d.%d", i, n%3))
				mm := m.Model("demo", fmt.Sprintf("v%d.%d", i, n%3))
				e.Begin()
				mm.Token(time.Millisecond)
				mm.SetLoaded(10, Facts{})
				mm.Finish(Outcome{Reason: "stop"})
				e.Record(Reply{Status: "success", Model: mm})
				m.EngineLost()
			}
		})
	}
	wg.Wait()
	if got := sumSeries(scrapeFamilies(t, m)["successful_inferences_total"]); got != 150 {
		t.Errorf("successes = %v, want 150", got)
	}
}
