// Package metrics is everything the proxy measures: one client_golang registry built from schema/catalogue, the scrape
// page, into which the engine's own metrics are merged, the small page for routers, and the recent figures of the live
// page. Callers report events; names, labels and buckets stay in here. It decides nothing and serves no HTTP itself.
//
// No label value comes from a client. Models come from the engine's list of models, endpoints from the routes, domains
// from the configuration; everything else is a closed set, and a value outside of its set becomes the fallback. Methods
// are safe from any goroutine; those for every token neither allocate nor look anything up.
package metrics

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tandem/schema/catalogue"
)

// Options of New. The zero value gives working metrics without an engine.
type Options struct {
	// DefaultModel and DefaultVersion are registered at once, so that the first scrape already has every documented
	// family. Empty: only the series for none and unknown exist until the engine lists its models.
	DefaultModel, DefaultVersion string
	Domains                      []string // monitoring.domains; those beyond catalogue.MaxDomains are ignored
	// how long the series of a model that isn't installed any more are kept; 0: 1 h
	KeepRemoved   time.Duration
	QueueCapacity int
	CacheSize     int
	Build         BuildInfo
	SLO           SLO

	NativeHistograms bool // beside the classic buckets
	// HideCustom leaves only the documented families and those that their alerts read (CUSTOM_METRICS=false). The
	// engine's metrics aren't fetched then.
	HideCustom bool
	// EngineText fetches the engine's metrics in Prometheus text form; nil while there is no engine. It must return
	// when ctx ends, after 300 ms, and may be called from any goroutine, one call at a time.
	EngineText func(ctx context.Context) ([]byte, error)
	Log        *slog.Logger // nil: slog.Default()
}

// BuildInfo of the proxy.
type BuildInfo struct{ Version, Revision string }

// SLO are the targets of llm_slo_requests_total. A zero target is not judged.
type SLO struct {
	FirstToken time.Duration // from request to first token
	PerToken   time.Duration // mean gap between tokens after the first
	// Request is the target of a whole answer of up to 32 tokens; each further token adds PerToken (F19).
	Request time.Duration
}

// IsInference reports whether every model has series of the route, and the live figures count it.
func IsInference(route string) bool { return slices.Contains(catalogue.InferenceEndpoints, route) }

// sloTokens is the length of the documented profile, for which SLO.Request holds.
const sloTokens = 32

// Metrics of the proxy. Make it with New.
type Metrics struct {
	opts     Options
	registry *prometheus.Registry
	vectors  vectors
	allowed  labelAllowlist // label values that may appear
	engine   *engineGatherer

	mu               sync.Mutex                    // guards the writes of models
	models           sync.Map                      // modelVersion → *ModelMetrics
	modelCount       int                           // registered pairs, under mu
	uninstalledSince map[modelVersion]time.Time    // of registered pairs that aren't installed; under mu
	noModel          *ModelMetrics                 // no model applies
	unknownModel     *ModelMetrics                 // requested, not installed
	overflowModel    *ModelMetrics                 // shared by the pairs beyond catalogue.MaxPairs
	endpoints        map[string]*Endpoint          // under mu
	rejected         map[string]prometheus.Counter // by reason
	admissionRefused map[string]prometheus.Counter // by reason
	admissionWait    prometheus.Gauge
	admissionSpeed   prometheus.Gauge
	cancelled        map[string]prometheus.Counter            // by stage
	rateLimited      map[string]map[string]prometheus.Counter // by scope and decision
	journalBytes     prometheus.Gauge
	link             engineLinkCounters
	scraped          scrapedState

	removal       sync.RWMutex // held for writing while series are removed
	removedTotals liveSample   // what removed series counted; guarded by removal

	cacheConfigInfo infoMetric // llm_cache_config_info
	buildInfo       infoMetric // llm_build_info
	adaptersInfo    infoMetric // llm_lora_requests_info
}

// modelVersion is a pair of label values.
type modelVersion struct{ model, version string }

