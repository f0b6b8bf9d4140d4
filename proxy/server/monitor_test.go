package server

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

func TestPagesHaveTheDocumentedShape(t *testing.T) {
	d := openDoor(t, instant(), nil)
	var health struct {
		Status    string
		Timestamp float64
	}
	decodeExactly(t, d.get("/health").body, &health)
	if health.Status != "ok" || time.Since(time.UnixMilli(int64(health.Timestamp*1e3))).Abs() > time.Minute {
		t.Errorf("health %+v", health)
	}
	var status struct {
		Service, Version, Status, Device string
		Timestamp                        float64
		Prometheus                       bool `json:"prometheus_available"`
		CachedModels                     int  `json:"cached_models"`
		Cached                           []struct {
			BaseModel string `json:"base_model"`
			Version   string
			Loaded    bool
		} `json:"cached_model_info"`
		Devices []struct {
			Name, Backend string
			MemoryTotal   uint64 `json:"memory_total"`
			MemoryFree    uint64 `json:"memory_free"`
		}
	}
	decodeExactly(t, d.get("/status").body, &status)
	if status.Service != "LLM Inference API" || status.Version != "1.0.0" || status.Status != "healthy" || status.Device != "cpu" || !status.Prometheus ||
		status.CachedModels != 2 || len(status.Cached) != 2 || status.Cached[0].BaseModel != "demo" || !status.Cached[0].Loaded || status.Cached[1].Loaded ||
		len(status.Devices) != 1 || status.Devices[0].MemoryTotal != 1<<30 {
		t.Errorf("status %+v", status)
	}
	var list struct {
		Models []struct {
			BaseModel   string `json:"base_model"`
			Versions    []string
			Description string
		}
	}
	decodeExactly(t, d.get("/models").body, &list)
	if len(list.Models) != 1 || list.Models[0].BaseModel != "demo" || strings.Join(list.Models[0].Versions, " ") != "base v1.0 v1.1" || list.Models[0].Description != "facts" {
		t.Errorf("models %+v", list)
	}
	var live Live
	decodeExactly(t, d.get("/status/live").body, &live)
	if live.Waiting != 3 || live.Running != 2 || live.EngineUp != 1 || live.Exchanges != 1 || live.Connections < 1 || len(live.LoadedModels) != 2 || len(live.Targets) != 9 {
		t.Errorf("live %+v", live)
	}
	if r := d.get("/"); r.StatusCode != 200 || !strings.Contains(r.body, "/infer") || !strings.Contains(r.body, "/prometheus") {
		t.Errorf("index %q", r.body)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if r := d.get(path); r.StatusCode != 200 || r.body != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
	for path := range d.routes {
		if path == inferPath {
			continue
		}
		got, head := d.get(path), d.do("HEAD", path, "")
		if head.StatusCode != got.StatusCode || head.body != "" || head.Header.Get("X-Request-Id") == "" || head.Header.Get("Content-Type") != got.Header.Get("Content-Type") {
			t.Errorf("HEAD %s: %d %v", path, head.StatusCode, head.Header)
		}
	}
}

func TestMetricsPage(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.MetricsPath = "/metrics" })
	d.ask(question)
	r := d.get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if f := families["api_requests_total"]; f == nil || f.GetHelp() != "Total API requests" {
		t.Errorf("api_requests_total: %v", f)
	}
	if r.Header.Get("X-Request-Id") == "" || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("header %v", r.Header)
	}
	if r := d.do("GET", "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0"); !strings.HasSuffix(r.body, "# EOF\n") {
		t.Error("OpenMetrics was asked for and isn't there")
	}
	router := d.get("/metrics/router")
	if _, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(router.body))); err != nil || !strings.Contains(router.body, "llm_requests_waiting 0") {
		t.Errorf("router page: %v, %q", err, router.body)
	}
	if r := d.get("/prometheus"); r.StatusCode != 404 {
		t.Errorf("the default path is served beside METRICS_PATH: %d", r.StatusCode)
	}
	off := openDoor(t, instant(), func(o *Options) { o.Prometheus = false })
	if r := off.get("/prometheus"); r.StatusCode != 404 {
		t.Errorf("PROMETHEUS_ENABLED=false: %d", r.StatusCode)
	}
	if r := off.get("/status"); !strings.Contains(r.body, `"prometheus_available":false`) {
		t.Errorf("status %s", r.body)
	}
}

