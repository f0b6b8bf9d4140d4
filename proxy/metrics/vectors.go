package metrics

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/schema/catalogue"
)

// vectors are the families that the catalogue gives to the proxy, without those read at scrape time.
type vectors struct {
	counters   map[string]*prometheus.CounterVec
	gauges     map[string]*prometheus.GaugeVec
	histograms map[string]*prometheus.HistogramVec
}

// readAtScrape names families with a collector of their own.
var readAtScrape = []string{"llm_requests_waiting", "llm_requests_running", "llm_kv_cache_usage_ratio", "llm_cache_config_info",
	"llm_build_info", "llm_lora_requests_info"}

func newVectors(r *prometheus.Registry, known *fence, native bool) vectors {
	v := vectors{make(map[string]*prometheus.CounterVec), make(map[string]*prometheus.GaugeVec), make(map[string]*prometheus.HistogramVec)}
	for _, c := range catalogue.ByOwner(catalogue.Proxy) {
		if slices.Contains(readAtScrape, c.Name) {
			continue
		}
		switch labels := known.constrain(c.Labels); c.Kind {
		case catalogue.Counter:
			v.counters[c.Name] = prometheus.V2.NewCounterVec(prometheus.CounterVecOpts{
				CounterOpts: prometheus.CounterOpts{Name: c.Name, Help: c.Help}, VariableLabels: labels})
			r.MustRegister(v.counters[c.Name])
		case catalogue.Gauge:
			v.gauges[c.Name] = prometheus.V2.NewGaugeVec(prometheus.GaugeVecOpts{
				GaugeOpts: prometheus.GaugeOpts{Name: c.Name, Help: c.Help}, VariableLabels: labels})
			r.MustRegister(v.gauges[c.Name])
		case catalogue.Histogram:
			v.histograms[c.Name] = prometheus.V2.NewHistogramVec(prometheus.HistogramVecOpts{
				HistogramOpts: histogramOpts(c, native), VariableLabels: labels})
			r.MustRegister(v.histograms[c.Name])
		}
		if len(c.Labels) == 0 {
			v.touch(c)
		}
	}
	return v
}

// touch creates the only child of a family without labels.
func (v *vectors) touch(c *catalogue.Metric) {
	switch c.Kind {
	case catalogue.Counter:
		v.counter(c.Name)
	case catalogue.Gauge:
		v.gauge(c.Name)
	case catalogue.Histogram:
		v.histogram(c.Name)
	}
}

func histogramOpts(c *catalogue.Metric, native bool) prometheus.HistogramOpts {
	o := prometheus.HistogramOpts{Name: c.Name, Help: c.Help, Buckets: c.Bounds.Edges}
	if native {
		o.NativeHistogramBucketFactor = 1.1
		o.NativeHistogramMaxBucketNumber = 160
		o.NativeHistogramMinResetDuration = time.Hour
	}
	return o
}

// counter, gauge and histogram give one child, made when it is missing. A name outside the catalogue panics.
func (v *vectors) counter(name string, values ...string) prometheus.Counter {
	return need(v.counters, name).WithLabelValues(values...)
}

func (v *vectors) gauge(name string, values ...string) prometheus.Gauge {
	return need(v.gauges, name).WithLabelValues(values...)
}

func (v *vectors) histogram(name string, values ...string) prometheus.Observer {
	return need(v.histograms, name).WithLabelValues(values...)
}

func need[T any](set map[string]T, name string) T {
	vec, ok := set[name]
	if !ok {
		panic(fmt.Sprintf("metrics: no family %s of this type in the catalogue", name))
	}
	return vec
}

// fence is the second line of defence: whatever a caller passes, only known values become labels.
type fence struct {
	mu        sync.Mutex // serialises writers of the sets below
	models    set
	versions  set
	endpoints set
	domains   set
}

// set of strings that grows rarely and is read often.
type set struct {
	p atomic.Pointer[map[string]bool]
}

func (s *set) has(value string) bool { return (*s.p.Load())[value] }

