// Package metrics is everything the proxy measures: one client_golang registry built from schema/catalogue, the joined scrape with the
// engine's own metrics, and the small page for routers. Callers say what happened; names, labels and buckets stay in here.
//
// No label value comes from a client. Models are announced by the engine's catalogue, endpoints by the routes, domains by the
// configuration; everything else is a closed set, and what is outside a set goes to its fallback. Methods are safe from any
// goroutine; those for every token neither allocate nor look anything up.
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
	// DefaultModel and DefaultVersion are announced at once, so that a page at start already has every documented family. Empty:
	// only the series for none and unknown exist until the engine lists its models.
	DefaultModel, DefaultVersion string
	Domains                      []string      // monitoring.domains; at most catalogue.MaxDomains count
	KeepRemoved                  time.Duration // how long the series of a model stay that isn't installed any more; 1 h
	QueueCapacity                int
	CacheSize                    int
	Build                        BuildInfo
	SLO                          SLO

	NativeHistograms bool // beside the classic buckets
	// HideCustom leaves only the documented families and what their alerts read (CUSTOM_METRICS=false); the engine isn't asked then.
	HideCustom bool
	// EngineText fetches the engine's metrics in Prometheus text form; nil while there is none to ask. It must heed ctx, which
	// ends after 300 ms, and may be called from any goroutine, one call at a time.
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

// inferRoute is the route whose series every model has.
const inferRoute = "/infer"

// sloTokens is the length of the documented profile, for which SLO.Request holds.
const sloTokens = 32

// Metrics of the proxy. Make it with New.
type Metrics struct {
	o        Options
	registry *prometheus.Registry
	v        vectors
	known    fence // label values that may appear
	join     *joiner

	mu      sync.Mutex           // guards the writes of pairs
	pairs   sync.Map             // pair → *ModelMetrics
	count   int                  // announced pairs, under mu
	gone    map[pair]time.Time   // since when they aren't installed; under mu
	none    *ModelMetrics        // a model does not apply
	unkn    *ModelMetrics        // asked for, not installed
	other   *ModelMetrics        // beyond catalogue.MaxPairs
	ends    map[string]*Endpoint // under mu
	rej     map[string]prometheus.Counter
	canc    map[string]prometheus.Counter
	limits  map[string]map[string]prometheus.Counter // by scope and decision
	journal prometheus.Gauge
	link    linkCounters
	state   gauges

	sampling sync.RWMutex // held for writing while series are removed
	retired  sample       // what removed series counted; guarded by sampling

	cache    info // llm_cache_config_info
	build    info // llm_build_info
	adapters info // llm_lora_requests_info
}

type pair struct{ model, version string }

// gauges are read at scrape time; each is set by one caller.
type gauges struct {
	queued        atomic.Int64
	engineWaiting atomic.Int64
	engineRunning atomic.Int64
	kvUsage       atomicFloat
}

// New builds the registry. It panics when the catalogue contradicts itself, which tests find.
func New(o Options) *Metrics {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.KeepRemoved == 0 {
		o.KeepRemoved = time.Hour
	}
	m := &Metrics{o: o, registry: prometheus.NewRegistry(), ends: make(map[string]*Endpoint), gone: make(map[pair]time.Time), retired: newSample()}
	m.known.init(o)
	m.v = newVectors(m.registry, &m.known, o.NativeHistograms)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registerStates()
	m.resolveEvents()

	m.Endpoint(catalogue.Other)
	m.Endpoint(inferRoute)
	m.none = m.newSpecial(catalogue.None)
	m.unkn = m.newSpecial(catalogue.Unknown)
	if o.DefaultModel != "" {
		m.Announce(o.DefaultModel, o.DefaultVersion)
		m.Model(o.DefaultModel, o.DefaultVersion)
	}
	m.v.gauge("llm_queue_capacity").Set(float64(o.QueueCapacity))
	m.v.gauge("llm_model_cache_capacity").Set(float64(o.CacheSize))
	m.v.gauge("llm_rate_limit_store_up").Set(1)
	m.setBuild(EngineInfo{})
	m.join = newJoiner(o.EngineText, m.v.counter("llm_engine_metrics_fetch_errors_total"), o.Log)
	return m
}

// registerStates registers the gauges that are read when somebody scrapes.
func (m *Metrics) registerStates() {
	read := map[string]func() float64{
		"llm_requests_waiting":     func() float64 { return float64(m.waiting()) },
		"llm_requests_running":     func() float64 { return float64(m.state.engineRunning.Load()) },
		"llm_kv_cache_usage_ratio": m.state.kvUsage.load,
	}
	for name, f := range read {
		c := catalogue.Find(name)
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: c.Name, Help: c.Help}, f))
	}
	m.cache.init("llm_cache_config_info")
	m.build.init("llm_build_info")
	m.adapters.init("llm_lora_requests_info")
	m.registry.MustRegister(&m.cache, &m.build)
}

