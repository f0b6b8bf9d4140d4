package server

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
)

func (s *Server) health(x *exchange) {
	st := s.snapshot()
	x.reply(api.AppendHealth(nil, api.Health{Status: healthStatus(&st), Timestamp: time.Now()}))
}

func (s *Server) livez(x *exchange) { x.reply(api.AppendProbe(nil, api.Probe{OK: true})) }

func (s *Server) readyz(x *exchange) {
	st := s.snapshot()
	reason := notReady(&st, s.o.EngineWait)
	status := fasthttp.StatusOK
	if reason != "" {
		status = fasthttp.StatusServiceUnavailable
	}
	x.replyStatus(status, api.AppendProbe(nil, api.Probe{OK: reason == "", Reason: reason}))
}

func (s *Server) status(x *exchange) {
	st := s.snapshot()
	reply := api.Status{Status: serviceStatus(&st), Timestamp: time.Now(), Prometheus: s.o.Prometheus, Device: deviceName(&st)}
	for _, l := range st.Loaded {
		reply.Cached = append(reply.Cached, api.CachedModel{Model: l.Model, Version: l.Version, Loaded: !l.Loading})
	}
	for _, d := range st.Devices {
		reply.Devices = append(reply.Devices, api.Device{Name: d.Name, Backend: d.Backend, MemoryTotalBytes: d.MemoryTotal, MemoryFreeBytes: d.MemoryFree})
	}
	x.reply(api.AppendStatus(nil, &reply))
}

func (s *Server) models(x *exchange) {
	st := s.snapshot()
	list := make([]api.Model, 0, len(st.Models))
	for _, m := range st.Models {
		listed := api.Model{Name: m.Name, Description: m.Description}
		for _, v := range m.Versions {
			listed.Versions = append(listed.Versions, v.Name)
			if v.Problem != "" {
				listed.Problems = append(listed.Problems, api.Problem{Version: v.Name, Text: v.Problem})
			}
		}
		list = append(list, listed)
	}
	x.reply(api.AppendModels(nil, list))
}

func (s *Server) connections() int {
	n := 0
	for _, l := range s.allListeners() {
		n += l.count()
	}
	return n
}

func (s *Server) routerPage(x *exchange) {
	page := s.pages.Get().(*bytes.Buffer)
	page.Reset()
	s.o.Metrics.WriteRouterPage(page)
	x.ctx.SetContentType(metrics.RouterContentType)
	x.ctx.Response.SetBody(page.Bytes())
	s.pages.Put(page)
}

// table lists the routes, for people without a browser.
func (s *Server) table(x *exchange) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n\n", api.ServiceName, api.ServiceVersion)
	paths := make([]string, 0, len(s.routes))
	for path, r := range s.routes {
		if !s.o.MetricsElsewhere || !s.isMetrics(r.path) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		r := s.routes[path]
		fmt.Fprintf(&b, "%-9s  %-16s  %s\n", r.allow(), path, r.about)
	}
	x.ctx.SetContentType("text/plain; charset=utf-8")
	x.ctx.Response.SetBodyString(b.String())
}

// snapshot is the table's status with our own drain in it.
func (s *Server) snapshot() inflight.Status {
	st := s.o.Requests.Status()
	st.Draining = st.Draining || s.draining.Load()
	return st
}

// healthStatus puts what matters most first.
func healthStatus(st *inflight.Status) api.HealthStatus {
	switch {
	case st.Draining:
		return api.HealthDraining
	case st.CrashLoop, st.EverReady && (!st.EngineUp || st.EngineAwayFor > 0), st.EngineUp && (st.DefaultMissing || st.DefaultProblem != ""):
		return api.HealthDegraded
	case !st.EverReady, !st.DefaultLoaded && len(st.Loading) > 0:
		return api.HealthLoading
	}
	return api.HealthOK
}

func serviceStatus(st *inflight.Status) api.ServiceStatus {
	if st.CrashLoop && !st.Draining {
		return api.ServiceUnhealthy
	}
	switch healthStatus(st) {
	case api.HealthDraining:
		return api.ServiceDraining
	case api.HealthDegraded:
		return api.ServiceDegraded
	case api.HealthLoading:
		return api.ServiceLoading
	}
	return api.ServiceHealthy
}

// notReady says why no traffic should come, or nothing. An engine that is away for a moment is a pause and no reason.
func notReady(st *inflight.Status, engineWait time.Duration) string {
	switch {
	case st.Draining:
		return "draining"
	case st.CrashLoop:
		return "the engine stops again and again"
	case st.EngineUp && st.DefaultMissing:
		return fmt.Sprintf("the default model %s is not installed (DEFAULT_MODEL)", st.DefaultModel)
	case st.EngineUp && st.DefaultProblem != "":
		return fmt.Sprintf("the default model %s version %s can't be loaded: %s", st.DefaultModel, st.DefaultVersion, st.DefaultProblem)
	case !st.EverReady && !st.EngineUp:
		return "no engine has connected yet"
	case !st.EverReady && len(st.Loading) > 0:
		return "loading " + strings.Join(st.Loading, ", ")
	case !st.EverReady:
		return fmt.Sprintf("the engine is not ready yet; the default model is %s", st.DefaultModel)
	case !st.EngineUp && st.EngineAwayFor >= engineWait:
		return fmt.Sprintf("the engine is away for %s", st.EngineAwayFor.Round(time.Second))
	case st.EngineAwayFor > 0 && st.EngineAwayFor >= engineWait:
		return fmt.Sprintf("the engine ends and takes nothing new, for %s by now", st.EngineAwayFor.Round(time.Second))
	}
	return ""
}

func deviceName(st *inflight.Status) string {
	if st.Device == "" {
		return "unknown"
	}
	return st.Device
}