// add must be called by one goroutine at a time.
func (s *set) add(value string) {
	next := make(map[string]bool)
	if old := s.p.Load(); old != nil {
		for v := range *old {
			next[v] = true
		}
	}
	next[value] = true
	s.p.Store(&next)
}

// keep must be called by one goroutine at a time. What is reserved stays.
func (s *set) keep(wanted map[string]bool) {
	next := map[string]bool{catalogue.None: true, catalogue.Unknown: true, catalogue.Other: true}
	for v := range *s.p.Load() {
		if wanted[v] {
			next[v] = true
		}
	}
	s.p.Store(&next)
}

func (s *set) size() int { return len(*s.p.Load()) }

func (f *fence) init(o Options) {
	for _, s := range []*set{&f.models, &f.versions} {
		s.add(catalogue.None)
		s.add(catalogue.Unknown)
		s.add(catalogue.Other)
	}
	f.endpoints.add(catalogue.Other)
	f.domains.add(catalogue.General)
	f.domains.add(catalogue.Other)
	for _, d := range o.Domains {
		f.addDomain(d)
	}
}

func (f *fence) addPair(model, version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.models.add(model)
	f.versions.add(version)
}

// keep leaves only these models and versions.
func (f *fence) keep(models, versions map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.models.keep(models)
	f.versions.keep(versions)
}

func (f *fence) addEndpoint(route string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endpoints.add(route)
}

// addDomain tells whether there was room.
func (f *fence) addDomain(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "" || f.domains.has(name) {
		return true
	}
	if f.domains.size() >= catalogue.MaxDomains {
		return false
	}
	f.domains.add(name)
	return true
}

func (f *fence) domain(name string) string {
	if name == "" {
		return catalogue.General
	}
	if f.domains.has(name) {
		return name
	}
	return catalogue.Other
}

// constrain gives every label that has a known set of values its constraint.
func (f *fence) constrain(labels []catalogue.Label) prometheus.ConstrainedLabels {
	out := make(prometheus.ConstrainedLabels, len(labels))
	for i, l := range labels {
		out[i] = prometheus.ConstrainedLabel{Name: l.Name, Constraint: f.constraint(l)}
	}
	return out
}

func (f *fence) constraint(l catalogue.Label) prometheus.LabelConstraint {
	switch {
	case l.Values != nil:
		return func(v string) string {
			if slices.Contains(l.Values, v) {
				return v
			}
			return l.Fallback
		}
	case l.Name == "model":
		return fold(&f.models, catalogue.Unknown)
	case l.Name == "version":
		return fold(&f.versions, catalogue.Unknown)
	case l.Name == "endpoint":
		return fold(&f.endpoints, catalogue.Other)
	case l.Name == "domain":
		return f.domain
	}
	return nil
}

func fold(s *set, fallback string) prometheus.LabelConstraint {
	return func(v string) string {
		if s.has(v) {
			return v
		}
		return fallback
	}
}

// info is a family of at most one series whose labels carry facts.
type info struct {
	desc    *prometheus.Desc
	current atomic.Pointer[infoValue]
}

type infoValue struct {
	value  float64
	labels []string
}

func (i *info) init(name string) {
	c := catalogue.Find(name)
	i.desc = prometheus.NewDesc(c.Name, c.Help, c.LabelNames(), nil)
}

func (i *info) set(value float64, labels ...string) { i.current.Store(&infoValue{value, labels}) }

func (i *info) clear() { i.current.Store(nil) }

// Describe implements prometheus.Collector.
func (i *info) Describe(ch chan<- *prometheus.Desc) { ch <- i.desc }

// Collect implements prometheus.Collector.
func (i *info) Collect(ch chan<- prometheus.Metric) {
	if v := i.current.Load(); v != nil {
		ch <- prometheus.MustNewConstMetric(i.desc, prometheus.GaugeValue, v.value, v.labels...)
	}
}

// atomicFloat is a float64 for one writer and many readers.
type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) store(v float64) { f.bits.Store(math.Float64bits(v)) }

func (f *atomicFloat) load() float64 { return math.Float64frombits(f.bits.Load()) }
