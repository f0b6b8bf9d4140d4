package inflight

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// engine is one attached engine as the request table sees it.
type engine struct {
	link       Engine
	hello      Hello
	attachedAt time.Time
	names      catalog // unknown until the first one came
	cacheSize  int
	loaded     map[pair]Loaded
	loading    map[pair]time.Time // since when
	failed     map[pair]failedLoad
	stats      []BaseStats

	bases       map[string]base
	count       int    // requests there
	tokenless   int    // of them, without a token there
	replayBytes int64  // of frames that it hasn't accepted yet
	suspect     *entry // at work alone, without a token yet
	progress    bool   // it gave a token or finished a request

	restarted   bool // came after another one
	draining    bool
	replacement bool // another one is expected
	moving      bool // was asked to give everything back
	moved       bool // and did
	drained     bool // was told to go
	overdue     bool // a heartbeat is older than its budget
	broken      bool // was hung up on; what still comes is ignored
}

// failedLoad is a load that came to nothing, and none since did better.
type failedLoad struct {
	reason string
	since  time.Time // the first of them
}

// base is what is at an engine for one base model.
type base struct{ sequences, outstanding, replays int }

// serves tells whether the engine can be given requests for p.
func (e *engine) serves(p pair) bool { return e.names.pairs[p] && !e.broken && !e.moving && !e.drained }

// find gives the engine of a link, nil when it isn't attached any more.
func (d *Table) find(link Engine) *engine {
	for _, e := range d.engines {
		if e.link == link {
			return e
		}
	}
	return nil
}

// live is find for frames: what an engine says after it broke the protocol doesn't count.
func (d *Table) live(link Engine) *engine {
	e := d.find(link)
	if e == nil || e.broken {
		d.m.FrameDropped("stale_connection")
		return nil
	}
	return e
}

func (d *Table) newest() *engine {
	if len(d.engines) == 0 {
		return nil
	}
	return d.engines[len(d.engines)-1]
}

// hangup ends the connection to an engine that broke the protocol. Its requests come back with Lost.
func (d *Table) hangup(e *engine, reason string) {
	d.log.Error("engine broke the protocol, closing its connection", "reason", reason, "pid", e.hello.PID)
	e.broken = true
	e.link.Hangup(reason)
}

// Attached implements EngineHandler.
func (d *Table) Attached(link Engine, h Hello) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.last
	e := &engine{link: link, hello: h, attachedAt: now, loaded: make(map[pair]Loaded), loading: make(map[pair]time.Time), failed: make(map[pair]failedLoad), bases: make(map[string]base)}
	d.engines = append(d.engines, e)
	d.last, d.awaySince = h, time.Time{}
	d.noteVacancy(now)
	d.m.EngineUp(metrics.EngineInfo{Build: h.Build, LibraryCommit: h.LibraryCommit, Backend: h.Device, Schema: "1"})
	d.log.Info("engine attached", "build", h.Build, "device", h.Device, "pid", h.PID, "instance", h.Instance)
	if before.Instance != 0 && before.Numerics != h.Numerics {
		d.log.Warn("this engine may compute other tokens than the one before: answers that it continues may differ from undisturbed ones",
			"numerics", h.Numerics, "before", before.Numerics)
	}
	switch before.Instance {
	case 0:
	case h.Instance:
		d.m.Reconnected()
	default:
		e.restarted = true
		d.m.EngineRestarted(d.restartReason(h))
	}
	clear(d.short)
	d.inquest(h, now)
	d.pump(now)
}

// restartReason of an engine that comes as a new process: beside another one it is there to take its place.
func (d *Table) restartReason(h Hello) string {
	if len(d.engines) > 1 {
		return "upgrade"
	}
	return h.LastExit.restartReason()
}

// Lost implements EngineHandler. Requests stay; they wait for the next engine under a new attempt.
func (d *Table) Lost(link Engine, l Loss) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.find(link)
	if e == nil {
		return
	}
	d.engines = slices.DeleteFunc(d.engines, func(x *engine) bool { return x == e })
	d.noteVacancy(now)
	there := d.thereAt(e)
	level := slog.LevelWarn
	if e.drained || d.draining {
		level = slog.LevelInfo // it was to go
	}
	attrs := []slog.Attr{slog.String("reason", l.Reason), slog.Int("pid", e.hello.PID), slog.Int("requests", len(there))}
	if l.Err != nil {
		attrs = append(attrs, slog.Any("error", l.Err))
	}
	d.log.LogAttrs(context.Background(), level, "engine lost", attrs...)
	d.graves = grave{instance: e.hello.Instance, attachedFor: now.Sub(e.attachedAt), progress: e.progress, loaded: e.loaded}
	for _, en := range there {
		if !en.gainedHere {
			d.graves.near = append(d.graves.near, mourner{en, en.alone})
		}
		d.requeue(en, now)
	}
	if len(d.engines) == 0 {
		d.awaySince = now
		d.m.EngineLost()
		clear(d.shown)
		if d.outage.since.IsZero() {
			d.outage = outage{since: now}
		}
		d.outage.work = d.outage.work || len(d.entries) > 0
	}
	d.presume(e, now)
	d.showLoaded()
	d.showLoad()
	d.orphans(now)
	d.pump(now)
	d.dismiss()
	d.gauges()
}

