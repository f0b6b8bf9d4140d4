package inflight

import (
	"slices"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// Event implements EngineHandler.
func (d *Table) Event(link Engine, ev ModelEvent) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	p := pair{ev.Model, ev.Version}
	if !e.names.pairs[p] {
		return
	}
	mm := d.m.Model(p.model, p.version)
	switch ev.Kind { // the engine has logged what matters

	case EventLoading:
		e.loading[p] = now
	case EventProgress:
		if _, ok := e.loading[p]; !ok {
			e.loading[p] = now
		}
	case EventLoaded:
		delete(e.loading, p)
		delete(e.failed, p)
		e.loaded[p] = Loaded{Model: p.model, Version: p.version, Bytes: ev.Bytes, Facts: ev.Facts}
		d.refused.loaded(p)
		delete(d.short, p)
		mm.LoadTime(ev.Took)
		d.log.Debug("model loaded", "model", p.model, "version", p.version, "took", ev.Took, "bytes", ev.Bytes)
	case EventLoadFailed:
		delete(e.loading, p)
		mm.LoadFailed(ev.Reason)
		if f, again := e.failed[p]; again {
			e.failed[p] = failedLoad{reason: ev.Reason, since: f.since}
		} else {
			e.failed[p] = failedLoad{reason: ev.Reason, since: now}
		}
		d.log.Debug("model load failed", "model", p.model, "version", p.version, "reason", ev.Reason, "text", ev.Text)
	case EventEvicted:
		delete(e.loaded, p)
		mm.Evicted(ev.Reason)
	}
	d.readyNow()
	d.showLoaded()
	d.pump(now)
}

// Stats implements EngineHandler.
func (d *Table) Stats(link Engine, s *Stats) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	e.stats = append(e.stats[:0], s.Bases...)
	e.setCredit()
	d.m.Heartbeat(now)
	d.showLoad()
	d.pump(now)
	d.gauges()
}

// setCredit takes the sequences of every base from the newest stats; a base that isn't in them isn't loaded.
func (e *engine) setCredit() {
	for name, b := range e.bases {
		b.sequences = 0
		if b == (base{}) {
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

// Heartbeats implements EngineHandler. An overdue heartbeat is the supervisor's to judge; here it is only said once.
func (d *Table) Heartbeats(link Engine, list []Heartbeat) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	d.m.Heartbeat(time.Now())
	late := slices.IndexFunc(list, func(b Heartbeat) bool { return b.Budget > 0 && b.Age > b.Budget })
	if late >= 0 && !e.overdue {
		b := list[late]
		d.log.Error("engine makes no progress", "executor", b.Executor, "phase", b.Phase, "age", b.Age, "budget", b.Budget, "pid", e.hello.PID)
	}
	e.overdue = late >= 0
}

// defaultProblem is why the default model can't be loaded, as far as that counts: broken files at once, what may pass only when it lasts,
// once the model has served.
func (d *Table) defaultProblem(def pair, now time.Time) string {
	if problem := d.names.problem(def); problem != "" {
		return problem
	}
	if d.refused.load(def, now) > 0 {
		return "engine_crash"
	}
	for _, e := range d.engines {
		if f, failed := e.failed[def]; failed && (d.served != def || now.Sub(f.since) >= d.o.EngineWait) {
			return f.reason
		}
	}
	return ""
}

// showLoad tells the metrics what all engines do.
func (d *Table) showLoad() {
	var l metrics.EngineLoad
	for _, e := range d.engines {
		for _, b := range e.stats {
			l.Waiting += b.Waiting
			l.Running += b.Prefilling + b.Decoding
			if b.Cells > 0 {
				l.KVUsage = max(l.KVUsage, 1-float64(b.FreeCells)/float64(b.Cells))
			}
		}
	}
	d.m.SetEngineLoad(l)
}

// showLoaded tells the metrics what is loaded at any engine, and what isn't any more.
func (d *Table) showLoaded() {
	now := d.loadedNow()
	for p := range d.shown {
		if _, ok := now[p]; !ok {
			d.m.Model(p.model, p.version).SetUnloaded()
		}
	}
	weights := make(map[string]uint64)
	for p, l := range now {
		weights[p.model] = max(weights[p.model], l.Facts.WeightBytes+l.Facts.CacheBytes)
		if old, ok := d.shown[p]; ok && old == l {
			continue
		}
		d.m.Model(p.model, p.version).SetLoaded(int64(l.Bytes), metrics.Facts{
			Quantization: l.Facts.Quantization, Architecture: l.Facts.Architecture, ContextTokens: l.Facts.ContextTokens})
	}
	d.showWeights(now, weights)
	d.shown = now
	def := d.defaultPair()
	f, ok := now[def]
	if ok {
		d.served = def
	}
	if ok && f.Facts.Cells > 0 {
		d.m.SetCacheConfig(1, f.Facts.Cells)
	}
}

// showWeights puts what the versions of a model share, weights, KV cache and compute buffers, under its base version, as long as any of
// them is loaded.
func (d *Table) showWeights(now map[pair]Loaded, weights map[string]uint64) {
	for p := range d.shown {
		if _, ok := weights[p.model]; !ok {
			d.m.Model(p.model, api.BaseVersion).SetMemory(0)
		}
	}
	for model, bytes := range weights {
		if bytes > 0 {
			d.m.Model(model, api.BaseVersion).SetMemory(int64(bytes))
		}
	}
}

// loadedNow is what is loaded at any engine; where two have it, as the newer one says.
func (d *Table) loadedNow() map[pair]Loaded {
	all := make(map[pair]Loaded)
	for _, e := range d.engines {
		for p, l := range e.loaded {
			all[p] = l
		}
	}
	return all
}

func (d *Table) defaultPair() pair {
	if !d.names.known() {
		return pair{}
	}
	model, version, err := d.names.resolve(d.o, "", "")
	if err != nil {
		return pair{}
	}
	return pair{model, version}
}

// showAdapters tells the metrics which versions run and wait.
func (d *Table) showAdapters(now time.Time) {
	running, waiting := make(map[string]bool), make(map[string]bool)
	for _, en := range d.entries {
		if en.version == "" || en.version == api.BaseVersion {
			continue
		}
		name := pair{en.model, en.version}.String()
		if en.state == streaming {
			running[name] = true
		} else {
			waiting[name] = true
		}
	}
	r, w := keys(running), keys(waiting)
	if said := join(r, w); said != d.adapters {
		d.adapters = said
		d.m.SetAdapters(d.names.cacheSize, r, w, now)
	}
}

func keys(set map[string]bool) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