// scrapedState holds the gauges that are read at scrape time; each is set by one caller.
type scrapedState struct {
	queued        atomic.Int64
	unaccepted    atomic.Int64
	engineWaiting atomic.Int64
	engineRunning atomic.Int64
	kvUsage       atomicFloat
}

// New builds the registry. It panics when the catalogue contradicts itself, which the tests would find.
func New(o Options) *Metrics {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.KeepRemoved == 0 {
		o.KeepRemoved = time.Hour
	}
	m := &Metrics{opts: o, registry: prometheus.NewRegistry(), endpoints: make(map[string]*Endpoint), uninstalledSince: make(map[modelVersion]time.Time), removedTotals: newLiveSample()}
	m.allowed.init(o)
	m.vectors = newVectors(m.registry, &m.allowed, o.NativeHistograms)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registerScrapeGauges()
	m.resolveCounters()

	m.Endpoint(catalogue.Other)
	for _, route := range catalogue.InferenceEndpoints {
		m.Endpoint(route)
	}
	m.noModel = m.newSpecialMetrics(catalogue.None)
	m.unknownModel = m.newSpecialMetrics(catalogue.Unknown)
	if o.DefaultModel != "" {
		m.RegisterModel(o.DefaultModel, o.DefaultVersion)
		m.Model(o.DefaultModel, o.DefaultVersion)
	}
	m.vectors.gauge("llm_queue_capacity").Set(float64(o.QueueCapacity))
	m.vectors.gauge("llm_model_cache_capacity").Set(float64(o.CacheSize))
	m.vectors.gauge("llm_rate_limit_store_up").Set(1)
	m.setBuild(EngineInfo{})
	m.engine = newEngineGatherer(o.EngineText, m.vectors.counter("llm_engine_metrics_fetch_errors_total"), o.Log)
	return m
}

// registerScrapeGauges registers the gauges that are read at scrape time.
func (m *Metrics) registerScrapeGauges() {
	read := map[string]func() float64{
		"llm_requests_waiting":     func() float64 { return float64(m.waiting()) },
		"llm_requests_running":     func() float64 { return float64(m.scraped.engineRunning.Load()) },
		"llm_kv_cache_usage_ratio": m.scraped.kvUsage.load,
	}
	for name, f := range read {
		c := catalogue.Find(name)
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: c.Name, Help: c.Help}, f))
	}
	m.cacheConfigInfo.init("llm_cache_config_info")
	m.buildInfo.init("llm_build_info")
	m.adaptersInfo.init("llm_lora_requests_info")
	m.registry.MustRegister(&m.cacheConfigInfo, &m.buildInfo)
}

func (m *Metrics) waiting() int64 {
	return m.scraped.queued.Load() + m.scraped.unaccepted.Load() + m.scraped.engineWaiting.Load()
}

// Domain maps the name of a business domain to the bounded set of label values: empty becomes general, an unconfigured
// one other.
func (m *Metrics) Domain(name string) string { return m.allowed.domain(name) }

