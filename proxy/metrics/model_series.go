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

// ModelMetrics are the series of one (model, version) pair. A request gets them once with Model, None or Unknown, and
// keeps them.
type ModelMetrics struct {
	m              *Metrics
	model, version string
	special        bool // none, unknown: there is no model with this name

	tokens     prometheus.Counter
	hits       prometheus.Counter
	misses     prometheus.Counter
	computed   prometheus.Counter
	cached     prometheus.Counter
	failed     map[string]prometheus.Counter            // by error_type
	finished   map[string]prometheus.Counter            // by reason
	loadFailed map[string]prometheus.Counter            // by reason
	successes  map[string]prometheus.Counter            // by domain, of the configured domains
	sloResults map[string]map[string]prometheus.Counter // by slo and result
	loaded     prometheus.Gauge

	inUse atomic.Int32 // requests in flight that count here

	mu      sync.Mutex // guards facts and the creation of series
	facts   []string   // labels of the llm_model_info series; nil without one
	removed bool       // no series may be created any more

	histogramsOnce sync.Once // makes modelHistograms
	modelHistograms
}

// modelHistograms exist only once the model was requested or loaded, so that a long list of installed models doesn't
// multiply the size of the page by their buckets.
type modelHistograms struct {
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

// RegisterModel makes the series of an installed (model, version) pair, all counters at 0. Only registered pairs become
// labels; those beyond catalogue.MaxPairs share the pair other. It is called for every pair of the engine's list of
// models, and may be called again.
func (m *Metrics) RegisterModel(model, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.uninstalledSince, modelVersion{model, version})
	known, ok := m.models.Load(modelVersion{model, version})
	// and there is room by now
	outside := ok && known == m.overflowModel && m.modelCount < catalogue.MaxPairs && m.overflowModel.inUse.Load() == 0
	if ok && !outside || model == "" || version == "" {
		return
	}
	if m.modelCount >= catalogue.MaxPairs {
		m.vectors.counter("llm_metric_label_overflow_total", "model").Inc()
		if m.overflowModel == nil {
			m.overflowModel = m.newModelMetrics(catalogue.Other, catalogue.Other)
		}
		m.models.Store(modelVersion{model, version}, m.overflowModel)
		return
	}
	m.modelCount++
	m.allowed.addPair(model, version)
	m.models.Store(modelVersion{model, version}, m.newModelMetrics(model, version))
}

// Model returns the series of a registered pair, and those of unknown for any other.
func (m *Metrics) Model(model, version string) *ModelMetrics {
	p, ok := m.models.Load(modelVersion{model, version})
	if !ok {
		return m.unknownModel
	}
	mm := p.(*ModelMetrics)
	mm.makeHistograms()
	return mm
}

// None returns the series of requests to which no model applies.
func (m *Metrics) None() *ModelMetrics { return m.noModel }

// Unknown returns the series of a request for a model or version that isn't installed.
func (m *Metrics) Unknown() *ModelMetrics { return m.unknownModel }

func (m *Metrics) newSpecialMetrics(name string) *ModelMetrics {
	mm := m.newModelMetrics(name, name)
	mm.special = true
	return mm
}

// newModelMetrics creates every counter of the pair at 0: a counter that appears with 1 hides its first event from
// rate().
func (m *Metrics) newModelMetrics(model, version string) *ModelMetrics {
	v := &m.vectors
	mm := &ModelMetrics{m: m, model: model, version: version}
	mm.tokens = v.counter("tokens_generated_total", model, version)
	mm.hits = v.counter("model_cache_hits_total", model, version)
	mm.misses = v.counter("model_cache_misses_total", model, version)
	mm.computed = v.counter("llm_prompt_tokens_total", model, version, "compute")
	mm.cached = v.counter("llm_prompt_tokens_total", model, version, "cache")
	mm.failed = countersByLabel(v, "failed_inferences_total", "error_type", model, version)
	mm.finished = countersByLabel(v, "llm_request_finish_total", "reason", model, version)
	mm.loadFailed = countersByLabel(v, "model_load_failures_total", "reason", model, version)
	countersByLabel(v, "llm_model_evictions_total", "reason", model, version)
	mm.successes = make(map[string]prometheus.Counter)
	for _, d := range append([]string{catalogue.General}, m.opts.Domains...) {
		mm.successes[d] = v.counter("successful_inferences_total", model, version, d)
	}
	mm.sloResults = make(map[string]map[string]prometheus.Counter)
	for _, slo := range labelValues("llm_slo_requests_total", "slo") {
		mm.sloResults[slo] = countersByLabel(v, "llm_slo_requests_total", "result", model, version, slo)
	}
	for _, route := range catalogue.InferenceEndpoints {
		for _, status := range labelValues("api_requests_total", "status") {
			v.counter("api_requests_total", route, status, model, version)
		}
	}
	if model != catalogue.None && model != catalogue.Unknown {
		mm.loaded = v.gauge("llm_model_loaded", model, version)
	}
	return mm
}

