package inflight

import (
	"slices"
	"time"

	"tandem/proxy/api"
)

// Numbers of crashes after which a request or model is treated with care, or refused.
const (
	suspectAfterStrikes        = 2 // then a request is a suspect and is sent alone
	quarantineAfterStrikes     = 3 // then, with the last crash while it was alone at the engine, a request is refused
	quarantineAfterLoadCrashes = 2 // crashes inside its load; then a model is refused
)

// lostEngine is what is known about the engine that was lost last, until the next one reports how it died.
type lostEngine struct {
	instance           uint64
	attachedFor        time.Duration
	madeProgress       bool
	loaded             map[modelVersion]Loaded // as it had reported
	countedInCrashLoop bool
	candidates         []crashCandidate
}

// crashCandidate is a request that was at an engine when it died and had got no token there.
type crashCandidate struct {
	en        *entry
	sentAlone bool
}

// attributeCrash reads in a new engine's hello how the one before it died, and counts that against what may have caused
// it: the models that were being loaded, or the requests that got no token there.
func (t *Table) attributeCrash(h Hello, now time.Time) {
	prev := t.lastLost
	t.lastLost = lostEngine{}
	if prev.instance == 0 || !h.LastExit.isAttributable() || !h.LastExit.matchesUptime(prev.attachedFor) {
		return
	}
	if !prev.madeProgress && !prev.countedInCrashLoop {
		t.crashLoop.recordDeath(now)
	}
	t.assignBlame(&prev, prev.loadsInProgress(h.LastExit.Loads), now)
	t.failWaitingInCrashLoop(now)
}

// assignBlame counts a crash against the loads that were in progress, the requests, or both.
func (t *Table) assignBlame(prev *lostEngine, loads []modelVersion, now time.Time) {
	var atWork []crashCandidate // without those that waited for one of the loads
	hadStrikes := false
	for _, c := range prev.candidates {
		if !slices.Contains(loads, modelVersion{c.en.model, c.en.version}) {
			atWork = append(atWork, c)
			hadStrikes = hadStrikes || c.en.strikes > 0
		}
	}
	// With both a load and a request, the cause is ambiguous, unless only the load was suspected before.
	ambiguous := len(loads) > 0 && len(atWork) > 0 && (hadStrikes || !slices.ContainsFunc(loads, t.quarantine.isSuspectLoad))
	if ambiguous || len(loads) == 0 {
		for _, c := range atWork {
			t.addStrike(c, ambiguous, now)
		}
	}
	t.blameLoads(loads, ambiguous, now)
}

// presumeCrash counts the loss of an engine without progress as a crash when one more makes a crash loop: its
// supervisor gives up then, so that no next engine comes and reports how this one died.
func (t *Table) presumeCrash(e *engine, now time.Time) {
	if e.madeProgress || e.draining || !t.crashLoop.oneDeathAway(now) {
		return
	}
	t.crashLoop.recordDeath(now)
	t.lastLost.countedInCrashLoop = true
	t.failWaitingInCrashLoop(now)
}

// failWaitingInCrashLoop answers waiting requests with an error when engines crash one after the other.
func (t *Table) failWaitingInCrashLoop(now time.Time) {
	if t.crashLoop.isActive(now) {
		t.log.Error("engines die without progress, ending what waits", "deaths", crashLoopDeaths, "window", crashLoopWindow)
		t.failWaiting(now)
	}
}

// addStrike counts a crash against a request that may have caused it. With enough strikes the request becomes a
// suspect, then it is quarantined. An ambiguous crash never leads to quarantine, nor does one with anything else at the
// engine: requests that had their first token, and calls, may have caused it as well.
func (t *Table) addStrike(c crashCandidate, ambiguous bool, now time.Time) {
	en := c.en
	if en.state != waiting && en.state != suspect {
		return
	}
	en.strikes++
	switch {
	case en.strikes >= quarantineAfterStrikes && c.sentAlone && !ambiguous:
		t.log.Error("request killed the engine repeatedly and is refused from now on", "request_id", en.req.ID, "deaths", en.strikes, "for", t.options.QuarantineTTL)
		t.quarantine.addRequest(en.model, en.version, en.req.Infer, now.Add(t.options.QuarantineTTL))
		t.metrics.Quarantined()
		en.replayPending = true
		t.finish(en, nil, api.Quarantined(), now)
	case en.strikes >= suspectAfterStrikes:
		t.queue.Remove(en.id)
		en.apply(suspected)
		t.queue.PushAdmitted(en.item())
	}
}

// loadsInProgress returns the loads in which an engine died. The supervisor's list may be a moment old, so those that
// the engine had reported as loaded are left out.
func (prev *lostEngine) loadsInProgress(reported []Load) []modelVersion {
	var loads []modelVersion
	for _, l := range reported {
		mv := modelVersion{l.Model, l.Version}
		if _, loaded := prev.loaded[mv]; !loaded {
			loads = append(loads, mv)
		}
	}
	return loads
}

// blameLoads counts a crash against the models that were being loaded. A single one caused it; with several, or when
// the cause is ambiguous, none is quarantined for it, but each is loaded alone from now on, so that the next crash
// shows which one it is.
func (t *Table) blameLoads(loads []modelVersion, ambiguous bool, now time.Time) {
	for _, mv := range loads {
		failures, quarantined := t.quarantine.recordLoadCrash(mv, len(loads) == 1 && !ambiguous, now, t.options.QuarantineTTL)
		for range failures {
			t.metrics.Model(mv.model, mv.version).LoadFailed("engine_crash")
		}
		if quarantined {
			t.quarantineModel(mv, now)
		}
	}
}

// quarantineModel answers the requests that wait for a model in whose loads engines crashed.
func (t *Table) quarantineModel(mv modelVersion, now time.Time) {
	t.log.Error("engines died loading a model, it is refused from now on", "model", mv.model, "version", mv.version, "for", t.options.QuarantineTTL)
	for _, en := range t.entriesByOrder() {
		if !en.state.atEngine() && en.model == mv.model && en.version == mv.version {
			t.finish(en, nil, api.ModelLoadFailed(mv.model, mv.version, "engine_crash", t.options.QuarantineTTL), now)
		}
	}
}

// failWaiting answers every request that waits for an engine with an error.
func (t *Table) failWaiting(now time.Time) {
	for _, en := range t.entriesByOrder() {
		switch {
		case en.state.atEngine():
		case en.firstSentAt.IsZero():
			t.finish(en, nil, api.EngineUnavailable(crashLoopWindow), now)
		default:
			t.finish(en, nil, api.EngineCrashed(crashLoopWindow), now)
		}
	}
}
