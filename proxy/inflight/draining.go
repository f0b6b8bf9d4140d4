package inflight

import (
	"slices"
	"time"
)

// Drain implements server.Requests: nothing new is admitted, and what was admitted goes on.
func (t *Table) Drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = true
	t.metrics.SetDraining(true)
	t.advanceDraining()
	t.dispatch(time.Now()) // waiting requests may now go to an engine that leaves, too
}

// Draining implements EngineHandler.
func (t *Table) Draining(conn Engine, grace time.Duration, replacement bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	t.log.Info("engine drains", "pid", e.hello.PID, "grace", grace, "replacement", replacement)
	now := time.Now()
	e.draining, e.expectsReplacement = true, replacement
	t.updateUnavailableSince(now)
	t.chooseCatalog()
	t.advanceDraining()
	t.dispatch(now)
}

// Moved implements EngineHandler: the engine has given all its requests back.
func (t *Table) Moved(conn Engine) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	for _, en := range t.requestsAt(e) {
		t.requeue(en, now)
	}
	e.moved = true
	t.advanceDraining()
	t.dispatch(now)
}

// canMoveAll reports whether other engines take every request of a draining one. Otherwise it finishes them itself as
// far as it can.
func (t *Table) canMoveAll(e *engine) bool {
	return !slices.ContainsFunc(t.requestsAt(e), func(en *entry) bool { return t.targetEngine(modelVersion{en.model, en.version}) == nil })
}

// advanceDraining tells draining engines what to do next: to give their requests back when another engine takes them,
// and to go when they have none left. Requests that still wait then wait for the next engine. While the proxy itself
// drains, they finish everything.
func (t *Table) advanceDraining() {
	for _, e := range t.engines {
		if !e.draining || e.drained || e.protocolBroken {
			continue
		}
		other := slices.ContainsFunc(t.engines, func(x *engine) bool { return x != e && !x.draining && !x.protocolBroken && x.catalog.known() })
		if !t.draining && !e.moving && e.requests > 0 && (e.expectsReplacement || other && t.canMoveAll(e)) {
			e.moving = true
			e.conn.Move()
		}
		finishesCalls := e.calls > 0 && !other && !e.expectsReplacement // nobody else would answer them
		if e.requests > 0 || finishesCalls || e.moving && !e.moved {
			continue
		}
		if other || !t.draining || len(t.entries)+len(t.stalled) == 0 {
			e.drained = true
			e.conn.Drained()
		}
	}
}
