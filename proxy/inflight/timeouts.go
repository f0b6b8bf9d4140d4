package inflight

import (
	"time"

	"tandem/proxy/api"
)

// tick does everything that depends on time. Metric series are removed outside the lock, so that tokens can pass
// meanwhile.
func (t *Table) tick(now time.Time) {
	if remove := t.endExpired(now); remove != nil {
		remove()
	}
}

// endExpired ends the requests that waited too long. It returns what is left to do without the lock, or nil.
func (t *Table) endExpired(now time.Time) (remove func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := timeoutCheck{now: now, options: &t.options, memoryShortages: t.memoryShortages}
	if len(t.engines) == 0 {
		w.disconnectedSince, w.unavailableSince = t.disconnectedSince, t.unavailableSince
	}
	for _, en := range t.entries {
		if err := w.expired(en); err != nil {
			if err.Type == api.TypeDeadlineExceeded {
				en.countOutOfTime(now)
			}
			t.fail(en, err, now)
		}
	}
	t.quarantine.removeExpired(now)
	t.sweepMemoryShortages(now)
	t.resumeStalled(now)
	t.advanceDraining()
	t.sampleWork(now)
	t.dispatch(now)
	t.updateGauges()
	t.reportUnaccepted()
	t.reportAdapters(now)
	return t.sweepMetrics(now)
}

// timeoutCheck decides whether a request has waited too long.
type timeoutCheck struct {
	now               time.Time
	disconnectedSince time.Time // zero while an engine is connected
	unavailableSince  time.Time // since when none takes new requests; also zero while one is connected
	memoryShortages   map[modelVersion]memoryShortage
	options           *Options
}

// expired returns the error that ends the request now, or nil.
func (w timeoutCheck) expired(en *entry) *api.Error {
	if err := w.memoryTimeout(en); err != nil {
		return err
	}
	switch {
	case !en.deadline.IsZero() && !w.now.Before(en.deadline):
		return en.deadlineError(w.now)
	case en.state == queued && !w.disconnectedSince.IsZero() && w.since(later(en.waitingSince, w.disconnectedSince)) >= w.engineWait(en):
		return api.EngineUnavailable(retryEngineAfter)
	case (en.state == waiting || en.state == suspect) && en.wasRequeued() && w.since(en.waitingSince) >= w.options.ReplayWait:
		return api.EngineCrashed(retryEngineAfter)
	case en.state == sent && w.loadTimedOut(en):
		return api.ModelLoadFailed(en.model, en.version, "timeout", retryEngineAfter)
	}
	return nil
}

// engineWait is how long a queued request waits for an engine. One that was taken in while an engine was there waits as
// long as those that the engine had, and so does the rest of an answer with several choices.
func (w timeoutCheck) engineWait(en *entry) time.Duration {
	if en.isFurtherChoice() || en.waitingSince.Before(w.unavailableSince) {
		return max(w.options.EngineWait, w.options.ReplayWait)
	}
	return w.options.EngineWait
}

// loadTimedOut reports whether a request has waited too long for its model's load.
func (w timeoutCheck) loadTimedOut(en *entry) bool {
	_, loading := en.engine.loading[modelVersion{en.model, en.version}]
	return loading && w.since(en.sentAt) >= w.options.ModelLoadWait
}

func (w timeoutCheck) since(t time.Time) time.Duration { return w.now.Sub(t) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
