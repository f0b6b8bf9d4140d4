package inflight

import (
	"errors"
	"time"

	"tandem/proxy/api"
)

// requeue takes a request back from an engine that is gone or gave it back. Its attempt number rises, so that frames
// about it that still come are dropped.
func (t *Table) requeue(en *entry, now time.Time) {
	e := en.engine
	t.releaseFromEngine(en)
	en.apply(lost)
	en.attempt++
	en.lostAt = now
	en.noteRequeue(e, now)
	en.waitingSince = now
	en.memoryError, en.memoryErrorSince = nil, time.Time{} // they were of an engine that may be gone
	if en.pausedAt.IsZero() {
		en.pausedAt = now
	}
	t.queue.PushAdmitted(en.item())
}

// noteRequeue has the trace and the log of the request say that an engine was lost or gave it back.
func (en *entry) noteRequeue(e *engine, now time.Time) {
	g, r := en.group, Requeue{now, en.attempt}
	switch {
	case g == nil:
		en.pendingRequeues = append(en.pendingRequeues, r)
	case g.requeuedFrom != e:
		g.requeuedFrom = e
		g.pendingRequeues = append(g.pendingRequeues, r)
	}
}

// wasRequeued reports whether the request was at an engine that was lost or gave it back.
func (en *entry) wasRequeued() bool { return !en.lostAt.IsZero() }

// hasWaitingReplays reports whether replays wait that go before new requests for mv, which are those of the same base.
// Replays that wait for memory don't hold up other versions.
func (t *Table) hasWaitingReplays(mv modelVersion) bool {
	for _, en := range t.entries {
		other := modelVersion{en.model, en.version}
		if en.state == waiting && en.model == mv.model && (other == mv || !t.lacksMemoryFor(other)) {
			return true
		}
	}
	return false
}

// sendBytes is about what the request takes in a frame: its texts and, of a replay, what it received.
func (en *entry) sendBytes() int64 {
	if len(en.rec.Generated) == 0 {
		return en.promptBytes
	}
	return en.promptBytes + en.rec.ReplayBytes()
}

// oversizeError returns the error of a request that doesn't fit into a frame.
func (en *entry) oversizeError() *api.Error {
	if en.everAccepted {
		return api.Internal(errors.New("what the engine made of the request is too large to be sent again"))
	}
	return api.Invalid("prompt", "prompt, system and json_schema together are larger than what the engine takes; shorten them")
}

// countReplay counts the result of sending a request again, once.
func (t *Table) countReplay(en *entry, result string) {
	if en.replayPending {
		en.replayPending = false
		t.metrics.Replayed(result)
	}
}

// replayFailure is the value of llm_requests_replayed_total{result} for an error.
func replayFailure(err *api.Error) string {
	switch err.Type {
	case api.TypeModelChanged:
		return "model_changed"
	case api.TypeQuarantined:
		return "quarantined"
	}
	return "failed"
}
