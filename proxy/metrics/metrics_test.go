package metrics

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tandem/schema/catalogue"
)

const testModel, testVersion = "microsoft/DialoGPT-medium", "v1.0"

func newTestMetrics(t *testing.T, change func(*Options)) *Metrics {
	t.Helper()
	o := Options{DefaultModel: testModel, DefaultVersion: testVersion, QueueCapacity: 256, CacheSize: 5,
		Build: BuildInfo{Version: "1.0.0", Revision: "abc"}}
	if change != nil {
		change(&o)
	}
	return New(o)
}

func scrape(t *testing.T, h http.Handler, accept string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/prometheus", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

func scrapeFamilies(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	resp, body := scrape(t, m.Handler(), "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	return parseFamilies(t, body)
}

func parseFamilies(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	f, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("the page does not parse: %v\n%s", err, text)
	}
	return f
}

// sumSeries adds counters, gauges or histogram counts of all series that have every given label value ("name=value").
func sumSeries(f *dto.MetricFamily, want ...string) float64 {
	total := 0.0
	for _, m := range f.GetMetric() {
		if !hasLabels(m, want) {
			continue
		}
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return total
}

func hasLabels(m *dto.Metric, want []string) bool {
	have := make(map[string]bool)
	for _, l := range m.GetLabel() {
		have[l.GetName()+"="+l.GetValue()] = true
	}
	for _, w := range want {
		if !have[w] {
			return false
		}
	}
	return true
}

func countSeries(families map[string]*dto.MetricFamily) int {
	n := 0
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

func TestPageAtStartHasEveryFamily(t *testing.T) {
	families := scrapeFamilies(t, newTestMetrics(t, nil))
	later := map[string]string{
		"model_memory_usage_bytes": "a model is loaded", "llm_model_info": "a model is loaded", "llm_cache_config_info": "an engine is attached",
		"llm_lora_requests_info": "never, it is for routers", "llm_ipc_duration_seconds": "the first call",
	}
	for _, c := range catalogue.ByOwner(catalogue.Proxy) {
		f := families[c.Name]
		if when, ok := later[c.Name]; ok {
			if f != nil {
				t.Errorf("%s is there before %s", c.Name, when)
			}
			continue
		}
		if f == nil {
			t.Errorf("%s is missing", c.Name)
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != c.Kind.String() || f.GetHelp() != c.Help {
			t.Errorf("%s: type %s help %q, want %s %q", c.Name, got, f.GetHelp(), c.Kind, c.Help)
		}
	}
}

func TestLoadedModelCompletesTheDocumentedFamilies(t *testing.T) {
	m := newTestMetrics(t, nil)
	m.Model(testModel, testVersion).SetLoaded(1<<30, Facts{Quantization: "Q8_0", Architecture: "gpt2", ContextTokens: 1024})
	families := scrapeFamilies(t, m)
	for _, c := range catalogue.All() {
		if c.Group == catalogue.Documented && families[c.Name] == nil {
			t.Errorf("%s is missing", c.Name)
		}
	}
	if got := sumSeries(families["model_memory_usage_bytes"], "model="+testModel, "version="+testVersion); got != 1<<30 {
		t.Errorf("memory = %v", got)
	}
}

func TestChildrenStartAtZero(t *testing.T) {
	m := newTestMetrics(t, nil)
	m.RegisterModel("demo", "v2.0")
	families := scrapeFamilies(t, m)
	cases := map[string][]string{"api_requests_total": {"status", "endpoint=/infer"}, "failed_inferences_total": {"error_type"},
		"model_load_failures_total": {"reason"}, "llm_request_finish_total": {"reason"}}
	for name, c := range cases {
		for _, modelVersion := range [][2]string{{testModel, testVersion}, {"demo", "v2.0"}, {"unknown", "unknown"}} {
			for _, value := range labelValues(name, c[0]) {
				want := append([]string{"model=" + modelVersion[0], "version=" + modelVersion[1], c[0] + "=" + value}, c[1:]...)
				found := 0
				for _, s := range families[name].GetMetric() {
					if hasLabels(s, want) {
						found++
					}
				}
				if found != 1 || sumSeries(families[name], want...) != 0 {
					t.Errorf("%s%v: %d series", name, want, found)
				}
			}
		}
	}
}

func TestPageIsLintClean(t *testing.T) {
	m := newTestMetrics(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) { return []byte(engineMetricsText), nil }
	})
	recordEverything(m)
	_, body := scrape(t, m.Handler(), "")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// recordEverything records events that make the families appear that aren't there at the start.
func recordEverything(m *Metrics) {
	mm := m.Model(testModel, testVersion)
	mm.SetLoaded(1000, Facts{"Q8_0", "gpt2", 1024})
	m.EngineUp(EngineInfo{"1.0.0", "c0ffee", "cpu", "1"})
	m.SetCacheConfig(1, 8192)
	m.SetAdapters(5, []string{"v1.0"}, nil, time.Unix(1700000000, 0))
	m.IPCCall("metrics", time.Millisecond, "")
}

func TestMadeUpNamesAddNoSeries(t *testing.T) {
	m := newTestMetrics(t, func(o *Options) { o.Domains = []string{"medical"} })
	e := m.Endpoint("/infer")
	say := func(name string) {
		mm := m.Model(name, name)
		e.Begin()
		e.Record(Reply{Status: name, Model: mm})
		mm.Finish(Outcome{Reason: "stop", Domain: name, OutputTokens: 1, PromptTokens: 1})
		mm.Finish(Outcome{Reason: name, ErrorType: name})
		mm.LoadFailed(name)
		mm.Evicted(name)
		m.Rejected(name)
		m.Cancelled(name)
		m.RateLimited(name, true)
		m.EngineRestarted(name)
		m.FrameDropped(name)
		m.Replayed(name)
		m.IPCCall(name, time.Millisecond, name)
	}
	say("first")
	before := countSeries(scrapeFamilies(t, m))
	for i := range 500 {
		say(fmt.Sprintf("made-up-%d", i))
	}
	families := scrapeFamilies(t, m)
	if after := countSeries(families); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	if got := sumSeries(families["successful_inferences_total"], "model=unknown", "domain=other"); got != 501 {
		t.Errorf("successes of unknown models in other domains = %v, want 501", got)
	}
}

func TestPairsBeyondTheCapShareOther(t *testing.T) {
	m := newTestMetrics(t, nil)
	for i := range catalogue.MaxPairs + 9 {
		m.RegisterModel("model", fmt.Sprintf("v%d", i))
	}
	model, version := m.Model("model", fmt.Sprintf("v%d", catalogue.MaxPairs+5)).Labels()
	if model != "other" || version != "other" {
		t.Errorf("labels beyond the cap: %s, %s", model, version)
	}
	families := scrapeFamilies(t, m)
	// one pair is the default
	if got := sumSeries(families["llm_metric_label_overflow_total"], "label=model"); got != 10 {
		t.Errorf("overflow = %v, want 10", got)
	}
	if got := len(families["tokens_generated_total"].GetMetric()); got != catalogue.MaxPairs+3 {
		t.Errorf("%d pairs with series, want %d with none, unknown and other", got, catalogue.MaxPairs+3)
	}
}

func TestSumsAgree(t *testing.T) {
	m := newTestMetrics(t, nil)
	e, mm := m.Endpoint("/infer"), m.Model(testModel, testVersion)
	for i, reason := range []string{"stop", "length", "cancelled", "error", "stop"} {
		e.Begin()
		for range i + 1 {
			mm.Token(time.Millisecond)
		}
		mm.Finish(Outcome{Reason: reason, ErrorType: "engine_crashed", PromptTokens: 10, CachedTokens: 4, OutputTokens: i + 1})
		status := map[string]string{"cancelled": "cancelled", "error": "error"}[reason]
		if status == "" {
			status = "success"
		}
		e.Record(Reply{Status: status, Model: mm, Took: time.Second})
	}
	f := scrapeFamilies(t, m)
	success := sumSeries(f["api_requests_total"], "endpoint=/infer", "status=success")
	for name, got := range map[string]float64{
		"successful_inferences_total": sumSeries(f["successful_inferences_total"]),
		"llm_request_finish_total":    sumSeries(f["llm_request_finish_total"], "reason=stop") + sumSeries(f["llm_request_finish_total"], "reason=length"),
	} {
		if got != success || got != 3 {
			t.Errorf("%s = %v, successful requests %v, want 3", name, got, success)
		}
	}
	tokens := sumSeries(f["tokens_generated_total"])
	if got := sumSeries(f["token_generation_time_seconds"]); got != tokens || tokens != 15 {
		t.Errorf("%v tokens, %v timed", tokens, got)
	}
	if got := f["llm_request_output_tokens"].GetMetric()[0].GetHistogram().GetSampleSum(); got != tokens {
		t.Errorf("%v tokens, %v in the lengths of answers", tokens, got)
	}
	if got := sumSeries(f["llm_requests_in_flight"]); got != 0 {
		t.Errorf("%v in flight when idle", got)
	}
	if cached, computed := sumSeries(f["llm_prompt_tokens_total"], "source=cache"), sumSeries(f["llm_prompt_tokens_total"], "source=compute"); cached != 20 || computed != 30 {
		t.Errorf("prompt tokens: %v cached, %v computed", cached, computed)
	}
	if got := sumSeries(f["api_response_time_seconds"], "model="+testModel); got != 4 {
		t.Errorf("%v response times, want 4 without the cancelled one", got)
	}
}

func TestObjectivesScaleWithLength(t *testing.T) {
	slo := SLO{FirstToken: time.Second, PerToken: 100 * time.Millisecond, Request: time.Second}
	cases := []struct {
		name            string
		o               Outcome
		ttft, tpot, e2e string
	}{
		{"quick", Outcome{Reason: "stop", OutputTokens: 8, Decode: 70 * time.Millisecond, FirstToken: time.Millisecond, Total: 80 * time.Millisecond}, "good", "good", "good"},
		{"slow start", Outcome{Reason: "stop", OutputTokens: 8, Decode: 70 * time.Millisecond, FirstToken: 2 * time.Second, Total: 2100 * time.Millisecond}, "bad", "good", "bad"},
		{"long at a good pace", Outcome{Reason: "length", OutputTokens: 132, Decode: 10 * time.Second, FirstToken: time.Millisecond, Total: 10 * time.Second}, "good", "good", "good"},
		{"slow tokens", Outcome{Reason: "length", OutputTokens: 11, Decode: 2 * time.Second, FirstToken: time.Millisecond, Total: 2 * time.Second}, "good", "bad", "bad"},
		{"failed", Outcome{Reason: "error"}, "bad", "bad", "bad"},
		{"embedding", Outcome{Reason: "stop", Total: 80 * time.Millisecond}, "", "", "good"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newTestMetrics(t, func(o *Options) { o.SLO = slo })
			m.Model(testModel, testVersion).Finish(c.o)
			f := scrapeFamilies(t, m)["llm_slo_requests_total"]
			for name, want := range map[string]string{"ttft": c.ttft, "tpot": c.tpot, "e2e": c.e2e} {
				times := 1.0
				if want == "" {
					times = 0
				}
				if sumSeries(f, "slo="+name, "result="+want) != times || sumSeries(f, "slo="+name) != times {
					t.Errorf("%s is not counted %v times as %q", name, times, want)
				}
			}
		})
	}
	m := newTestMetrics(t, func(o *Options) { o.SLO = slo })
	m.Model(testModel, testVersion).Finish(Outcome{Reason: "cancelled"})
	if got := sumSeries(scrapeFamilies(t, m)["llm_slo_requests_total"]); got != 0 {
		t.Errorf("a client that left was judged %v times", got)
	}
}

func TestLostEngineHasNoMemory(t *testing.T) {
	m := newTestMetrics(t, nil)
	recordEverything(m)
	m.SetQueued(3)
	m.SetEngineLoad(EngineLoad{Waiting: 2, Running: 4, KVUsage: 0.5})
	f := scrapeFamilies(t, m)
	if w, r, k := sumSeries(f["llm_requests_waiting"]), sumSeries(f["llm_requests_running"]), sumSeries(f["llm_kv_cache_usage_ratio"]); w != 5 || r != 4 || k != 0.5 {
		t.Errorf("waiting %v running %v kv %v", w, r, k)
	}
	m.EngineLost()
	f = scrapeFamilies(t, m)
	if f["model_memory_usage_bytes"] != nil || f["llm_model_info"] != nil || f["llm_cache_config_info"] != nil {
		t.Error("memory or facts of a lost engine are still shown")
	}
	for _, name := range []string{"llm_engine_up", "llm_model_loaded", "llm_kv_cache_usage_ratio", "llm_requests_running"} {
		if f[name] == nil || sumSeries(f[name]) != 0 {
			t.Errorf("%s is not 0", name)
		}
	}
	if got := sumSeries(f["llm_requests_waiting"]); got != 3 {
		t.Errorf("waiting = %v, want the proxy's own 3", got)
	}
}

func TestCustomMetricsCanBeHidden(t *testing.T) {
	lastAsked := false
	m := newTestMetrics(t, func(o *Options) {
		o.HideCustom = true
		o.EngineText = func(context.Context) ([]byte, error) { lastAsked = true; return nil, nil }
	})
	recordEverything(m)
	for name := range scrapeFamilies(t, m) {
		if c := catalogue.Find(name); c == nil || !c.Core() {
			t.Errorf("%s is shown", name)
		}
	}
	if lastAsked {
		t.Error("the engine was asked for metrics that nobody sees")
	}
}

func TestNativeHistogramsKeepTheBuckets(t *testing.T) {
	m := newTestMetrics(t, func(o *Options) { o.NativeHistograms = true })
	m.Model(testModel, testVersion).Token(time.Millisecond)
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "token_generation_time_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if h.Schema == nil || len(h.GetBucket()) == 0 {
			t.Errorf("schema %v, %d classic buckets", h.Schema, len(h.GetBucket()))
		}
	}
}

func TestTokenDoesNotAllocate(t *testing.T) {
	mm := newTestMetrics(t, nil).Model(testModel, testVersion)
	if n := testing.AllocsPerRun(100, func() { mm.Token(time.Millisecond); mm.InterToken(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations a token", n)
	}
}

func BenchmarkToken(b *testing.B) {
	m := New(Options{DefaultModel: testModel, DefaultVersion: testVersion})
	mm := m.Model(testModel, testVersion)
	b.ReportAllocs()
	for b.Loop() {
		mm.Token(time.Millisecond)
	}
}