func TestMetricsOnTheirOwnListener(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.MetricsElsewhere = true })
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	s := d.Server
	go func() { served <- s.ServeMetrics(ln) }()
	main := d.url
	for path, want := range map[string]int{"/prometheus": 404, "/metrics/router": 404, "/status": 200} {
		if r := d.get(path); r.StatusCode != want {
			t.Errorf("main listener %s: %d", path, r.StatusCode)
		}
	}
	d.url = "http://" + ln.Addr().String()
	for path, want := range map[string]int{"/prometheus": 200, "/metrics/router": 200, "/livez": 200, "/status": 404, "/infer": 404} {
		if r := d.get(path); r.StatusCode != want {
			t.Errorf("metrics listener %s: %d", path, r.StatusCode)
		}
	}
	d.url = main
	d.client.CloseIdleConnections()
	d.shutdown()
	if err := await(t, "end of ServeMetrics", served, waitLimit); err != nil {
		t.Error(err)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*inflight.Status)
		health  api.HealthStatus
		service api.ServiceStatus
		reason  string // part of it; empty: ready
	}{
		{"all well", func(*inflight.Status) {}, "ok", "healthy", ""},
		{"before the first engine", func(s *inflight.Status) { *s = inflight.Status{} }, "loading", "loading", "no engine"},
		{"first load", func(s *inflight.Status) {
			s.EverReady, s.DefaultLoaded, s.Loading = false, false, []string{"demo@v1.0"}
		}, "loading", "loading", "loading demo@v1.0"},
		{"another model loads", func(s *inflight.Status) { s.Loading = []string{"demo@v1.1"} }, "ok", "healthy", ""},
		{"default loads again", func(s *inflight.Status) { s.DefaultLoaded, s.Loading = false, []string{"demo@v1.0"} }, "loading", "loading", ""},
		{"default was evicted", func(s *inflight.Status) { s.DefaultLoaded = false }, "ok", "healthy", ""},
		{"engine away for a moment", func(s *inflight.Status) { s.EngineUp, s.EngineAwayFor = false, 9*time.Second }, "degraded", "degraded", ""},
		{"engine ends, for a moment", func(s *inflight.Status) { s.EngineAwayFor = 9 * time.Second }, "degraded", "degraded", ""},
		{"engine ends and takes its time", func(s *inflight.Status) { s.EngineAwayFor = 10 * time.Second }, "degraded", "degraded", "takes nothing new, for 10s"},
		{"engine away for long", func(s *inflight.Status) { s.EngineUp, s.EngineAwayFor = false, 10*time.Second }, "degraded", "degraded", "away for 10s"},
		{"crash loop", func(s *inflight.Status) { s.CrashLoop = true }, "degraded", "unhealthy", "stops again"},
		{"default missing", func(s *inflight.Status) { s.DefaultMissing, s.DefaultModel = true, "acme/x" }, "degraded", "degraded", "acme/x"},
		{"default broken", func(s *inflight.Status) { s.DefaultLoaded, s.DefaultProblem = false, "model.gguf: cut off" }, "degraded", "degraded",
			"the default model demo version v1.0 can't be loaded: model.gguf: cut off"},
		{"draining", func(s *inflight.Status) { s.Draining, s.CrashLoop = true, true }, "draining", "draining", "draining"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := readyStatus()
			c.change(&s)
			if got := healthStatus(&s); got != c.health {
				t.Errorf("health %s, want %s", got, c.health)
			}
			if got := serviceStatus(&s); got != c.service {
				t.Errorf("status %s, want %s", got, c.service)
			}
			if got := notReady(&s, 10*time.Second); (got == "") != (c.reason == "") || !strings.Contains(got, c.reason) {
				t.Errorf("reason %q, want %q", got, c.reason)
			}
		})
	}
	table := instant()
	d := openDoor(t, table, func(o *Options) { o.EngineWait = 10 * time.Second })
	table.set(func(s *inflight.Status) {
		s.DefaultProblem, s.Models[0].Versions[1].Problem = "cut off", "no \"tensors\""
	})
	if r := d.get("/models"); !strings.HasSuffix(r.body, `"description":"facts","problems":{"v1.0":"no \"tensors\""}}]}`) {
		t.Errorf("/models: %s", r.body)
	}
	if r := d.get("/readyz"); r.StatusCode != 503 || !strings.Contains(r.body, "cut off") {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	table.set(func(s *inflight.Status) { s.CrashLoop = true })
	if r := d.get("/readyz"); r.StatusCode != 503 || !strings.Contains(r.body, `"reason":"the engine stops`) {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := d.get("/health"); r.StatusCode != 200 {
		t.Errorf("/health: %d", r.StatusCode)
	}
}

func TestHeaders(t *testing.T) {
	for asked, kept := range map[string]bool{"a": true, "A-b_c.9": true, strings.Repeat("x", 64): true, "": false, strings.Repeat("x", 65): false, "a b": false, "a\n": false, "é": false} {
		if got := requestID([]byte(asked)); (got == asked) != kept || got == "" {
			t.Errorf("request id %q became %q", asked, got)
		}
	}
	for asked, want := range map[string]time.Duration{"": time.Minute, "2.5": 2500 * time.Millisecond, "300ms": 300 * time.Millisecond, "1m30s": time.Minute, "1e300": time.Minute, "0": 0, "-1": 0, "-1s": 0, "NaN": 0, "soon": 0} {
		got, err := timeout(time.Minute, []byte(asked))
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("timeout %q: %s, %v", asked, got, err)
		}
	}
	for value, ok := range map[string]bool{"application/json": true, "Application/JSON; charset=UTF-8": true, `application/json;charset="utf-8"`: true, "application/json; x=y": true,
		"": false, "text/json": false, "application/jsonx": false, "application/json; charset=utf-16": false} {
		var h fasthttp.RequestHeader
		h.SetContentType(value)
		if err := contentType(&h); (err == nil) != ok {
			t.Errorf("Content-Type %q: %v", value, err)
		}
	}
}
