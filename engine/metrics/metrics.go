// Package metrics holds the engine's own metrics: decode steps, batches, KV cells, devices. The proxy fetches them as
// text and adds them to its own metrics page; the engine opens no port. Metrics that must survive a restart of the
// engine, the documented ones among them, are the proxy's. Names, labels and buckets come from schema/catalogue.
package metrics

import (
	"io"
	"sync"
	"sync/atomic"

	vm "github.com/VictoriaMetrics/metrics"
)

// Metrics of the engine. Make it with New. Its methods may be called from any goroutine; those that the executor calls
// in each step neither lock nor allocate.
type Metrics struct {
	// set holds everything: with a set for each model, a family's type would be written once for each, which no parser
	// takes.
	set *vm.Set

	seriesByKey atomic.Pointer[map[string]*baseSeries] // by the executor's key; replaced, never changed

	mu            sync.Mutex
	seriesByModel map[string]*baseSeries   // guarded by mu; by model name
	loadProgress  map[string]*vm.Gauge     // guarded by mu; by model name
	devices       map[string]*deviceSeries // guarded by mu; by device name
}

// New returns Metrics without any series yet.
func New() *Metrics {
	vm.ExposeMetadata(true) // without types, histograms fall apart into loose series
	m := &Metrics{set: vm.NewSet(), seriesByModel: make(map[string]*baseSeries), loadProgress: make(map[string]*vm.Gauge), devices: make(map[string]*deviceSeries)}
	m.seriesByKey.Store(&map[string]*baseSeries{})
	return m
}

// WritePrometheus writes all metrics, with those of the process and the Go runtime, as Prometheus text.
func (m *Metrics) WritePrometheus(w io.Writer) {
	m.set.WritePrometheus(w)
	vm.WriteProcessMetrics(w)
}

// SetLoadProgress sets how far the load of a model is, 0 to 1.
func (m *Metrics) SetLoadProgress(model string, ratio float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.loadProgress[model]
	if g == nil {
		g = m.set.NewGauge(seriesName("llm_engine_model_load_progress_ratio", model), nil)
		m.loadProgress[model] = g
	}
	g.Set(ratio)
}

// LoadEnded removes the series of SetLoadProgress.
func (m *Metrics) LoadEnded(model string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loadProgress[model] != nil {
		delete(m.loadProgress, model)
		m.set.UnregisterMetric(seriesName("llm_engine_model_load_progress_ratio", model))
	}
}