// countersByLabel creates every counter of a family whose last label, called label, is a closed set.
func countersByLabel(v *vectors, family, label string, before ...string) map[string]prometheus.Counter {
	counters := make(map[string]prometheus.Counter)
	for _, value := range labelValues(family, label) {
		counters[value] = v.counter(family, append(before[:len(before):len(before)], value)...)
	}
	return counters
}

// makeHistograms creates the histograms, once.
func (mm *ModelMetrics) makeHistograms() {
	mm.histogramsOnce.Do(func() {
		h := mm.histogram
		mm.modelHistograms = modelHistograms{
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
		// Those of other routes begin with a request there: a model is seldom asked at all of them.
		mm.responseTime("/infer")
	})
}

// Labels returns the values of the labels model and version.
func (mm *ModelMetrics) Labels() (model, version string) { return mm.model, mm.version }

// Token counts one token that the engine delivered for the first time, with the engine's own time since the token
// before it; for the first token, since its prefill began (F15).
func (mm *ModelMetrics) Token(took time.Duration) {
	mm.makeHistograms()
	mm.perToken.Observe(took.Seconds())
	mm.tokens.Inc()
}

// FirstToken records the time from request received to first token written to the client. traceID is that of a sampled
// request.
func (mm *ModelMetrics) FirstToken(after time.Duration, traceID string) {
	mm.makeHistograms()
	observeWithExemplar(mm.firstToken, after, traceID)
}

// InterToken records the gap between two tokens written to the client.
func (mm *ModelMetrics) InterToken(gap time.Duration) {
	mm.makeHistograms()
	mm.interToken.Observe(gap.Seconds())
}

// CacheHit counts a request whose model was loaded when it was admitted. A replay counts as neither hit nor miss.
func (mm *ModelMetrics) CacheHit() { mm.hits.Inc() }

// CacheMiss counts a request whose model was not loaded when it was admitted, also if it joined the load of another
// request.
func (mm *ModelMetrics) CacheMiss() { mm.misses.Inc() }

// LoadTime records a load that succeeded.
func (mm *ModelMetrics) LoadTime(took time.Duration) {
	mm.makeHistograms()
	mm.load.Observe(took.Seconds())
}

// LoadFailed counts a load that failed, by a reason of model_load_failures_total.
func (mm *ModelMetrics) LoadFailed(reason string) {
	counterOr(mm.loadFailed, reason, catalogue.Other).Inc()
}

// Evicted counts the removal from the cache, by a reason of llm_model_evictions_total.
func (mm *ModelMetrics) Evicted(reason string) {
	mm.counter("llm_model_evictions_total", reason).Inc()
}

// Facts are the properties of a loaded model, for llm_model_info.
type Facts struct {
	Quantization  string
	Architecture  string
	ContextTokens int
}

// SetLoaded records that the pair is in the cache, how many bytes evicting it would free, and its facts. Shared weights
// are recorded for the pair (model, "base") with SetMemory.
func (mm *ModelMetrics) SetLoaded(bytes int64, f Facts) {
	if mm.special {
		return
	}
	mm.makeHistograms()
	mm.mu.Lock()
	defer mm.mu.Unlock()
	mm.loaded.Set(1)
	mm.setMemory(bytes)
	mm.setFacts([]string{mm.model, mm.version, f.Quantization, strconv.Itoa(f.ContextTokens), f.Architecture})
}

// SetMemory sets how many bytes evicting the pair would free; 0 or less removes the series.
func (mm *ModelMetrics) SetMemory(bytes int64) {
	if mm.special {
		return
	}
	mm.mu.Lock()
	defer mm.mu.Unlock()
	mm.setMemory(bytes)
}

// SetUnloaded records that the pair left the cache. Its counters and histograms stay until Sweep finds that it isn't
// installed any more.
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
	series := mm.m.vectors.gauges["model_memory_usage_bytes"]
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
	series := mm.m.vectors.gauges["llm_model_info"]
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
