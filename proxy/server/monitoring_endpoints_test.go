package server

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestPagesHaveTheDocumentedShape(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	var health struct {
		Status    string
		Timestamp float64
	}
	decodeExactly(t, ts.get("/health").body, &health)
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
		Backends []struct {
			Name, Problem string
			Devices       []struct {
				Name, Description string
				MemoryTotal       uint64 `json:"memory_total"`
				MemoryFree        uint64 `json:"memory_free"`
			}
		}
		Memory []struct {
			Model     string `json:"base_model"`
			Cells     int    `json:"kv_cells"`
			Limit     string `json:"kv_cells_limit"`
			TypeK     string `json:"cache_type_k"`
			TypeV     string `json:"cache_type_v"`
			Flash     bool   `json:"flash_attention"`
			Layout    string `json:"kv_layout"`
			Sampling  string
			DecidedBy string `json:"sampling_decided_by"`
			Devices   []struct {
				Name                       string
				Weights, Compute, Adapters uint64
				Cache                      uint64 `json:"kv_cache"`
			}
		} `json:"model_memory"`
	}
	decodeExactly(t, ts.get("/status").body, &status)
	if status.Service != "LLM Inference API" || status.Version != "1.0.0" || status.Status != "healthy" || status.Device != "cpu" || !status.Prometheus ||
		status.CachedModels != 2 || len(status.Cached) != 2 || status.Cached[0].BaseModel != "demo" || !status.Cached[0].Loaded || status.Cached[1].Loaded ||
		len(status.Devices) != 1 || status.Devices[0].MemoryTotal != 1<<30 ||
		len(status.Backends) != 2 || status.Backends[0].Problem != "no NVIDIA driver" || status.Backends[1].Devices[0].Description != "a processor" ||
		len(status.Memory) != 1 || status.Memory[0].Cells != 4096 || status.Memory[0].Limit != "a quarter" ||
		status.Memory[0].TypeK != "q8_0" || status.Memory[0].TypeV != "f16" || !status.Memory[0].Flash || status.Memory[0].Layout != "streams" ||
		status.Memory[0].Sampling != "device" || status.Memory[0].DecidedBy != "it is faster" || status.Memory[0].Devices[0].Cache != 8 || status.Memory[0].Devices[0].Adapters != 9 {
		t.Errorf("status %+v", status)
	}
	var list struct {
		Models []struct {
			BaseModel   string `json:"base_model"`
			Versions    []string
			Description string
		}
	}
	decodeExactly(t, ts.get("/models").body, &list)
	if len(list.Models) != 1 || list.Models[0].BaseModel != "demo" || strings.Join(list.Models[0].Versions, " ") != "base v1.0 v1.1" || list.Models[0].Description != "facts" {
		t.Errorf("models %+v", list)
	}
	var live LiveStatus
	decodeExactly(t, ts.get("/status/live").body, &live)
	if live.Waiting != 3 || live.Running != 2 || live.EngineUp != 1 || live.Exchanges != 1 || live.Connections < 1 || len(live.LoadedModels) != 2 || len(live.Targets) != 9 {
		t.Errorf("live %+v", live)
	}
	if r := ts.get("/"); r.StatusCode != 200 || !strings.Contains(r.body, "/infer") || !strings.Contains(r.body, "/prometheus") {
		t.Errorf("index %q", r.body)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if r := ts.get(path); r.StatusCode != 200 || r.body != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
	for path := range ts.routes {
		if ts.routes[path].inference {
			continue
		}
		got, head := ts.get(path), ts.do("HEAD", path, "")
		if head.StatusCode != got.StatusCode || head.body != "" || head.Header.Get("X-Request-Id") == "" || head.Header.Get("Content-Type") != got.Header.Get("Content-Type") {
			t.Errorf("HEAD %s: %d %v", path, head.StatusCode, head.Header)
		}
	}
}

func TestMetricsPage(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.MetricsPath = "/metrics" })
	ts.postInfer(inferBody)
	r := ts.get("/metrics")
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
	if r := ts.do("GET", "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0"); !strings.HasSuffix(r.body, "# EOF\n") {
		t.Error("OpenMetrics was asked for and isn't there")
	}
	router := ts.get("/metrics/router")
	if _, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(router.body))); err != nil || !strings.Contains(router.body, "llm_requests_waiting 0") {
		t.Errorf("router page: %v, %q", err, router.body)
	}
	if r := ts.get("/prometheus"); r.StatusCode != 404 {
		t.Errorf("the default path is served beside METRICS_PATH: %d", r.StatusCode)
	}
	off := startTestServer(t, instantTable(), func(o *Options) { o.Prometheus = false })
	if r := off.get("/prometheus"); r.StatusCode != 404 {
		t.Errorf("PROMETHEUS_ENABLED=false: %d", r.StatusCode)
	}
	if r := off.get("/status"); !strings.Contains(r.body, `"prometheus_available":false`) {
		t.Errorf("status %s", r.body)
	}
}

func TestMetricsOnTheirOwnListener(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.SeparateMetrics = true })
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	s := ts.Server
	go func() { served <- s.ServeMetrics(ln) }()
	main := ts.url
	for path, want := range map[string]int{"/prometheus": 404, "/metrics/router": 404, "/status": 200} {
		if r := ts.get(path); r.StatusCode != want {
			t.Errorf("main listener %s: %d", path, r.StatusCode)
		}
	}
	ts.url = "http://" + ln.Addr().String()
	for path, want := range map[string]int{"/prometheus": 200, "/metrics/router": 200, "/livez": 200, "/status": 404, "/infer": 404} {
		if r := ts.get(path); r.StatusCode != want {
			t.Errorf("metrics listener %s: %d", path, r.StatusCode)
		}
	}
	ts.url = main
	ts.client.CloseIdleConnections()
	ts.shutdown()
	if err := receiveWithin(t, "end of ServeMetrics", served, waitLimit); err != nil {
		t.Error(err)
	}
}
