package metrics

import (
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/schema/catalogue"
)

// infoMetric is a family of at most one series whose labels carry facts, such as llm_build_info.
type infoMetric struct {
	desc    *prometheus.Desc
	current atomic.Pointer[infoValue]
}

type infoValue struct {
	value  float64
	labels []string
}

func (i *infoMetric) init(name string) {
	c := catalogue.Find(name)
	i.desc = prometheus.NewDesc(c.Name, c.Help, c.LabelNames(), nil)
}

func (i *infoMetric) set(value float64, labels ...string) { i.current.Store(&infoValue{value, labels}) }

// orElse returns the present value, or another where there is none.
func (i *infoMetric) orElse(other infoValue) infoValue {
	if v := i.current.Load(); v != nil {
		return *v
	}
	return other
}

func (i *infoMetric) clear() { i.current.Store(nil) }

// Describe implements prometheus.Collector.
func (i *infoMetric) Describe(ch chan<- *prometheus.Desc) { ch <- i.desc }

// Collect implements prometheus.Collector.
func (i *infoMetric) Collect(ch chan<- prometheus.Metric) {
	if v := i.current.Load(); v != nil {
		ch <- prometheus.MustNewConstMetric(i.desc, prometheus.GaugeValue, v.value, v.labels...)
	}
}

// atomicFloat is a float64 for one writer and many readers.
type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) store(v float64) { f.bits.Store(math.Float64bits(v)) }

func (f *atomicFloat) load() float64 { return math.Float64frombits(f.bits.Load()) }
