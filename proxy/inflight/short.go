package inflight

import (
	"time"

	"tandem/proxy/api"
)

// Pauses between two attempts at a load that was refused for memory.
const (
	firstShortPause = 500 * time.Millisecond
	lastShortPause  = 5 * time.Second
)

// shortage is of memory for one version's load: somebody else has it, or a dead engine's isn't returned yet.
type shortage struct {
	since time.Time // of the first refusal
	until time.Time // nobody is sent for the model before
	pause time.Duration
}

// shortOf tells whether requests for p have to wait for memory now.
func (d *Table) shortOf(p pair) bool {
	if len(d.short) == 0 {
		return false
	}
	s, ok := d.short[p]
	return ok && time.Now().Before(s.until)
}

// holdBack keeps a request whose load an engine refused for memory, so that the load is tried again. One that an engine was lost with
// waits for REPLAY_WAIT, as for an engine. A new one waits no longer than for an engine, and only while the memory is likely to come back:
// the engine has just been restarted, or others wait for the same since less than ENGINE_WAIT. False: it doesn't wait.
func (d *Table) holdBack(en *entry, e *engine, s *Summary, now time.Time) bool {
	if s.Reason != FinishError || api.Type(s.Failure.Code) != api.TypeOutOfMemory || en.state != sent {
		return false
	}
	p := pair{en.model, en.version}
	old, waits := d.short[p]
	if !en.again() {
		likely := waits && now.Sub(old.since) < d.o.EngineWait || e.restarted && now.Sub(e.attachedAt) < d.o.EngineWait
		if !likely || !en.refusedAt.IsZero() && now.Sub(en.refusedAt) >= d.o.EngineWait {
			return false
		}
	}
	if !waits {
		old.since = now
	}
	if !now.Before(old.until) { // the others of the same load come with the same refusal
		old.pause = min(max(2*old.pause, firstShortPause), lastShortPause)
		old.until = now.Add(old.pause)
		d.log.Warn("a load was refused for memory and is tried again", "model", p.model, "version", p.version, "in", old.pause, "request_id", en.req.ID)
	}
	d.short[p] = old
	if en.refusal = en.failure(s, now); en.refusedAt.IsZero() {
		en.refusedAt = now
	}
	d.leave(en)
	en.move(lost)
	if en.alone {
		en.move(struck) // it still has to go alone
	}
	en.attempt++
	d.queue.Push(en.item())
	return true
}

// again tells whether the request was at an engine that was lost or gave it back.
func (en *entry) again() bool { return !en.lostAt.IsZero() }

// sweepShort forgets shortages that nobody waits for any more.
func (d *Table) sweepShort(now time.Time) {
	for p, s := range d.short {
		wanted := now.Before(s.until)
		for _, en := range d.entries {
			wanted = wanted || en.model == p.model && en.version == p.version && en.state != streaming
		}
		if !wanted {
			delete(d.short, p)
		}
	}
}

// replaysWait tells whether replays of a base wait that could go before its new requests. Those that wait for memory hold up no other
// version of it.
func (d *Table) replaysWait(p pair) bool {
	for _, en := range d.entries {
		q := pair{en.model, en.version}
		if en.state == waiting && en.model == p.model && (q == p || !d.shortOf(q)) {
			return true
		}
	}
	return false
}

// outOfMemory is the error of a request that waited for memory in vain, or nil.
func (w waits) outOfMemory(en *entry) *api.Error {
	short, is := w.short[pair{en.model, en.version}]
	waits := en.refusal != nil && (en.state == waiting || en.state == suspect)
	switch {
	case waits && !en.again() && w.since(en.refusedAt) >= w.options.EngineWait, waits && en.again() && w.since(en.waitingSince) >= w.options.ReplayWait:
		return en.refusal
	case en.state == queued && is && w.since(later(en.waitingSince, short.since)) >= w.options.EngineWait:
		return api.NewError(api.TypeOutOfMemory, "there is no memory for the model now, and others wait for it; try again later").After(retryEngineAfter)
	}
	return nil
}
