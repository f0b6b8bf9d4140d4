package metrics

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/schema/catalogue"
)

// ModelMetrics are the series of one (model, version) pair. Get it with Model, None or Unknown and keep it with the request.
type ModelMetrics struct {
	m              *Metrics
	model, version string
	special        bool // none, unknown: no model behind it

	tokens     prometheus.Counter
	hits       prometheus.Counter
	misses     prometheus.Counter
	computed   prometheus.Counter
	cached     prometheus.Counter
	failed     map[string]prometheus.Counter            // by error_type
	finished   map[string]prometheus.Counter            // by reason
	loadFailed map[string]prometheus.Counter            // by reason
	successes  map[string]prometheus.Counter            // by domain, of those configured
	verdicts   map[string]map[string]prometheus.Counter // by slo and result
	loaded     prometheus.Gauge

	held atomic.Int32 // requests in flight that count here

	mu      sync.Mutex // guards facts and the making of series
	facts   []string   // labels of the llm_model_info series; nil without one
	removed bool       // no series may be made any more

	once sync.Once // makes times
	times
}

// times are the histograms. They exist once the model was asked for or loaded, so that a long list of installed models doesn't
// multiply the page by their buckets.
type times struct {
	perToken   prometheus.Observer
	firstToken prometheus.Observer
	interToken prometheus.Observer
	perOutput  prometheus.Observer
	prompt     prometheus.Observer
	output     prometheus.Observer
	load       prometheus.Observer
	queue      prometheus.Observer
	prefill    prometheus.Observer
	decode     prometheus.Observer
	restart    prometheus.Observer
}

// Announce makes the series of an installed (model, version) pair, all counters at 0. Only announced pairs become labels; beyond
// catalogue.MaxPairs they share the pair other. Call it for every pair of the engine's catalogue, again and again if need be.
func (m *Metrics) Announce(model, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.gone, pair{model, version})
	known, ok := m.pairs.Load(pair{model, version})
	outside := ok && known == m.other && m.count < catalogue.MaxPairs && m.other.held.Load() == 0 // and there is room by now
	if ok && !outside || model == "" || version == "" {
		return
	}
	if m.count >= catalogue.MaxPairs {
		m.v.counter("llm_metric_label_overflow_total", "model").Inc()
		if m.other == nil {
			m.other = m.newModel(catalogue.Other, catalogue.Other)
		}
		m.pairs.Store(pair{model, version}, m.other)
		return
	}
	m.count++
	m.known.addPair(model, version)
	m.pairs.Store(pair{model, version}, m.newModel(model, version))
}

// Model gives the series of an announced pair, and those of unknown for any other.
func (m *Metrics) Model(model, version string) *ModelMetrics {
	p, ok := m.pairs.Load(pair{model, version})
	if !ok {
		return m.unkn
	}
	mm := p.(*ModelMetrics)
	mm.wake()
	return mm
}

// None gives the labels of an answer to which no model applies, Unknown those of a request for a model that isn't installed.
func (m *Metrics) None() *ModelMetrics { return m.none }

// Unknown gives the labels of a request for a model or version that isn't installed.
func (m *Metrics) Unknown() *ModelMetrics { return m.unkn }

func (m *Metrics) newSpecial(name string) *ModelMetrics {
	mm := m.newModel(name, name)
	mm.special = true
	return mm
}

// newModel creates every counter of the pair at 0: a counter that appears with 1 hides its first event from rate().
func (m *Metrics) newModel(model, version string) *ModelMetrics {
	v := &m.v
	mm := &ModelMetrics{m: m, model: model, version: version}
	mm.tokens = v.counter("tokens_generated_total", model, version)
	mm.hits = v.counter("model_cache_hits_total", model, version)
	mm.misses = v.counter("model_cache_misses_total", model, version)
	mm.computed = v.counter("llm_prompt_tokens_total", model, version, "compute")
	mm.cached = v.counter("llm_prompt_tokens_total", model, version, "cache")
	mm.failed = children(v, "failed_inferences_total", "error_type", model, version)
	mm.finished = children(v, "llm_request_finish_total", "reason", model, version)
	mm.loadFailed = children(v, "model_load_failures_total", "reason", model, version)
	children(v, "llm_model_evictions_total", "reason", model, version)
	mm.successes = make(map[string]prometheus.Counter)
	for _, d := range append([]string{catalogue.General}, m.o.Domains...) {
		mm.successes[d] = v.counter("successful_inferences_total", model, version, d)
	}
	mm.verdicts = make(map[string]map[string]prometheus.Counter)
	for _, slo := range values("llm_slo_requests_total", "slo") {
		mm.verdicts[slo] = children(v, "llm_slo_requests_total", "result", model, version, slo)
	}
	for _, status := range values("api_requests_total", "status") {
		v.counter("api_requests_total", inferRoute, status, model, version)
	}
	if model != catalogue.None && model != catalogue.Unknown {
		mm.loaded = v.gauge("llm_model_loaded", model, version)
	}
	return mm
}

