package inflight

import (
	"slices"
	"time"

	"tandem/proxy/queue"
)

// targetEngine returns the engine that a request for a model goes to: the newest that lists it and isn't draining. Nil:
// none can serve it now. A draining engine finishes what it has. It gets waiting requests only while the proxy drains
// as well, since no other engine is expected then.
func (t *Table) targetEngine(mv modelVersion) *engine {
	var leaving *engine
	for _, e := range slices.Backward(t.engines) {
		switch {
		case !e.serves(mv):
		case !e.draining:
			return e
		case leaving == nil && t.draining:
			leaving = e
		}
	}
	return leaving
}

// dispatch sends waiting requests to engines for as long as there is credit. The caller holds mu.
func (t *Table) dispatch(now time.Time) {
	t.trySuspects(now)
	for t.queue.Len() > 0 && len(t.engines) > 0 {
		it, ok := t.queue.Next(t.dispatchVerdict)
		if !ok {
			return
		}
		en := t.entries[it.ID]
		if t.refuseHopeless(en, now) {
			continue
		}
		t.send(t.targetEngine(modelVersion{en.model, en.version}), en, now)
	}
}

// trySuspects sends an engine that has nothing to do the oldest request of those with enough strikes for quarantine,
// before everything else: a crash with nothing beside it shows who did it, and a token clears the request. An engine
// that works isn't kept from it for that; the next one after a crash has nothing to do.
func (t *Table) trySuspects(now time.Time) {
	if !t.queue.Has(queue.Suspect) {
		return
	}
	for _, en := range t.entriesByOrder() {
		if en.state != suspect || en.strikes < quarantineAfterStrikes {
			continue
		}
		e := t.targetEngine(modelVersion{en.model, en.version})
		if e == nil || e.requests > 0 || t.dispatchVerdict(en.item()) != queue.Dispatch {
			continue
		}
		t.queue.Remove(en.id)
		t.send(e, en, now)
	}
}

// dispatchVerdict decides whether a waiting item may go now, by the credit of the engine that it would go to.
func (t *Table) dispatchVerdict(it queue.Item) queue.Verdict {
	mv := modelVersion{it.Base, it.Version}
	e := t.targetEngine(mv)
	if e == nil {
		return queue.SkipBase
	}
	if t.lacksMemoryFor(mv) {
		return queue.SkipItem
	}
	base := e.bases[it.Base]
	c := credit{
		contended: it.Class == queue.Fresh && t.queue.Shares(it.Base).Contended(),
		sequences: base.sequences, outstanding: base.outstanding, replaysSent: base.replays,
		awaitingFirstToken: e.awaitingFirstToken, suspectSent: e.suspect != nil, backlogBytes: int64(e.conn.Backlog()),
		replaysWaiting: t.queue.HasBase(queue.Replay, it.Base),
	}
	if c.replaysWaiting && len(t.memoryShortages) > 0 {
		c.replaysWaiting = t.hasWaitingReplays(mv)
	}
	if most := mostKeptFree(base.sequences); most > 0 && it.Class == queue.Fresh && base.outstanding >= base.sequences-most {
		account := t.queue.Account(it.Base, it.Key, it.Weight)
		c.keptFree = t.queue.Shares(it.Base).Expected(account, base.sequences, most)
	}
	c.itemBytes = t.entries[it.ID].sendBytes()
	for other := range e.loading {
		c.otherLoading = c.otherLoading || other != mv
	}
	if len(t.quarantine.loads) > 0 {
		t.isolateSuspectLoads(&c, e, mv)
	}
	return c.verdict(it.Class)
}

// isolateSuspectLoads fills in what concerns suspect loads, those in which engines may have crashed. Each begins when
// no other request waits for its first token, and no other load begins beside it, so that the next crash shows which
// load it was.
func (t *Table) isolateSuspectLoads(c *credit, e *engine, mv modelVersion) {
	_, loaded := e.loaded[mv]
	_, loading := e.loading[mv]
	c.suspectLoad = t.quarantine.isSuspectLoad(mv) && !loading && !loaded
	for _, en := range t.entries {
		other := modelVersion{en.model, en.version}
		switch {
		case other == mv:
		case en.engine == e && !en.hasTokenHere:
			c.othersAwaitFirstToken = true
			c.otherSuspectLoad = c.otherSuspectLoad || !loaded && t.quarantine.isSuspectLoad(other)
		case en.state == waiting && !t.quarantine.isSuspectLoad(other):
			c.othersWaiting = true
		}
	}
}

// send hands a request to an engine.
func (t *Table) send(e *engine, en *entry, now time.Time) {
	isReplay := en.wasRequeued()
	if en.firstSentAt.IsZero() {
		en.firstSentAt = now
	}
	isSuspect := en.state == suspect
	en.sentAlone = isSuspect && e.requests == 0 && e.calls == 0
	en.chargeKey()
	en.apply(dispatched)
	en.engine, en.sentAt, en.hasTokenHere = e, now, false
	base := e.bases[en.model]
	base.outstanding++
	e.awaitingFirstToken++
	e.requests++
	if isSuspect {
		e.suspect = en
	}
	if isReplay {
		en.replayPending = true
		base.replays++
		t.log.Debug("request is sent again", "request_id", en.req.ID, "attempt", en.attempt, "pid", e.hello.PID, "tokens", len(en.rec.Generated),
			"held", en.rec.HeldTokens, "constrained", en.rec.Grammar != "", "alone", en.sentAlone)
	}
	e.bases[en.model] = base
	if !e.conn.Infer(en.submission(now, t.options.ReplaySteps)) {
		t.finish(en, nil, en.oversizeError(), now)
	}
}

// noteFirstToken is called at a request's first token at its engine, or at its end there without one: from then on it
// no longer counts as a possible cause of a crash.
func (t *Table) noteFirstToken(en *entry) {
	if en.hasTokenHere {
		return
	}
	en.hasTokenHere = true
	e := en.engine
	base := e.bases[en.model]
	e.awaitingFirstToken--
	if en.wasRequeued() {
		base.replays--
	}
	e.bases[en.model] = base
	if e.suspect == en {
		e.suspect = nil
		t.noteEnginesChanged() // calls may go on
	}
}

// releaseFromEngine takes a request out of its engine's counts, if it is at one.
func (t *Table) releaseFromEngine(en *entry) {
	if !en.state.atEngine() {
		return
	}
	t.noteFirstToken(en)
	en.charge.Settle()
	e := en.engine
	base := e.bases[en.model]
	base.outstanding--
	e.bases[en.model] = base
	e.requests--
	en.engine = nil
}