// BindDomain adds the domain of an API key: its counters begin at 0 for every model. Beyond catalogue.MaxDomains it
// only counts the overflow.
func (m *Metrics) BindDomain(name string) {
	m.AllowDomain(name)
	if m.allowed.domain(name) != name {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.Contains(m.opts.Domains, name) {
		return
	}
	m.opts.Domains = append(slices.Clip(m.opts.Domains), name)
	m.models.Range(func(_, p any) bool {
		p.(*ModelMetrics).counter("successful_inferences_total", name)
		return true
	})
}

// AllowDomain adds the domain of a model, whose counters appear with its first answer. Beyond catalogue.MaxDomains it
// only counts the overflow.
func (m *Metrics) AllowDomain(name string) {
	if !m.allowed.addDomain(name) {
		m.vectors.counter("llm_metric_label_overflow_total", "domain").Inc()
	}
}

func (m *Metrics) setBuild(e EngineInfo) {
	b := m.opts.Build
	m.buildInfo.set(1, b.Version, b.Revision, runtime.Version(), e.Build, e.LibraryCommit, e.Backend, e.Schema)
}

// SetQueued sets how many requests wait in the proxy's own queue.
func (m *Metrics) SetQueued(n int) { m.scraped.queued.Store(int64(n)) }

// SetJournalBytes sets how much memory is reserved for the tokens received by requests in flight.
func (m *Metrics) SetJournalBytes(n int64) { m.journalBytes.Set(float64(n)) }

// SetQueueCapacity replaces the value given to New.
func (m *Metrics) SetQueueCapacity(n int) { m.vectors.gauge("llm_queue_capacity").Set(float64(n)) }

// SetCacheSize replaces the value given to New, once the engine has reported its own.
func (m *Metrics) SetCacheSize(n int) { m.vectors.gauge("llm_model_cache_capacity").Set(float64(n)) }

// SetDraining sets whether the proxy drains.
func (m *Metrics) SetDraining(draining bool) {
	m.vectors.gauge("llm_draining").Set(boolValue(draining))
}

// ConfigLoaded records a good configuration load.
func (m *Metrics) ConfigLoaded(at time.Time) {
	m.vectors.gauge("llm_config_last_reload_success_timestamp_seconds").Set(unixSeconds(at))
}

// KeyReloadFailed counts a failed reload of the key file.
func (m *Metrics) KeyReloadFailed() { m.vectors.counter("llm_key_reload_failures_total").Inc() }

// UnknownFields counts fields of requests that were ignored because no dialect knows them.
func (m *Metrics) UnknownFields(n int) { m.vectors.counter("llm_unknown_fields_total").Add(float64(n)) }

// Rejected counts a request rejected before the engine accepted it, by a reason of llm_requests_rejected_total.
func (m *Metrics) Rejected(reason string) { counterOr(m.rejected, reason, "internal").Inc() }

// AdmissionRefused counts a request for which there was no room or no time, by a reason of
// llm_admission_refusals_total.
func (m *Metrics) AdmissionRefused(reason string) {
	counterOr(m.admissionRefused, reason, "requests").Inc()
}

// SetAdmission sets how long a new request would wait, and the measured speed by which that is estimated.
func (m *Metrics) SetAdmission(wait time.Duration, tokensPerSecond float64) {
	m.admissionWait.Set(wait.Seconds())
	m.admissionSpeed.Set(tokensPerSecond)
}

// Cancelled counts a request whose client disconnected in a stage: queue, prefill, decode.
func (m *Metrics) Cancelled(stage string) { counterOr(m.cancelled, stage, "queue").Inc() }

// RateLimited counts a decision of the rate limiter in a scope: key, ip.
func (m *Metrics) RateLimited(scope string, denied bool) {
	decision := "allowed"
	if denied {
		decision = "denied"
	}
	decisions, ok := m.rateLimited[scope]
	if !ok {
		decisions = m.rateLimited[catalogue.Other]
	}
	decisions[decision].Inc()
}

// SetRateLimitKeys sets how many buckets the rate limiter holds.
func (m *Metrics) SetRateLimitKeys(n int) {
	m.vectors.gauge("llm_rate_limit_tracked_keys").Set(float64(n))
}

// SetRateLimitStoreUp sets whether the store of the rate limits answers.
func (m *Metrics) SetRateLimitStoreUp(up bool) {
	m.vectors.gauge("llm_rate_limit_store_up").Set(boolValue(up))
}

// counterOr looks up the counter of a label value, or that of the fallback for a value outside of the closed set.
func counterOr(counters map[string]prometheus.Counter, value, fallback string) prometheus.Counter {
	if c, ok := counters[value]; ok {
		return c
	}
	return counters[fallback]
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// labelValues returns the closed set of values of a label.
func labelValues(metric, label string) []string {
	for _, l := range catalogue.Find(metric).Labels {
		if l.Name == label {
			return slices.Clone(l.Values)
		}
	}
	return nil
}
