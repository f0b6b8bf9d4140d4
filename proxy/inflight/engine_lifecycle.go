package inflight

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"tandem/proxy/metrics"
)

// engine is one attached engine as the request table sees it.
type engine struct {
	conn       Engine
	hello      Hello
	number     uint64 // of its process; newer ones have higher ones
	attachedAt time.Time
	catalog    catalog // unknown until the first one came
	cacheSize  int
	loaded     map[modelVersion]Loaded
	loading    map[modelVersion]time.Time // since when
	failed     map[modelVersion]failedLoad
	stats      []BaseStats

	bases              map[string]baseCounts
	requests           int    // that are at the engine
	awaitingFirstToken int    // of them, those without a token from this engine
	calls              int    // that use its models' vocabularies, under way
	suspect            *entry // a suspect that has no token from it yet
	madeProgress       bool   // it gave a token or finished an answer

	isRestart          bool // another engine process was attached before
	draining           bool
	expectsReplacement bool // another engine is to take its place
	moving             bool // was asked to give all its requests back, or began to unasked
	moved              bool // has given them back
	drained            bool // was told that it may go
	heartbeatOverdue   bool // a heartbeat is older than its budget
	protocolBroken     bool // we closed its connection; frames that still come are ignored
}

// failedLoad is a load that failed, without a successful one since.
type failedLoad struct {
	reason string
	since  time.Time // of the first failure
}

// reasonOutOfMemory is the reason of a load for which there was no memory; its engine tries it again.
const reasonOutOfMemory = "out_of_memory"

// baseCounts are the numbers of one base model at an engine.
type baseCounts struct{ sequences, outstanding, replays int }

// serves reports whether the engine can be given requests for mv.
func (e *engine) serves(mv modelVersion) bool {
	return e.catalog.versions[mv] && !e.protocolBroken && !e.moving && !e.drained
}

// engineOf returns the engine of a connection, or nil when it isn't attached any more.
func (t *Table) engineOf(conn Engine) *engine {
	for _, e := range t.engines {
		if e.conn == conn {
			return e
		}
	}
	return nil
}

// engineForFrame is engineOf for a frame that came. It returns nil, for a frame to be dropped, also when the engine
// broke the protocol.
func (t *Table) engineForFrame(conn Engine) *engine {
	e := t.engineOf(conn)
	if e == nil || e.protocolBroken {
		t.metrics.FrameDropped("stale_connection")
		return nil
	}
	return e
}

// hangup ends the connection to an engine that broke the protocol. Its requests come back with Lost.
func (t *Table) hangup(e *engine, reason string) {
	t.log.Error("engine broke the protocol, closing its connection", "reason", reason, "pid", e.hello.PID)
	e.protocolBroken = true
	e.conn.Hangup(reason)
}

// Attached implements EngineHandler.
func (t *Table) Attached(conn Engine, h Hello) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.lastHello
	e := &engine{
		conn: conn, hello: h, attachedAt: now, loaded: make(map[modelVersion]Loaded), loading: make(map[modelVersion]time.Time),
		failed: make(map[modelVersion]failedLoad), bases: make(map[string]baseCounts),
	}
	t.engines = append(t.engines, e)
	t.lastHello, t.disconnectedSince = h, time.Time{}
	t.updateUnavailableSince(now)
	t.metrics.EngineUp(metrics.EngineInfo{Build: h.Build, LibraryCommit: h.LibraryCommit, Backend: h.Device, Schema: "1"})
	t.log.Info("engine attached", "build", h.Build, "device", h.Device, "pid", h.PID, "instance", h.Instance)
	if before.Instance != 0 && before.Numerics != h.Numerics {
		t.log.Warn("this engine may compute other tokens than the one before: answers that it continues may differ from undisturbed ones",
			"numerics", h.Numerics, "before", before.Numerics)
		t.forgetSpeeds()
	}
	number, again := t.instances.attached(h.Instance, now)
	switch e.number = number; {
	case again:
		t.metrics.Reconnected()
	case before.Instance != 0:
		e.isRestart = true
		t.metrics.EngineRestarted(t.restartReason(h))
	}
	clear(t.memoryShortages)
	switch {
	case !again:
		t.attributeCrash(h, now)
	case t.lastLost.instance == h.Instance: // it lives
		t.lastLost = lostEngine{}
	}
	t.dispatch(now)
}

