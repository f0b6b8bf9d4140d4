package server

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
)

// LiveStatus is the reply of /status/live.
type LiveStatus struct {
	Timestamp     float64 `json:"timestamp"` // Unix time in seconds
	Status        string  `json:"status"`    // as in /status
	Device        string  `json:"device"`
	KeyHeader     string  `json:"key_header"` // where a client puts its key
	EngineUp      int     `json:"engine_up"`  // 1 or 0
	Exchanges     int     `json:"exchanges"`  // HTTP requests in progress
	Connections   int     `json:"connections"`
	Waiting       int     `json:"waiting"`
	Running       int     `json:"running"`
	QueueCapacity int     `json:"queue_capacity"`
	CacheSize     int     `json:"cache_size"`
	Loaded        int     `json:"loaded"`
	Loading       int     `json:"loading"`
	Models        int     `json:"models"` // installed

	LoadedModels []LiveModel     `json:"loaded_models"`
	Targets      []Target        `json:"targets"`
	Figures      metrics.Figures `json:"figures"`
	// History has the points later than the query's since, Unix time in seconds; none without it.
	History []metrics.HistoryPoint `json:"history,omitempty"`
}

// LiveModel is an entry of the engine's cache.
type LiveModel struct {
	Model   string `json:"base_model"`
	Version string `json:"version"`
	Loading bool   `json:"loading"`
	Default bool   `json:"default"`
}

// Target is a figure with its target value.
type Target struct {
	Name   string         `json:"name"`
	Title  string         `json:"title"`
	Unit   string         `json:"unit"` // seconds, ratio, per_second
	Value  metrics.Number `json:"value"`
	Target float64        `json:"target"`
	Above  bool           `json:"above"` // the value should be above the target; otherwise below
	State  string         `json:"state"` // met, missed, idle (too few requests to tell)
}

// States of a Target.
const (
	targetMet    = "met"
	targetMissed = "missed"
	targetIdle   = "idle"
)

// statusLive serves the figures that the live page polls.
func (s *Server) statusLive(x *exchange) {
	since, given, problem := parseSince(x.ctx.QueryArgs())
	if problem != nil {
		x.replyError(problem)
		return
	}
	st := s.snapshot()
	reply := LiveStatus{
		Timestamp: float64(time.Now().UnixMilli()) / 1e3, Status: string(serviceStatus(&st)), Device: deviceName(&st), KeyHeader: s.opts.KeyHeader,
		Exchanges: int(s.openExchanges.Load()), Connections: s.connections(), Waiting: st.Waiting, Running: st.Running,
		QueueCapacity: st.QueueCapacity, CacheSize: st.CacheSize, Loaded: len(st.Loaded), Loading: len(st.Loading), Models: len(st.Models),
		LoadedModels: liveModels(&st), Figures: s.opts.Live.Figures(),
	}
	if st.EngineUp {
		reply.EngineUp = 1
	}
	reply.Targets = targets(&reply.Figures, st.Waiting > 0)
	if given {
		reply.History = s.opts.Live.Since(since)
	}
	body, err := json.Marshal(&reply)
	if err != nil {
		s.log.Error("render live figures", "error", err)
		x.replyError(api.NewError(api.TypeInternal, "the figures can't be shown"))
		return
	}
	x.ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	x.reply(body)
}

// parseSince reads the query's since, and reports whether it is there.
func parseSince(query *fasthttp.Args) (time.Time, bool, *api.Error) {
	if !query.Has("since") {
		return time.Time{}, false, nil
	}
	seconds, err := query.GetUfloat("since")
	if err != nil || !(seconds < 1e11) {
		return time.Time{}, false, api.Invalid("since", "since must be a Unix time in seconds")
	}
	return time.UnixMilli(int64(seconds * 1e3)), true, nil
}

func liveModels(st *inflight.Status) []LiveModel {
	list := make([]LiveModel, 0, len(st.Loaded))
	for _, l := range st.Loaded {
		list = append(list, LiveModel{
			Model: l.Model, Version: l.Version, Loading: l.Loading, Default: l.Model == st.DefaultModel && l.Version == st.DefaultVersion,
		})
	}
	return list
}

// targets compares the figures with the documented targets. A rate shows demand as much as performance, so a low rate
// is only missed while requests wait.
func targets(f *metrics.Figures, waiting bool) []Target {
	list := []Target{
		{Name: "response_mean", Title: "Mean response", Unit: "seconds", Value: f.Response.Mean, Target: 0.5},
		{Name: "response_p95", Title: "p95 response", Unit: "seconds", Value: f.Response.P95, Target: 1},
		{Name: "response_p99", Title: "p99 response", Unit: "seconds", Value: f.Response.P99, Target: 2},
		{Name: "requests", Title: "Requests", Unit: "per_second", Value: f.RequestRate, Target: 10, Above: true},
		{Name: "tokens", Title: "Tokens", Unit: "per_second", Value: f.TokenRate, Target: 100, Above: true},
		{Name: "success", Title: "Success", Unit: "ratio", Value: f.SuccessRatio, Target: 0.99, Above: true},
		{Name: "errors", Title: "Errors", Unit: "ratio", Value: f.ErrorRatio, Target: 0.01},
		{Name: "memory", Title: "Memory", Unit: "ratio", Value: f.MemoryRatio, Target: 0.8},
		{Name: "cache_hits", Title: "Cache hits", Unit: "ratio", Value: f.CacheHitRatio, Target: 0.9, Above: true},
	}
	for i := range list {
		list[i].State = list[i].targetState(waiting)
	}
	return list
}

func (t *Target) targetState(waiting bool) string {
	value := float64(t.Value)
	switch {
	case !t.Value.Known():
		return targetIdle
	case t.Above && value > t.Target, !t.Above && value < t.Target:
		return targetMet
	case t.Unit == "per_second" && !waiting:
		return targetIdle
	}
	return targetMissed
}

// String is the target value as text, such as "< 0.5 s".
func (t Target) String() string {
	sign := "<"
	if t.Above {
		sign = ">"
	}
	switch t.Unit {
	case "seconds":
		return fmt.Sprintf("%s %g s", sign, t.Target)
	case "ratio":
		return fmt.Sprintf("%s %g %%", sign, 100*t.Target)
	}
	return fmt.Sprintf("%s %g /s", sign, t.Target)
}