func (m *Metrics) waiting() int64 { return m.state.queued.Load() + m.state.engineWaiting.Load() }

// Domain folds the name of a business domain into the bounded set: empty gives general, one that nobody configured gives other.
func (m *Metrics) Domain(name string) string { return m.known.domain(name) }

// BindDomain adds the domain of an API key: its counters begin at 0 for every model. It does nothing beyond catalogue.MaxDomains, apart
// from counting the overflow.
func (m *Metrics) BindDomain(name string) {
	m.AllowDomain(name)
	if m.known.domain(name) != name {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.Contains(m.o.Domains, name) {
		return
	}
	m.o.Domains = append(slices.Clip(m.o.Domains), name)
	m.pairs.Range(func(_, p any) bool {
		p.(*ModelMetrics).counter("successful_inferences_total", name)
		return true
	})
}

// AllowDomain adds the domain of a model, whose counters come with its first answer. It does nothing beyond catalogue.MaxDomains, apart
// from counting the overflow.
func (m *Metrics) AllowDomain(name string) {
	if !m.known.addDomain(name) {
		m.v.counter("llm_metric_label_overflow_total", "domain").Inc()
	}
}

func (m *Metrics) setBuild(e EngineInfo) {
	b := m.o.Build
	m.build.set(1, b.Version, b.Revision, runtime.Version(), e.Build, e.LibraryCommit, e.Backend, e.Schema)
}

// SetQueued says how many requests wait in the proxy's own queue.
func (m *Metrics) SetQueued(n int) { m.state.queued.Store(int64(n)) }

// SetJournalBytes says how much memory is reserved for what requests in flight have received.
func (m *Metrics) SetJournalBytes(n int64) { m.journal.Set(float64(n)) }

// SetQueueCapacity and SetCacheSize replace what New was given.
func (m *Metrics) SetQueueCapacity(n int) { m.v.gauge("llm_queue_capacity").Set(float64(n)) }

// SetCacheSize replaces what New was given, once the engine has said its own.
func (m *Metrics) SetCacheSize(n int) { m.v.gauge("llm_model_cache_capacity").Set(float64(n)) }

// SetDraining says whether the proxy drains.
func (m *Metrics) SetDraining(draining bool) { m.v.gauge("llm_draining").Set(boolean(draining)) }

// ConfigLoaded records a good configuration load.
func (m *Metrics) ConfigLoaded(at time.Time) {
	m.v.gauge("llm_config_last_reload_success_timestamp_seconds").Set(seconds(at))
}

// KeyReloadFailed counts a key file that could not be read again.
func (m *Metrics) KeyReloadFailed() { m.v.counter("llm_key_reload_failures_total").Inc() }

// Rejected counts a request refused before the engine accepted it, by a reason of llm_requests_rejected_total.
func (m *Metrics) Rejected(reason string) { pick(m.rej, reason, "internal").Inc() }

// Cancelled counts a request whose client left in a stage: queue, prefill, decode.
func (m *Metrics) Cancelled(stage string) { pick(m.canc, stage, "queue").Inc() }

// RateLimited counts a decision of the rate limiter in a scope: key, ip.
func (m *Metrics) RateLimited(scope string, denied bool) {
	decision := "allowed"
	if denied {
		decision = "denied"
	}
	decisions, ok := m.limits[scope]
	if !ok {
		decisions = m.limits[catalogue.Other]
	}
	decisions[decision].Inc()
}

// SetRateLimitKeys says how many buckets the rate limiter holds.
func (m *Metrics) SetRateLimitKeys(n int) { m.v.gauge("llm_rate_limit_tracked_keys").Set(float64(n)) }

// SetRateLimitStoreUp says whether the store of the rate limits answers.
func (m *Metrics) SetRateLimitStoreUp(up bool) { m.v.gauge("llm_rate_limit_store_up").Set(boolean(up)) }

// pick looks a value of a closed set up.
func pick(set map[string]prometheus.Counter, value, fallback string) prometheus.Counter {
	if c, ok := set[value]; ok {
		return c
	}
	return set[fallback]
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// values gives the closed set of a label.
func values(metric, label string) []string {
	for _, l := range catalogue.Find(metric).Labels {
		if l.Name == label {
			return slices.Clone(l.Values)
		}
	}
	return nil
}