// restartReason returns why a new engine process attached: the first one of its supervisor comes to take the place of
// another one that is attached.
func (t *Table) restartReason(h Hello) string {
	if len(t.engines) > 1 && h.LastExit.Kind == ExitNone {
		return "upgrade"
	}
	return h.LastExit.restartReason()
}

// Lost implements EngineHandler. The engine's requests stay and wait for the next engine, each with a new attempt
// number.
func (t *Table) Lost(conn Engine, l Loss) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineOf(conn)
	if e == nil {
		return
	}
	t.engines = slices.DeleteFunc(t.engines, func(x *engine) bool { return x == e })
	t.instances.lost(e.hello.Instance, now)
	t.updateUnavailableSince(now)
	t.chooseCatalog()
	t.noteEnginesChanged()
	for _, w := range t.work {
		w.Interrupt()
	}
	requests := t.requestsAt(e)
	level := slog.LevelWarn
	if e.drained || t.draining {
		level = slog.LevelInfo // it was expected to
	}
	attrs := []slog.Attr{slog.String("reason", l.Reason), slog.Int("pid", e.hello.PID), slog.Int("requests", len(requests))}
	if l.Err != nil {
		attrs = append(attrs, slog.Any("error", l.Err))
	}
	t.log.LogAttrs(context.Background(), level, "engine lost", attrs...)
	t.lastLost = lostEngine{instance: e.hello.Instance, attachedFor: now.Sub(e.attachedAt), madeProgress: e.madeProgress, loaded: e.loaded}
	for _, en := range requests {
		if !en.hasTokenHere {
			t.lastLost.candidates = append(t.lastLost.candidates, crashCandidate{en, en.sentAlone})
		}
		t.requeue(en, now)
	}
	if len(t.engines) == 0 {
		t.disconnectedSince = now
		t.metrics.EngineLost()
		clear(t.reportedLoaded)
		if t.outage.since.IsZero() {
			t.outage = outage{since: now}
		}
		t.outage.readyAt = time.Time{}
		t.outage.hadRequests = t.outage.hadRequests || len(t.entries) > 0
	}
	t.presumeCrash(e, now)
	t.reportLoadedModels()
	t.reportEngineLoad()
	t.failOrphans(now)
	t.dispatch(now)
	t.advanceDraining()
	t.updateGauges()
}

// requestsAt returns the requests that are at an engine, oldest first.
func (t *Table) requestsAt(e *engine) []*entry {
	var requests []*entry
	for _, en := range t.entries {
		if en.engine == e {
			requests = append(requests, en)
		}
	}
	slices.SortFunc(requests, byOrder)
	return requests
}

// noteReadyAfterOutage is called when an engine has listed its models, or a load has begun or ended. The default model
// is what the next engine loads by itself; until it has, it couldn't serve a request.
func (t *Table) noteReadyAfterOutage(now time.Time) {
	switch {
	case t.outage.since.IsZero() || !t.outage.readyAt.IsZero() || t.isDefaultOnItsWay():
	case !t.outage.hadRequests:
		t.endOutage(now)
	default:
		t.outage.readyAt = now
		t.endOutageWithoutRequests()
	}
}

// isDefaultOnItsWay reports whether an engine loads the default model, or waits for memory to do so.
func (t *Table) isDefaultOnItsWay() bool {
	def := t.defaultModelVersion()
	return slices.ContainsFunc(t.engines, func(e *engine) bool {
		return e.isLoading(def) || e.failed[def].reason == reasonOutOfMemory
	})
}

// isLoading reports whether a version is being loaded.
func (e *engine) isLoading(mv modelVersion) bool {
	_, loading := e.loading[mv]
	return loading
}

// endOutageWithoutRequests ends the time without an engine when one could serve and none of the requests is left that
// waited for it: the next token may be hours away.
func (t *Table) endOutageWithoutRequests() {
	if len(t.entries) == 0 && !t.outage.readyAt.IsZero() {
		t.endOutage(t.outage.readyAt)
	}
}

// endOutage ends the time without an engine and records how long it was.
func (t *Table) endOutage(now time.Time) {
	t.metrics.EngineRecovered(now.Sub(t.outage.since))
	t.outage = outage{}
}

// updateUnavailableSince brings unavailableSince up to date after engines came, went or began to drain.
func (t *Table) updateUnavailableSince(now time.Time) {
	switch {
	case slices.ContainsFunc(t.engines, func(e *engine) bool { return !e.draining }):
		t.unavailableSince = time.Time{}
	case t.unavailableSince.IsZero():
		t.unavailableSince = now
	}
}
