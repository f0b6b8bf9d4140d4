package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tandem/schema/catalogue"
)

// Hold keeps the series of the pair while a request counts with them, so that all that is known of a request is counted in one place.
func (mm *ModelMetrics) Hold() { mm.held.Add(1) }

// Release ends Hold.
func (mm *ModelMetrics) Release() { mm.held.Add(-1) }

// Sweep removes the series of pairs that were not installed for Options.KeepRemoved, which is long enough for a scrape of their last
// values. A pair that is installed again afterwards starts at 0, as after a restart. The configured default stays: every documented
// family has series of it. The removal itself is rest, nil when none is due: it reads the whole registry, so the caller's locks should be
// free by then.
func (m *Metrics) Sweep(installed func(model, version string) bool, now time.Time) (rest func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var over []pair
	m.pairs.Range(func(key, value any) bool {
		p, mm := key.(pair), value.(*ModelMetrics)
		switch {
		case p == pair{m.o.DefaultModel, m.o.DefaultVersion}:
		case installed(p.model, p.version):
			delete(m.gone, p)
		case m.gone[p].IsZero():
			m.gone[p] = now
		case now.Sub(m.gone[p]) >= m.o.KeepRemoved && m.free(mm):
			over = append(over, p)
		}
		return true
	})
	if len(over) == 0 {
		return nil
	}
	return func() { m.remove(over) }
}

// free tells whether no request counts with series that would go.
func (m *Metrics) free(mm *ModelMetrics) bool { return mm == m.other || mm.held.Load() == 0 }

// remove leaves alone what was announced again or is held since it was found due. What the removed series counted stays in the sums of the
// live figures, which would go backwards otherwise.
func (m *Metrics) remove(list []pair) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sampling.Lock()
	defer m.sampling.Unlock()
	own := make(map[pair]bool)
	for _, p := range list {
		value, ok := m.pairs.Load(p)
		if !ok || m.gone[p].IsZero() || !m.free(value.(*ModelMetrics)) {
			continue
		}
		m.pairs.Delete(p)
		delete(m.gone, p)
		mm := value.(*ModelMetrics)
		if mm == m.other {
			continue // whose series belong to several pairs
		}
		own[p] = true
		mm.end()
		m.count--
		for _, e := range m.ends {
			e.replies.Delete(mm)
		}
	}
	families, err := m.registry.Gather()
	if err != nil {
		m.o.Log.Debug("live figures lose what removed models counted", "error", err)
	}
	for _, f := range families {
		f.Metric = slices.DeleteFunc(f.Metric, func(s *dto.Metric) bool { return !own[pair{label(s, "model"), label(s, "version")}] })
		m.retired.add(f)
	}
	m.retired.memory = nil // it isn't counted up, and they have none
	for p := range own {
		m.v.forget(p)
	}
	m.forgetNames()
}

// end keeps those who still hold the pair from making series again.
func (mm *ModelMetrics) end() {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	mm.removed = true
}

// forgetNames takes the names that no pair has any more out of the fence. It needs m.mu.
func (m *Metrics) forgetNames() {
	models, versions := make(map[string]bool), make(map[string]bool)
	m.pairs.Range(func(_, value any) bool {
		mm := value.(*ModelMetrics)
		models[mm.model], versions[mm.version] = true, true
		return true
	})
	m.known.keep(models, versions)
}

// forget deletes every series of a pair.
func (v *vectors) forget(p pair) {
	labels := prometheus.Labels{"model": p.model, "version": p.version}
	for _, c := range catalogue.ByOwner(catalogue.Proxy) {
		if !slices.Contains(c.LabelNames(), "model") {
			continue
		}
		switch c.Kind {
		case catalogue.Counter:
			v.counters[c.Name].DeletePartialMatch(labels)
		case catalogue.Gauge:
			v.gauges[c.Name].DeletePartialMatch(labels)
		case catalogue.Histogram:
			v.histograms[c.Name].DeletePartialMatch(labels)
		}
	}
}

// Series that nobody sees, for what is counted after the end of a pair.
var (
	noCounter   = prometheus.NewCounter(prometheus.CounterOpts{Name: "removed_total"})
	noHistogram = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "removed", Buckets: []float64{1}})
)

// counter makes a further counter of the pair, unless its series were removed. values are those of the labels behind model and version.
func (mm *ModelMetrics) counter(name string, values ...string) prometheus.Counter {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	if mm.removed {
		return noCounter
	}
	return mm.m.v.counter(name, append([]string{mm.model, mm.version}, values...)...)
}

// histogram is counter for histograms.
func (mm *ModelMetrics) histogram(name string, values ...string) prometheus.Observer {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	if mm.removed {
		return noHistogram
	}
	return mm.m.v.histogram(name, append([]string{mm.model, mm.version}, values...)...)
}
