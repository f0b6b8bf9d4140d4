package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/schema/catalogue"
)

const engineText = `# HELP llm_engine_queue_requests
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
	m := newTest(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) { return []byte(engineText), nil }
	})
	formats := map[string]string{
		"text": "", "openmetrics": "application/openmetrics-text;version=1.0.0",
		"protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
	}
	h := m.Handler()
	for name, accept := range formats {
		resp, body := get(t, h, accept)
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
	f := page(t, m)
	if got := sum(f["llm_engine_tokens_total"], "kind=prompt", "model=demo"); got != 7 {
		t.Errorf("engine counter = %v", got)
	}
	if got := sum(f["llm_engine_batch_tokens"]); got != 2 {
		t.Errorf("engine histogram has %v observations", got)
	}
	if f["llm_engine_queue_requests"].GetHelp() == "" {
		t.Error("no help")
	}
	if got := sum(f["api_requests_total"]); got != 0 {
		t.Errorf("the engine wrote into a family of the proxy: %v", got)
	}
}

// realEngine gives what an engine wrote.
func realEngine(t *testing.T) func(context.Context) ([]byte, error) {
	t.Helper()
	text, err := os.ReadFile("testdata/engine.prom")
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context) ([]byte, error) { return text, nil }
}

func TestEveryEngineFamilyIsJoined(t *testing.T) {
	f := page(t, newTest(t, func(o *Options) { o.EngineText = realEngine(t) }))
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
		"twice":   func(context.Context) ([]byte, error) { return []byte(engineText + "go_goroutines 9\n"), nil },
		"too big": func(context.Context) ([]byte, error) { return bytes.Repeat([]byte("#\n"), maxEngineText), nil },
		"hangs":   func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
	}
	for name, fetch := range cases {
		t.Run(name, func(t *testing.T) {
			f := page(t, newTest(t, func(o *Options) { o.EngineText = fetch }))
			if got := sum(f["llm_engine_metrics_fetch_errors_total"]); got != 1 {
				t.Errorf("fetch errors = %v", got)
			}
			if f["llm_engine_queue_requests"] != nil || f["api_requests_total"] == nil {
				t.Error("the page is not the proxy's alone")
			}
		})
	}
}

func TestNoEngineIsNoFetchError(t *testing.T) {
	f := page(t, newTest(t, func(o *Options) { o.EngineText = func(context.Context) ([]byte, error) { return nil, nil } }))
	if got := sum(f["llm_engine_metrics_fetch_errors_total"]); got != 0 {
		t.Errorf("fetch errors = %v", got)
	}
}

func TestFetchIsSharedForASecond(t *testing.T) {
	calls := 0
	m := newTest(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) { calls++; return []byte(engineText), nil }
	})
	now := time.Unix(1000, 0)
	m.join.now = func() time.Time { return now }
	page(t, m)
	now = now.Add(900 * time.Millisecond)
	page(t, m)
	if calls != 1 {
		t.Errorf("%d fetches within a second", calls)
	}
	now = now.Add(200 * time.Millisecond)
	page(t, m)
	if calls != 2 {
		t.Errorf("%d fetches after a second, want 2", calls)
	}
}

func TestScrapesAndUpdatesAtOnce(t *testing.T) {
	m := newTest(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) { return []byte(engineText), nil }
	})
	h, e := m.Handler(), m.Endpoint("/infer")
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for range 5 {
				if resp, body := get(t, h, ""); resp.StatusCode != http.StatusOK {
					t.Errorf("scrape: %d %s", resp.StatusCode, body)
				}
				m.WriteRouter(new(bytes.Buffer))
			}
		})
		wg.Go(func() {
			for n := range 50 {
				m.Announce("demo", fmt.Sprintf("v%d.%d", i, n%3))
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
	if got := sum(page(t, m)["successful_inferences_total"]); got != 150 {
		t.Errorf("successes = %v, want 150", got)
	}
}

func TestRouterPage(t *testing.T) {
	m := newTest(t, nil)
	m.SetQueued(3)
	m.SetEngineLoad(EngineLoad{Waiting: 1, Running: 2, KVUsage: 0.25})
	m.SetCacheConfig(1, 4096)
	m.SetAdapters(5, []string{"demo@v1.1", "demo@v1.0", "demo@v1.1"}, []string{`a"b`}, time.UnixMilli(1700000000500))
	var b bytes.Buffer
	m.WriteRouter(&b)
	want := `# TYPE llm_requests_waiting gauge
llm_requests_waiting 4
# TYPE llm_requests_running gauge
llm_requests_running 2
# TYPE llm_kv_cache_usage_ratio gauge
llm_kv_cache_usage_ratio 0.25
# TYPE llm_cache_config_info gauge
llm_cache_config_info{block_size="1",num_blocks="4096"} 1
# TYPE llm_lora_requests_info gauge
llm_lora_requests_info{max_lora="5",running_lora_adapters="demo@v1.0,demo@v1.1",waiting_lora_adapters="a\"b"} 1700000000.5
`
	if b.String() != want {
		t.Errorf("router page:\n%s", b.String())
	}
	if f := parse(t, b.String()); len(f) != 5 {
		t.Errorf("%d families", len(f))
	}
}

func BenchmarkScrape(b *testing.B) {
	text, err := os.ReadFile("testdata/engine.prom")
	if err != nil {
		b.Fatal(err)
	}
	m := New(Options{DefaultModel: testModel, DefaultVersion: testVersion, EngineText: func(context.Context) ([]byte, error) { return text, nil }})
	for _, v := range []string{"base", "v1.0", "v1.1", "v2.0"} {
		m.Announce("demo", v)
		m.Model("demo", v).Token(time.Millisecond)
	}
	h := m.Handler()
	lines := 0
	for b.Loop() {
		m.join.at = time.Time{} // every scrape asks the engine
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/prometheus", nil))
		lines = bytes.Count(w.Body.Bytes(), []byte("\n"))
	}
	b.ReportMetric(float64(lines), "lines")
}
