package inflight

import (
	"context"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// EngineMetrics fetches an engine's own metrics. Without an attached engine it returns none, and no error.
func (t *Table) EngineMetrics(ctx context.Context) ([]byte, error) {
	t.mu.Lock()
	e := t.chooseShownEngine()
	t.mu.Unlock()
	if e == nil {
		return nil, nil
	}
	return e.conn.Metrics(ctx)
}

// chooseShownEngine chooses the engine whose own metrics are shown: one until it leaves, then a newer one. Back at an
// older engine, counters would jump by all that it ever counted, so one that is about to leave isn't shown again.
func (t *Table) chooseShownEngine() *engine {
	var chosen *engine
	for _, e := range t.engines {
		switch {
		case e.number == t.shownEngine && !e.draining:
			return e
		case e.draining && e.number < t.shownEngine:
		case chosen == nil || e.draining == chosen.draining && e.number > chosen.number || chosen.draining && !e.draining:
			chosen = e
		}
	}
	if chosen != nil {
		t.shownEngine = chosen.number
	}
	return chosen
}

// updateGauges reports how many requests wait and how many bytes the journal has reserved.
func (t *Table) updateGauges() {
	t.metrics.SetQueued(t.queue.Len())
	t.metrics.SetJournalBytes(t.journal.ReservedBytes())
}

// reportUnaccepted reports how many requests the engines haven't accepted yet.
func (t *Table) reportUnaccepted() {
	n := 0
	for _, en := range t.entries {
		if en.state == sent {
			n++
		}
	}
	t.metrics.SetUnaccepted(n)
}

// reportEngineLoad reports the requests and KV cache usage of all engines together.
func (t *Table) reportEngineLoad() {
	var l metrics.EngineLoad
	for _, e := range t.engines {
		for _, b := range e.stats {
			l.Waiting += b.Waiting
			l.Running += b.Prefilling + b.Decoding
			if b.Cells > 0 {
				l.KVUsage = max(l.KVUsage, 1-float64(b.FreeCells)/float64(b.Cells))
			}
		}
	}
	t.metrics.SetEngineLoad(l)
}

// reportLoadedModels reports what is loaded at any engine, and what isn't any more.
func (t *Table) reportLoadedModels() {
	now := t.loadedModels()
	for mv := range t.reportedLoaded {
		if _, ok := now[mv]; !ok {
			t.metrics.Model(mv.model, mv.version).SetUnloaded()
		}
	}
	weights := make(map[string]uint64)
	for mv, l := range now {
		weights[mv.model] = max(weights[mv.model], l.Facts.WeightBytes+l.Facts.CacheBytes)
		if old, ok := t.reportedLoaded[mv]; ok && reflect.DeepEqual(old, l) {
			continue
		}
		t.metrics.Model(mv.model, mv.version).SetLoaded(int64(l.Bytes), metrics.Facts{
			Quantization: l.Facts.Quantization, Architecture: l.Facts.Architecture, ContextTokens: l.Facts.ContextTokens})
	}
	t.reportSharedMemory(now, weights)
	t.reportedLoaded = now
	def := t.defaultModelVersion()
	f, ok := now[def]
	if ok {
		t.lastLoadedDefault = def
	}
	if ok && f.Facts.Cells > 0 {
		t.metrics.SetCacheConfig(1, f.Facts.Cells)
	}
}

// reportSharedMemory reports what the versions of a model share (weights, KV cache and compute buffers) under its base
// version, as long as any of them is loaded.
func (t *Table) reportSharedMemory(now map[modelVersion]Loaded, weights map[string]uint64) {
	for mv := range t.reportedLoaded {
		if _, ok := weights[mv.model]; !ok {
			t.metrics.Model(mv.model, api.BaseVersion).SetMemory(0)
		}
	}
	for model, bytes := range weights {
		if bytes > 0 {
			t.metrics.Model(model, api.BaseVersion).SetMemory(int64(bytes))
		}
	}
}

// reportAdapters reports which versions are loaded, and for which others requests wait, when that has changed. The
// names are those of the list of models: an endpoint picker compares them with the model that a request names.
func (t *Table) reportAdapters(now time.Time) {
	loaded, waiting := make(map[string]bool), make(map[string]bool)
	for _, e := range t.engines {
		for mv := range e.loaded {
			if mv.isAdapter() {
				loaded[t.catalog.listedID(mv)] = true
			}
		}
	}
	for _, en := range t.entries {
		mv := modelVersion{en.model, en.version}
		if id := t.catalog.listedID(mv); mv.isAdapter() && !loaded[id] {
			waiting[id] = true
		}
	}
	l, w := sortedKeys(loaded), sortedKeys(waiting)
	if report := joinNames([]string{strconv.Itoa(t.catalog.cacheSize)}, l, w); report != t.reportedAdapters {
		t.reportedAdapters = report
		t.metrics.SetAdapters(t.catalog.cacheSize, l, w, now)
	}
}

// sortedKeys returns the members of a set in order.
func sortedKeys(set map[string]bool) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// joinNames makes one string of lists of names, to see whether they changed.
func joinNames(lists ...[]string) string {
	var b strings.Builder
	for _, list := range lists {
		b.WriteString(strings.Join(list, ","))
		b.WriteByte('|')
	}
	return b.String()
}

// sweepMetrics has the series of models removed that no engine has any more. While no engine is attached, the last
// one's models count as present. It returns the removal, for the caller to run.
func (t *Table) sweepMetrics(now time.Time) (remove func()) {
	if !t.catalog.known() || now.Sub(t.metricsSweptAt) < metricsSweepInterval {
		return nil
	}
	t.metricsSweptAt = now
	t.sweepWork()
	return t.metrics.Sweep(func(model, version string) bool {
		mv := modelVersion{model, version}
		return t.catalog.versions[mv] || slices.ContainsFunc(t.engines, func(e *engine) bool { return e.catalog.versions[mv] })
	}, now)
}
