package inflight

import (
	"slices"
	"time"
)

// Event implements EngineHandler.
func (t *Table) Event(conn Engine, ev ModelEvent) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	mv := modelVersion{ev.Model, ev.Version}
	if !e.catalog.versions[mv] {
		return
	}
	modelMetrics := t.metrics.Model(mv.model, mv.version)
	switch ev.Kind { // the engine's own log has the details, so ours are at level debug
	case EventLoading:
		e.loading[mv] = now
	case EventProgress:
		if _, ok := e.loading[mv]; !ok {
			e.loading[mv] = now
		}
	case EventLoaded:
		delete(e.loading, mv)
		delete(e.failed, mv)
		e.loaded[mv] = Loaded{Model: mv.model, Version: mv.version, Bytes: ev.Bytes, Facts: ev.Facts}
		t.quarantine.loadSucceeded(mv)
		delete(t.memoryShortages, mv)
		modelMetrics.LoadTime(ev.Took)
		t.log.Debug("model loaded", "model", mv.model, "version", mv.version, "took", ev.Took, "bytes", ev.Bytes)
	case EventLoadFailed:
		delete(e.loading, mv)
		modelMetrics.LoadFailed(ev.Reason)
		if f, again := e.failed[mv]; again {
			e.failed[mv] = failedLoad{reason: ev.Reason, since: f.since}
		} else {
			e.failed[mv] = failedLoad{reason: ev.Reason, since: now}
		}
		t.log.Debug("model load failed", "model", mv.model, "version", mv.version, "reason", ev.Reason, "text", ev.Text)
	case EventEvicted:
		delete(e.loaded, mv)
		modelMetrics.Evicted(ev.Reason)
	}
	t.updateEverReady()
	t.noteReadyAfterOutage(now)
	t.reportLoadedModels()
	t.dispatch(now)
}

// Stats implements EngineHandler.
func (t *Table) Stats(conn Engine, s *Stats) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	e.stats = append(e.stats[:0], s.Bases...)
	e.setCredit()
	t.metrics.Heartbeat(now)
	t.reportEngineLoad()
	t.dispatch(now)
	t.updateGauges()
}

// setCredit takes the number of sequences of every base from the newest stats; a base that isn't in them isn't loaded.
func (e *engine) setCredit() {
	for name, b := range e.bases {
		b.sequences = 0
		if b == (baseCounts{}) {
			delete(e.bases, name)
			continue
		}
		e.bases[name] = b
	}
	for _, s := range e.stats {
		b := e.bases[s.Model]
		b.sequences += s.Sequences
		e.bases[s.Model] = b
	}
}

// Heartbeats implements EngineHandler. What an overdue heartbeat leads to is for the supervisor to decide; here it is
// only logged, once.
func (t *Table) Heartbeats(conn Engine, list []Heartbeat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	t.metrics.Heartbeat(time.Now())
	late := slices.IndexFunc(list, func(b Heartbeat) bool { return b.Budget > 0 && b.Age > b.Budget })
	if late >= 0 && !e.heartbeatOverdue {
		b := list[late]
		t.log.Error("engine makes no progress", "executor", b.Executor, "phase", b.Phase, "age", b.Age, "budget", b.Budget, "pid", e.hello.PID)
	}
	e.heartbeatOverdue = late >= 0
}
