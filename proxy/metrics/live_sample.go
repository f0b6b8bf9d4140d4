package metrics

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"tandem/schema/catalogue"
)

// liveSample holds what the live figures need of the registry at one moment, summed over models.
type liveSample struct {
	at         time.Time
	response   histogramBuckets
	firstToken histogramBuckets
	interToken histogramBuckets
	phases     map[string]histogramBuckets
	status     map[string]float64 // requests for inference
	tokens     float64
	hits       float64
	misses     float64
	restarts   map[string]float64

	memoryRatio float64 // NaN: no device reports it
	memory      []ModelMemory
	waiting     float64
	running     float64
	kvUsage     float64
	engineUp    float64
}

// liveSample reads the registry, and the engine's device memory unless custom metrics are hidden.
func (m *Metrics) liveSample() liveSample {
	s := m.registrySample()
	if !m.opts.HideCustom && s.engineUp > 0 {
		// never fails; without an engine it is empty. It may wait for a lock whose owner removes series
		engine, _ := m.engine.Gather()
		s.memoryRatio = memoryRatio(engine)
	}
	slices.SortFunc(s.memory, func(a, b ModelMemory) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), strings.Compare(a.Version, b.Version))
	})
	return s
}

// registrySample sums what the registry counts and what removed series had counted.
func (m *Metrics) registrySample() liveSample {
	m.removal.RLock()
	defer m.removal.RUnlock()
	s := m.removedTotals.clone()
	families, err := m.registry.Gather()
	if err != nil {
		m.opts.Log.Debug("live figures are incomplete", "error", err)
	}
	for _, f := range families {
		s.add(f)
	}
	return s
}

func newLiveSample() liveSample {
	return liveSample{phases: make(map[string]histogramBuckets), status: make(map[string]float64), restarts: make(map[string]float64), memoryRatio: math.NaN()}
}

// clone returns a copy that add may change.
func (s *liveSample) clone() liveSample {
	c := *s
	c.response, c.firstToken, c.interToken = s.response.clone(), s.firstToken.clone(), s.interToken.clone()
	c.phases, c.status, c.restarts = make(map[string]histogramBuckets), maps.Clone(s.status), maps.Clone(s.restarts)
	for name, b := range s.phases {
		c.phases[name] = b.clone()
	}
	c.memory = slices.Clone(s.memory)
	return c
}

// add adds a family, if the figures need it.
func (s *liveSample) add(f *dto.MetricFamily) {
	for _, m := range f.Metric {
		switch f.GetName() {
		case "api_response_time_seconds":
			if IsInference(labelValue(m, "endpoint")) && !isSpecialModel(labelValue(m, "model")) {
				s.response.add(m.Histogram)
			}
		case "llm_time_to_first_token_seconds":
			s.firstToken.add(m.Histogram)
		case "llm_inter_token_latency_seconds":
			s.interToken.add(m.Histogram)
		case "llm_request_phase_seconds":
			phase := s.phases[labelValue(m, "phase")]
			phase.add(m.Histogram)
			s.phases[labelValue(m, "phase")] = phase
		case "api_requests_total":
			if IsInference(labelValue(m, "endpoint")) {
				s.status[labelValue(m, "status")] += m.Counter.GetValue()
			}
		case "tokens_generated_total":
			s.tokens += m.Counter.GetValue()
		case "model_cache_hits_total":
			s.hits += m.Counter.GetValue()
		case "model_cache_misses_total":
			s.misses += m.Counter.GetValue()
		case "llm_engine_restarts_total":
			s.restarts[labelValue(m, "reason")] += m.Counter.GetValue()
		case "model_memory_usage_bytes":
			s.memory = append(s.memory, ModelMemory{labelValue(m, "model"), labelValue(m, "version"), m.Gauge.GetValue()})
		case "llm_requests_waiting":
			s.waiting = m.Gauge.GetValue()
		case "llm_requests_running":
			s.running = m.Gauge.GetValue()
		case "llm_kv_cache_usage_ratio":
			s.kvUsage = m.Gauge.GetValue()
		case "llm_engine_up":
			s.engineUp = m.Gauge.GetValue()
		}
	}
}

func labelValue(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func isSpecialModel(model string) bool { return model == catalogue.None || model == catalogue.Unknown }

// memoryRatio is that of the fullest device.
func memoryRatio(families []*dto.MetricFamily) float64 {
	used, total := make(map[string]float64), make(map[string]float64)
	for _, f := range families {
		into := used
		switch f.GetName() {
		case "llm_device_memory_used_bytes":
		case "llm_device_memory_total_bytes":
			into = total
		default:
			continue
		}
		for _, m := range f.Metric {
			into[labelValue(m, "device")] = m.Gauge.GetValue()
		}
	}
	ratio := math.NaN()
	for device, all := range total {
		if in, ok := used[device]; ok && all > 0 && !(in/all <= ratio) {
			ratio = in / all
		}
	}
	return ratio
}

// ratio is part of all; it is missing when all is 0.
func ratio(part, all float64) Number { return Number(part / all) }

// figures computes what happened between two samples.
func figures(from, to *liveSample) Figures {
	elapsed := to.at.Sub(from.at).Seconds()
	success, failed := to.status["success"]-from.status["success"], to.status["error"]-from.status["error"]
	hits, misses := to.hits-from.hits, to.misses-from.misses
	f := Figures{
		WindowSeconds: Number(elapsed),
		Response:      to.response.minus(from.response).summary(),
		FirstToken:    to.firstToken.minus(from.firstToken).summary(),
		InterToken:    to.interToken.minus(from.interToken).summary(),
		Phases:        phases(from, to),
		RequestRate:   ratio(success, elapsed),
		TokenRate:     ratio(to.tokens-from.tokens, elapsed),
		SuccessRatio:  ratio(success, success+failed),
		ErrorRatio:    ratio(failed, success+failed),
		CacheHitRatio: ratio(hits, hits+misses),
		MemoryRatio:   Number(to.memoryRatio),
		ModelMemory:   slices.Clone(to.memory),
	}
	f.RestartReasons = make(map[string]float64)
	for reason, n := range to.restarts {
		if n > 0 {
			f.EngineRestarts += n
			f.RestartReasons[reason] = n
		}
	}
	return f
}

// phases divides the time of each phase by the number of all requests, also of a phase that few requests go through.
// Every request has a queue phase.
func phases(from, to *liveSample) Phases {
	requests := to.phases["queue"].count - from.phases["queue"].count
	mean := func(name string) Number {
		return ratio(to.phases[name].sum-from.phases[name].sum, requests)
	}
	return Phases{Queue: mean("queue"), Prefill: mean("prefill"), Decode: mean("decode"), Restart: mean("restart")}
}

func historyPoint(from, to *liveSample) HistoryPoint {
	f := figures(from, to)
	return HistoryPoint{
		Time: unixSeconds(to.at), Mean: f.Response.Mean, P95: f.Response.P95, P99: f.Response.P99,
		RequestRate: f.RequestRate, TokenRate: f.TokenRate, ErrorRatio: f.ErrorRatio,
		Queue: f.Phases.Queue, Prefill: f.Phases.Prefill, Decode: f.Phases.Decode, Restart: f.Phases.Restart,
		FirstToken50: f.FirstToken.P50, FirstToken95: f.FirstToken.P95, InterToken50: f.InterToken.P50, InterToken95: f.InterToken.P95,
		Waiting: Number(to.waiting), Running: Number(to.running), MemoryRatio: f.MemoryRatio, KVUsage: Number(to.kvUsage), EngineUp: Number(to.engineUp),
	}
}
