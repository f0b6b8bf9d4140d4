package inflight

import (
	"errors"
	"slices"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/queue"
)

// target is the engine that a request for a model goes to: the newest that lists it and isn't about to leave. Nil: none can serve it now.
// One that leaves finishes what it has, and gets what waits only when the proxy ends too, since none comes after it then.
func (d *Table) target(p pair) *engine {
	var leaving *engine
	for _, e := range slices.Backward(d.engines) {
		switch {
		case !e.serves(p):
		case !e.draining:
			return e
		case leaving == nil && d.draining:
			leaving = e
		}
	}
	return leaving
}

// pump hands waiting requests to engines for as long as there is credit. The caller holds mu.
func (d *Table) pump(now time.Time) {
	for d.queue.Len() > 0 && len(d.engines) > 0 {
		it, ok := d.queue.Next(d.verdict)
		if !ok {
			return
		}
		en := d.entries[it.ID]
		d.send(d.target(pair{en.model, en.version}), en, now)
	}
}

// verdict of the first item of a line: what the pure credit says for the engine that it would go to.
func (d *Table) verdict(it queue.Item) queue.Verdict {
	p := pair{it.Base, it.Version}
	e := d.target(p)
	if e == nil {
		return queue.Skip
	}
	if d.shortOf(p) {
		return queue.Pass
	}
	base := e.bases[it.Base]
	c := credit{
		sequences: base.sequences, outstanding: base.outstanding, replaysOut: base.replays,
		tokenless: e.tokenless, suspectOut: e.suspect != nil, replayBytes: e.replayBytes,
		replaysWait: d.queue.HasBase(queue.Replay, it.Base),
	}
	if c.replaysWait && len(d.short) > 0 {
		c.replaysWait = d.replaysWait(p)
	}
	if it.Class == queue.Replay {
		c.itemBytes = d.entries[it.ID].rec.ReplayBytes()
	}
	for q := range e.loading {
		c.loading = c.loading || q != p
	}
	if len(d.refused.loads) > 0 {
		d.aside(&c, e, p)
	}
	return c.verdict(it.Class)
}

// aside fills in what concerns models in whose loads engines may have died: each goes when nothing else waits for its first token, and
// no other load begins beside it, so that another death tells which one it was.
func (d *Table) aside(c *credit, e *engine, p pair) {
	_, loaded := e.loaded[p]
	_, loading := e.loading[p]
	c.shy = d.refused.shy(p) && !loading && !loaded
	for _, en := range d.entries {
		q := pair{en.model, en.version}
		switch {
		case q == p:
		case en.at == e && !en.gainedHere:
			c.othersThere = true
			c.apart = c.apart || !loaded && d.refused.shy(q)
		case en.state == waiting && !d.refused.shy(q):
			c.othersWait = true
		}
	}
}

// send hands a request to an engine.
func (d *Table) send(e *engine, en *entry, now time.Time) {
	again := en.again()
	if en.firstSent.IsZero() {
		en.firstSent = now
	}
	en.alone = en.state == suspect
	en.move(released)
	en.at, en.sentAt, en.gainedHere = e, now, false
	base := e.bases[en.model]
	base.outstanding++
	e.tokenless++
	e.count++
	if en.alone {
		e.suspect = en
	}
	if again {
		en.replayed = true
		base.replays++
		en.frameBytes = en.rec.ReplayBytes()
		e.replayBytes += en.frameBytes
		d.log.Debug("request is sent again", "request_id", en.req.ID, "attempt", en.attempt, "pid", e.hello.PID, "tokens", len(en.rec.Generated),
			"held", en.rec.Held, "constrained", en.rec.Grammar != "", "alone", en.alone)
	}
	e.bases[en.model] = base
	if !e.link.Infer(en.submission(now, d.o.ReplaySteps)) {
		d.finish(en, nil, en.oversize(), now)
	}
}

// oversize is the error of a request that doesn't fit into a frame.
func (en *entry) oversize() *api.Error {
	if en.accepted {
		return api.Internal(errors.New("what the engine made of the request is too large to be sent again"))
	}
	return api.Invalid("prompt", "prompt, system and json_schema together are larger than what the engine takes; shorten them")
}

// gained notes the first token, or the end, of a request at its engine: it no longer counts as one that may be killing it.
func (d *Table) gained(en *entry) {
	if en.gainedHere {
		return
	}
	en.gainedHere = true
	e := en.at
	base := e.bases[en.model]
	e.tokenless--
	if en.again() {
		base.replays--
	}
	e.bases[en.model] = base
	if e.suspect == en {
		e.suspect = nil
	}
}

// delivered takes the frame of a replay off the account: the engine has it.
func (d *Table) delivered(en *entry) {
	en.at.replayBytes -= en.frameBytes
	en.frameBytes = 0
}

// leave takes a request off its engine's accounts, if it is at one.
func (d *Table) leave(en *entry) {
	if !en.state.atEngine() {
		return
	}
	d.gained(en)
	d.delivered(en)
	e := en.at
	base := e.bases[en.model]
	base.outstanding--
	e.bases[en.model] = base
	e.count--
	en.at = nil
}

// requeue takes a request back from an engine that is gone or gave it up. Its attempt rises, so that what still comes meets the fence.
func (d *Table) requeue(en *entry, now time.Time) {
	d.leave(en)
	en.move(lost)
	en.attempt++
	en.lostAt = now
	en.waitingSince = now
	en.refusal, en.refusedAt = nil, time.Time{} // of an engine that may be gone
	if en.pausedAt.IsZero() {
		en.pausedAt = now
	}
	d.queue.Push(en.item())
}

// replayEnded counts how sending a request again went, once.
func (d *Table) replayEnded(en *entry, result string) {
	if en.replayed {
		en.replayed = false
		d.m.Replayed(result)
	}
}
