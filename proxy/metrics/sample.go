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

// sample is what the figures need of the registry at one moment, summed over models.
type sample struct {
	at         time.Time
	response   buckets
	firstToken buckets
	interToken buckets
	phases     map[string]buckets
	status     map[string]float64 // requests to /infer
	tokens     float64
	hits       float64
	misses     float64
	restarts   map[string]float64

	memoryRatio float64 // NaN: no device says
	memory      []ModelMemory
	waiting     float64
	running     float64
	kvUsage     float64
	engineUp    float64
}

// buckets are a histogram: cumulative counts at edges, the last of which may be infinite.
type buckets struct {
	edges  []float64
	counts []float64
	count  float64
	sum    float64
}

// sample reads the registry, and the engine's device memory unless custom metrics are hidden.
func (m *Metrics) sample() sample {
	s := m.counted()
	if !m.o.HideCustom && s.engineUp > 0 {
		engine, _ := m.join.Gather() // never fails; without an engine it is empty. It may wait for a lock whose owner removes series
		s.memoryRatio = memoryRatio(engine)
	}
	slices.SortFunc(s.memory, func(a, b ModelMemory) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), strings.Compare(a.Version, b.Version))
	})
	return s
}

// counted is what the registry holds and what removed series held.
func (m *Metrics) counted() sample {
	m.sampling.RLock()
	defer m.sampling.RUnlock()
	s := m.retired.clone()
	families, err := m.registry.Gather()
	if err != nil {
		m.o.Log.Debug("live figures are incomplete", "error", err)
	}
	for _, f := range families {
		s.add(f)
	}
	return s
}

func newSample() sample {
	return sample{phases: make(map[string]buckets), status: make(map[string]float64), restarts: make(map[string]float64), memoryRatio: math.NaN()}
}

// clone gives a sample that add may change.
func (s *sample) clone() sample {
	c := *s
	c.response, c.firstToken, c.interToken = s.response.clone(), s.firstToken.clone(), s.interToken.clone()
	c.phases, c.status, c.restarts = make(map[string]buckets), maps.Clone(s.status), maps.Clone(s.restarts)
	for name, b := range s.phases {
		c.phases[name] = b.clone()
	}
	c.memory = slices.Clone(s.memory)
	return c
}

// add takes a family that figures are made of.
func (s *sample) add(f *dto.MetricFamily) {
	for _, m := range f.Metric {
		switch f.GetName() {
		case "api_response_time_seconds":
			if label(m, "endpoint") == inferRoute && !special(label(m, "model")) {
				s.response.add(m.Histogram)
			}
		case "llm_time_to_first_token_seconds":
			s.firstToken.add(m.Histogram)
		case "llm_inter_token_latency_seconds":
			s.interToken.add(m.Histogram)
		case "llm_request_phase_seconds":
			phase := s.phases[label(m, "phase")]
			phase.add(m.Histogram)
			s.phases[label(m, "phase")] = phase
		case "api_requests_total":
			if label(m, "endpoint") == inferRoute {
				s.status[label(m, "status")] += m.Counter.GetValue()
			}
		case "tokens_generated_total":
			s.tokens += m.Counter.GetValue()
		case "model_cache_hits_total":
			s.hits += m.Counter.GetValue()
		case "model_cache_misses_total":
			s.misses += m.Counter.GetValue()
		case "llm_engine_restarts_total":
			s.restarts[label(m, "reason")] += m.Counter.GetValue()
		case "model_memory_usage_bytes":
			s.memory = append(s.memory, ModelMemory{label(m, "model"), label(m, "version"), m.Gauge.GetValue()})
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

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func special(model string) bool { return model == catalogue.None || model == catalogue.Unknown }

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
			into[label(m, "device")] = m.Gauge.GetValue()
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

func (b *buckets) add(h *dto.Histogram) {
	if b.edges == nil {
		b.edges = make([]float64, len(h.Bucket))
		b.counts = make([]float64, len(h.Bucket))
		for i, bucket := range h.Bucket {
			b.edges[i] = bucket.GetUpperBound()
		}
	}
	for i, bucket := range h.Bucket {
		b.counts[i] += float64(bucket.GetCumulativeCount())
	}
	b.count += float64(h.GetSampleCount())
	b.sum += h.GetSampleSum()
}

func (b buckets) clone() buckets {
	b.counts = slices.Clone(b.counts)
	return b
}

// minus is what came since old, which has the same edges or nothing yet.
func (b buckets) minus(old buckets) buckets {
	d := buckets{edges: b.edges, counts: slices.Clone(b.counts), count: b.count - old.count, sum: b.sum - old.sum}
	for i := range old.counts {
		d.counts[i] -= old.counts[i]
	}
	return d
}

func (b buckets) mean() Number { return Number(b.sum / b.count) }

// quantile interpolates within a bucket, as histogram_quantile of Prometheus does.
func (b buckets) quantile(q float64) Number {
	if b.count <= 0 {
		return Missing()
	}
	rank := q * b.count
	low, below := 0.0, 0.0
	for i, edge := range b.edges {
		if math.IsInf(edge, 1) {
			break
		}
		if in := b.counts[i] - below; b.counts[i] >= rank && in > 0 {
			return Number(low + (edge-low)*(rank-below)/in)
		}
		low, below = edge, b.counts[i]
	}
	return Number(low) // above the last edge
}

func (b buckets) spread() Spread {
	return Spread{Mean: b.mean(), P50: b.quantile(0.5), P95: b.quantile(0.95), P99: b.quantile(0.99)}
}

// ratio of part to all is missing when there is nothing.
func ratio(part, all float64) Number { return Number(part / all) }

// figures are about what happened between two samples.
func figures(from, to *sample) Figures {
	elapsed := to.at.Sub(from.at).Seconds()
	success, failed := to.status["success"]-from.status["success"], to.status["error"]-from.status["error"]
	hits, misses := to.hits-from.hits, to.misses-from.misses
	f := Figures{
		WindowSeconds: Number(elapsed),
		Response:      to.response.minus(from.response).spread(),
		FirstToken:    to.firstToken.minus(from.firstToken).spread(),
		InterToken:    to.interToken.minus(from.interToken).spread(),
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

// phases are parts of a mean request, so what few requests go through counts for all of them. Every request has a queue phase.
func phases(from, to *sample) Phases {
	requests := to.phases["queue"].count - from.phases["queue"].count
	mean := func(name string) Number {
		return ratio(to.phases[name].sum-from.phases[name].sum, requests)
	}
	return Phases{Queue: mean("queue"), Prefill: mean("prefill"), Decode: mean("decode"), Restart: mean("restart")}
}

func point(from, to *sample) Point {
	f := figures(from, to)
	return Point{
		Time: unixSeconds(to.at), Mean: f.Response.Mean, P95: f.Response.P95, P99: f.Response.P99,
		RequestRate: f.RequestRate, TokenRate: f.TokenRate, ErrorRatio: f.ErrorRatio,
		Queue: f.Phases.Queue, Prefill: f.Phases.Prefill, Decode: f.Phases.Decode, Restart: f.Phases.Restart,
		FirstToken50: f.FirstToken.P50, FirstToken95: f.FirstToken.P95, InterToken50: f.InterToken.P50, InterToken95: f.InterToken.P95,
		Waiting: Number(to.waiting), Running: Number(to.running), MemoryRatio: f.MemoryRatio, KVUsage: Number(to.kvUsage), EngineUp: Number(to.engineUp),
	}
}
