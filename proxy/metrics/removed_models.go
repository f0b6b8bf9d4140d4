package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tandem/schema/catalogue"
)

// Hold keeps the series of the pair from being removed while a request counts with them, so that a request is counted
// in one place only.
func (mm *ModelMetrics) Hold() { mm.inUse.Add(1) }

// Release ends Hold.
func (mm *ModelMetrics) Release() { mm.inUse.Add(-1) }

// Sweep removes the series of pairs that have not been installed for Options.KeepRemoved, which is long enough for a
// scrape of their last values. A pair that is installed again later starts at 0, as after a restart. The configured
// default stays: every documented family has series of it. Sweep returns the removal itself as a function, nil when
// none is due: it reads the whole registry, so the caller should call it without holding locks.
func (m *Metrics) Sweep(installed func(model, version string) bool, now time.Time) (removal func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []modelVersion
	m.models.Range(func(key, value any) bool {
		p, mm := key.(modelVersion), value.(*ModelMetrics)
		switch {
		case p == modelVersion{m.opts.DefaultModel, m.opts.DefaultVersion}:
		case installed(p.model, p.version):
			delete(m.uninstalledSince, p)
		case m.uninstalledSince[p].IsZero():
			m.uninstalledSince[p] = now
		case now.Sub(m.uninstalledSince[p]) >= m.opts.KeepRemoved && m.isIdle(mm):
			due = append(due, p)
		}
		return true
	})
	if len(due) == 0 {
		return nil
	}
	return func() { m.removeModels(due) }
}

// isIdle reports whether no request counts with the series that would be removed.
func (m *Metrics) isIdle(mm *ModelMetrics) bool { return mm == m.overflowModel || mm.inUse.Load() == 0 }

// removeModels skips pairs that were registered again or held since they were found due. What the removed series
// counted stays in the sums of the live figures, which would go backwards otherwise.
func (m *Metrics) removeModels(list []modelVersion) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removal.Lock()
	defer m.removal.Unlock()
	removed := make(map[modelVersion]bool)
	for _, p := range list {
		value, ok := m.models.Load(p)
		if !ok || m.uninstalledSince[p].IsZero() || !m.isIdle(value.(*ModelMetrics)) {
			continue
		}
		m.models.Delete(p)
		delete(m.uninstalledSince, p)
		mm := value.(*ModelMetrics)
		if mm == m.overflowModel {
			continue // its series belong to several pairs
		}
		removed[p] = true
		mm.markRemoved()
		m.modelCount--
		for _, e := range m.endpoints {
			e.series.Delete(mm)
		}
	}
	families, err := m.registry.Gather()
	if err != nil {
		m.opts.Log.Debug("live figures lose what removed models counted", "error", err)
	}
	for _, f := range families {
		f.Metric = slices.DeleteFunc(f.Metric, func(s *dto.Metric) bool {
			return !removed[modelVersion{labelValue(s, "model"), labelValue(s, "version")}]
		})
		m.removedTotals.add(f)
	}
	m.removedTotals.memory = nil // a gauge, and removed models have none
	for p := range removed {
		m.vectors.deleteModel(p)
	}
	m.dropUnusedNames()
}

// markRemoved keeps callers that still have the ModelMetrics from creating series again.
func (mm *ModelMetrics) markRemoved() {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	mm.removed = true
}

// dropUnusedNames removes the names that no pair has any more from the allowed label values. It needs m.mu.
func (m *Metrics) dropUnusedNames() {
	models, versions := make(map[string]bool), make(map[string]bool)
	m.models.Range(func(_, value any) bool {
		mm := value.(*ModelMetrics)
		models[mm.model], versions[mm.version] = true, true
		return true
	})
	m.allowed.keep(models, versions)
}

// deleteModel deletes every series of a pair.
func (v *vectors) deleteModel(p modelVersion) {
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

// Unregistered series, for what is counted after a pair was removed.
var (
	discardedCounter   = prometheus.NewCounter(prometheus.CounterOpts{Name: "removed_total"})
	discardedHistogram = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "removed", Buckets: []float64{1}})
)

// counter returns a further counter of the pair, unless its series were removed. values are those of the labels after
// model and version.
func (mm *ModelMetrics) counter(name string, values ...string) prometheus.Counter {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	if mm.removed {
		return discardedCounter
	}
	return mm.m.vectors.counter(name, append([]string{mm.model, mm.version}, values...)...)
}

// histogram is counter for histograms.
func (mm *ModelMetrics) histogram(name string, values ...string) prometheus.Observer {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	if mm.removed {
		return discardedHistogram
	}
	return mm.m.vectors.histogram(name, append([]string{mm.model, mm.version}, values...)...)
}
