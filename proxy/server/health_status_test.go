package server

import (
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

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
	table := instantTable()
	ts := startTestServer(t, table, func(o *Options) { o.EngineWait = 10 * time.Second })
	table.set(func(s *inflight.Status) {
		s.DefaultProblem, s.Models[0].Versions[1].Problem = "cut off", "no \"tensors\""
	})
	if r := ts.get("/models"); !strings.HasSuffix(r.body, `"description":"facts","problems":{"v1.0":"no \"tensors\""}}]}`) {
		t.Errorf("/models: %s", r.body)
	}
	if r := ts.get("/readyz"); r.StatusCode != 503 || !strings.Contains(r.body, "cut off") {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	table.set(func(s *inflight.Status) { s.CrashLoop = true })
	if r := ts.get("/readyz"); r.StatusCode != 503 || !strings.Contains(r.body, `"reason":"the engine stops`) {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := ts.get("/health"); r.StatusCode != 200 {
		t.Errorf("/health: %d", r.StatusCode)
	}
}
