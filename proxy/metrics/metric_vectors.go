package metrics

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/schema/catalogue"
)

// vectors are the families that the catalogue lists for the proxy, without those read at scrape time.
type vectors struct {
	counters   map[string]*prometheus.CounterVec
	gauges     map[string]*prometheus.GaugeVec
	histograms map[string]*prometheus.HistogramVec
}

// readAtScrape names families with a collector of their own.
var readAtScrape = []string{"llm_requests_waiting", "llm_requests_running", "llm_kv_cache_usage_ratio", "llm_cache_config_info",
	"llm_build_info", "llm_lora_requests_info"}

func newVectors(r *prometheus.Registry, allowed *labelAllowlist, native bool) vectors {
	v := vectors{make(map[string]*prometheus.CounterVec), make(map[string]*prometheus.GaugeVec), make(map[string]*prometheus.HistogramVec)}
	for _, c := range catalogue.ByOwner(catalogue.Proxy) {
		if slices.Contains(readAtScrape, c.Name) {
			continue
		}
		switch labels := allowed.constrain(c.Labels); c.Kind {
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
			v.createUnlabelled(c)
		}
	}
	return v
}

// createUnlabelled creates the only series of a family without labels.
func (v *vectors) createUnlabelled(c *catalogue.Metric) {
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

// counter, gauge and histogram return one series and create it when it is missing. They panic on a name that isn't in
// the catalogue.
func (v *vectors) counter(name string, values ...string) prometheus.Counter {
	return mustFind(v.counters, name).WithLabelValues(values...)
}

func (v *vectors) gauge(name string, values ...string) prometheus.Gauge {
	return mustFind(v.gauges, name).WithLabelValues(values...)
}

func (v *vectors) histogram(name string, values ...string) prometheus.Observer {
	return mustFind(v.histograms, name).WithLabelValues(values...)
}

func mustFind[T any](families map[string]T, name string) T {
	vec, ok := families[name]
	if !ok {
		panic(fmt.Sprintf("metrics: no family %s of this type in the catalogue", name))
	}
	return vec
}