// children makes every child of a family whose last label is a closed set.
func children(v *vectors, family, label string, before ...string) map[string]prometheus.Counter {
	set := make(map[string]prometheus.Counter)
	for _, value := range values(family, label) {
		set[value] = v.counter(family, append(before[:len(before):len(before)], value)...)
	}
	return set
}

// wake makes the histograms.
func (mm *ModelMetrics) wake() {
	mm.once.Do(func() {
		h := mm.histogram
		mm.times = times{
			perToken:   h("token_generation_time_seconds"),
			firstToken: h("llm_time_to_first_token_seconds"),
			interToken: h("llm_inter_token_latency_seconds"),
			perOutput:  h("llm_time_per_output_token_seconds"),
			prompt:     h("llm_request_prompt_tokens"),
			output:     h("llm_request_output_tokens"),
			load:       h("model_load_time_seconds"),
			queue:      h("llm_request_phase_seconds", "queue"),
			prefill:    h("llm_request_phase_seconds", "prefill"),
			decode:     h("llm_request_phase_seconds", "decode"),
			restart:    h("llm_request_phase_seconds", "restart"),
		}
		mm.responseTime(inferRoute)
	})
}

// Labels gives the values of the labels model and version.
func (mm *ModelMetrics) Labels() (model, version string) { return mm.model, mm.version }

// Token counts one token that came from the engine for the first time, with the engine's own time since the token before it, for the
// first one since its prefill began (F15).
func (mm *ModelMetrics) Token(took time.Duration) {
	mm.wake()
	mm.perToken.Observe(took.Seconds())
	mm.tokens.Inc()
}

// FirstToken records the time from request received to first token written to the client. traceID is that of a sampled request.
func (mm *ModelMetrics) FirstToken(after time.Duration, traceID string) {
	mm.wake()
	observeTraced(mm.firstToken, after, traceID)
}

// InterToken records the gap between two tokens written to the client.
func (mm *ModelMetrics) InterToken(gap time.Duration) {
	mm.wake()
	mm.interToken.Observe(gap.Seconds())
}

// CacheHit counts a request whose model was loaded when it was admitted, CacheMiss one whose model was not. Replays count neither.
func (mm *ModelMetrics) CacheHit() { mm.hits.Inc() }

// CacheMiss counts a request whose model was not loaded when it was admitted, also when another request's load was joined.
func (mm *ModelMetrics) CacheMiss() { mm.misses.Inc() }

// LoadTime records a load that succeeded.
func (mm *ModelMetrics) LoadTime(took time.Duration) {
	mm.wake()
	mm.load.Observe(took.Seconds())
}

// LoadFailed counts a load that failed, by a reason of model_load_failures_total.
func (mm *ModelMetrics) LoadFailed(reason string) { pick(mm.loadFailed, reason, catalogue.Other).Inc() }

// Evicted counts the removal from the cache, by a reason of llm_model_evictions_total.
func (mm *ModelMetrics) Evicted(reason string) {
	mm.counter("llm_model_evictions_total", reason).Inc()
}

// Facts of a loaded model.
type Facts struct {
	Quantization  string
	Architecture  string
	ContextTokens int
}

// SetLoaded says that the pair is in the cache, what evicting it would free, and what it is. Shared weights are said for the pair
// (model, "base") with SetMemory.
func (mm *ModelMetrics) SetLoaded(bytes int64, f Facts) {
	if mm.special {
		return
	}
	mm.wake()
	mm.mu.Lock()
	defer mm.mu.Unlock()
	mm.loaded.Set(1)
	mm.setMemory(bytes)
	mm.setFacts([]string{mm.model, mm.version, f.Quantization, strconv.Itoa(f.ContextTokens), f.Architecture})
}

// SetMemory says how many bytes evicting the pair would free; 0 or less ends the series.
func (mm *ModelMetrics) SetMemory(bytes int64) {
	if mm.special {
		return
	}
	mm.mu.Lock()
	defer mm.mu.Unlock()
	mm.setMemory(bytes)
}

// SetUnloaded says that the pair left the cache. Its counters and histograms stay, until Sweep finds that it isn't installed any more.
func (mm *ModelMetrics) SetUnloaded() {
	if mm.special {
		return
	}
	mm.mu.Lock()
	defer mm.mu.Unlock()
	mm.loaded.Set(0)
	mm.setMemory(0)
	mm.setFacts(nil)
}

// setMemory and setFacts need mm.mu.
func (mm *ModelMetrics) setMemory(bytes int64) {
	series := mm.m.v.gauges["model_memory_usage_bytes"]
	if mm.removed {
		return
	}
	if bytes <= 0 {
		series.DeleteLabelValues(mm.model, mm.version)
		return
	}
	series.WithLabelValues(mm.model, mm.version).Set(float64(bytes))
}

func (mm *ModelMetrics) setFacts(labels []string) {
	series := mm.m.v.gauges["llm_model_info"]
	if mm.removed {
		return
	}
	if mm.facts != nil && !slices.Equal(mm.facts, labels) {
		series.DeleteLabelValues(mm.facts...)
	}
	if labels != nil {
		series.WithLabelValues(labels...).Set(1)
	}
	mm.facts = labels
}
