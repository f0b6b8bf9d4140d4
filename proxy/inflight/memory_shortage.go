package inflight

import (
	"time"

	"tandem/proxy/api"
)

// Pauses between two attempts at a load that was refused for lack of memory.
const (
	minMemoryRetryPause = 500 * time.Millisecond
	maxMemoryRetryPause = 5 * time.Second
)

// memoryShortage is a lack of memory to load one version: something else uses it, or a dead engine's memory isn't freed
// yet.
type memoryShortage struct {
	since time.Time // of the first refusal
	until time.Time // no request for the version is sent before
	pause time.Duration
}

// lacksMemoryFor reports whether requests for mv have to wait for memory now.
func (t *Table) lacksMemoryFor(mv modelVersion) bool {
	if len(t.memoryShortages) == 0 {
		return false
	}
	s, ok := t.memoryShortages[mv]
	return ok && time.Now().Before(s.until)
}

// waitForMemory keeps a request whose load an engine refused for lack of memory, so that the load is tried again. A
// request whose engine was lost waits for REPLAY_WAIT, as it does for an engine. A new one waits for ENGINE_WAIT at
// most, and only while memory is likely to become free: the engine was just restarted, or the shortage has lasted for
// less than ENGINE_WAIT. It returns false for a request that doesn't wait.
func (t *Table) waitForMemory(en *entry, e *engine, s *Summary, now time.Time) bool {
	if s.Reason != FinishError || api.Type(s.Failure.Code) != api.TypeOutOfMemory || en.state != sent {
		return false
	}
	mv := modelVersion{en.model, en.version}
	shortage, isShort := t.memoryShortages[mv]
	if !en.wasRequeued() {
		likely := isShort && now.Sub(shortage.since) < t.options.EngineWait || e.isRestart && now.Sub(e.attachedAt) < t.options.EngineWait
		if !likely || !en.memoryErrorSince.IsZero() && now.Sub(en.memoryErrorSince) >= t.options.EngineWait {
			return false
		}
	}
	if !isShort {
		shortage.since = now
	}
	if !now.Before(shortage.until) { // the load's other requests come with the same refusal
		shortage.pause = min(max(2*shortage.pause, minMemoryRetryPause), maxMemoryRetryPause)
		shortage.until = now.Add(shortage.pause)
		t.log.Warn("a load was refused for memory and is tried again", "model", mv.model, "version", mv.version, "in", shortage.pause, "request_id", en.req.ID)
	}
	t.memoryShortages[mv] = shortage
	if en.memoryError = en.clientError(s, now); en.memoryErrorSince.IsZero() {
		en.memoryErrorSince = now
	}
	isSuspect := e.suspect == en
	t.releaseFromEngine(en)
	en.apply(lost)
	if isSuspect {
		en.apply(suspected) // it still has to go alone
	}
	en.attempt++
	t.queue.PushAdmitted(en.item())
	return true
}

// sweepMemoryShortages forgets shortages that no request waits for any more.
func (t *Table) sweepMemoryShortages(now time.Time) {
	for mv, s := range t.memoryShortages {
		wanted := now.Before(s.until)
		for _, en := range t.entries {
			wanted = wanted || en.model == mv.model && en.version == mv.version && en.state != streaming
		}
		if !wanted {
			delete(t.memoryShortages, mv)
		}
	}
}

// memoryTimeout returns the error of a request that waited for memory in vain, or nil.
func (w timeoutCheck) memoryTimeout(en *entry) *api.Error {
	shortage, isShort := w.memoryShortages[modelVersion{en.model, en.version}]
	waits := en.memoryError != nil && (en.state == waiting || en.state == suspect)
	switch {
	case waits && !en.wasRequeued() && w.since(en.memoryErrorSince) >= w.options.EngineWait, waits && en.wasRequeued() && w.since(en.waitingSince) >= w.options.ReplayWait:
		return en.memoryError
	case en.state == queued && isShort && w.since(later(en.waitingSince, shortage.since)) >= w.options.EngineWait:
		return api.NewError(api.TypeOutOfMemory, "there is no memory for the model now, and others wait for it; try again later").After(retryEngineAfter)
	}
	return nil
}