// thereAt are the requests at an engine, oldest first.
func (d *Table) thereAt(e *engine) []*entry {
	var there []*entry
	for _, en := range d.entries {
		if en.at == e {
			there = append(there, en)
		}
	}
	slices.SortFunc(there, byOrder)
	return there
}

// Catalog implements EngineHandler.
func (d *Table) Catalog(link Engine, c *Catalog) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	e.names = newCatalog(c)
	e.cacheSize = c.CacheSize
	for p := range e.names.pairs {
		d.m.RegisterModel(p.model, p.version)
	}
	for _, m := range e.names.models {
		if m.Domain != "" {
			d.m.AllowDomain(m.Domain)
		}
	}
	e.setLoaded(c.Loaded, now)
	if e == d.newest() {
		d.names = e.names
		d.m.SetCacheSize(c.CacheSize)
	}
	d.readyNow()
	if !d.outage.since.IsZero() && !d.outage.work {
		d.recovered(now)
	}
	d.resolveWaiting(now)
	d.orphans(now)
	d.showLoaded()
	d.dismiss()
	d.pump(now)
	d.gauges()
}

// readyNow notes that an engine could serve: it has said what it has, and isn't just loading the default model.
func (d *Table) readyNow() {
	def := d.defaultPair()
	if d.everReady || !d.names.known() || slices.ContainsFunc(d.engines, func(e *engine) bool { _, loading := e.loading[def]; return loading }) {
		return
	}
	d.everReady = true
}

// setLoaded takes over what an engine says is in its cache.
func (e *engine) setLoaded(list []Loaded, now time.Time) {
	clear(e.loaded)
	loading := make(map[pair]time.Time)
	for _, l := range list {
		p := pair{l.Model, l.Version}
		if !e.names.pairs[p] {
			continue
		}
		if !l.Loading {
			e.loaded[p] = l
			delete(e.failed, p)
			continue
		}
		loading[p] = now
		if since, ok := e.loading[p]; ok {
			loading[p] = since
		}
	}
	e.loading = loading
}

// resolveWaiting gives requests that came before any list of models their model.
func (d *Table) resolveWaiting(now time.Time) {
	for _, it := range d.queue.TakeBase("") {
		en := d.entries[it.ID]
		before := en.mm
		if err := d.resolve(en, now); err != nil {
			d.finish(en, nil, err, now)
			continue
		}
		before.Release()
		en.mm.Hold()
		d.queue.Push(en.item())
	}
}

// orphans ends waiting requests whose model no engine has any more, once every attached engine has said what it has.
func (d *Table) orphans(now time.Time) {
	if len(d.engines) == 0 || slices.ContainsFunc(d.engines, func(e *engine) bool {
		return !e.names.known() || e.broken || e.moving || e.draining && !d.draining // what leaves may come again
	}) {
		return
	}
	for _, en := range d.sorted() {
		if en.state.atEngine() || en.model == "" || d.target(pair{en.model, en.version}) != nil {
			continue
		}
		if en.accepted {
			d.finish(en, nil, api.ModelChanged(en.model, en.version), now)
		} else if _, _, err := d.names.resolve(d.o, en.model, en.version); err != nil {
			d.finish(en, nil, err, now)
		}
	}
}

// sorted are all requests that aren't done, oldest first.
func (d *Table) sorted() []*entry {
	all := make([]*entry, 0, len(d.entries))
	for _, en := range d.entries {
		all = append(all, en)
	}
	slices.SortFunc(all, byOrder)
	return all
}

func byOrder(a, b *entry) int {
	if a.order < b.order {
		return -1
	}
	return 1
}

// recovered ends an outage.
func (d *Table) recovered(now time.Time) {
	d.m.EngineRecovered(now.Sub(d.outage.since))
	d.outage = outage{}
}

// noteVacancy notes since when no engine takes new requests.
func (d *Table) noteVacancy(now time.Time) {
	switch {
	case slices.ContainsFunc(d.engines, func(e *engine) bool { return !e.draining }):
		d.vacant = time.Time{}
	case d.vacant.IsZero():
		d.vacant = now
	}
}

// Draining implements EngineHandler.
func (d *Table) Draining(link Engine, grace time.Duration, replacement bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	d.log.Info("engine drains", "pid", e.hello.PID, "grace", grace, "replacement", replacement)
	now := time.Now()
	e.draining, e.replacement = true, replacement
	d.noteVacancy(now)
	d.dismiss()
	d.pump(now)
}

// Moved implements EngineHandler: everything that the engine had came back.
func (d *Table) Moved(link Engine) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	for _, en := range d.thereAt(e) {
		d.requeue(en, now)
	}
	e.moved = true
	d.dismiss()
	d.pump(now)
}

// dismiss tells draining engines what to do: to hand their requests back when another engine takes them, and to go when nothing of
// theirs is left. What waits then waits for the next engine. A proxy that drains itself lets them finish everything.
func (d *Table) dismiss() {
	for _, e := range d.engines {
		if !e.draining || e.drained || e.broken {
			continue
		}
		other := slices.ContainsFunc(d.engines, func(x *engine) bool { return x != e && !x.draining && !x.broken && x.names.known() })
		if !d.draining && !e.moving && (other || e.replacement) && e.count > 0 {
			e.moving = true
			e.link.Move()
		}
		if e.count > 0 || e.moving && !e.moved {
			continue
		}
		if other || !d.draining || len(d.entries) == 0 {
			e.drained = true
			e.link.Drained()
		}
	}
}
