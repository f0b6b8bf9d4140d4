package inflight

import (
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// finish ends a request with a result or an error: it leaves its engine and the queue, and whoever takes its answer is
// woken. The caller holds mu.
func (t *Table) finish(en *entry, result *Result, err *api.Error, now time.Time) {
	if en.state == done {
		return
	}
	if err != nil {
		en.err = err
		if err.Type == api.TypeCancelled {
			en.replayPending = false // how it went will never be known
		}
		t.countReplay(en, replayFailure(err))
	}
	en.result = result
	t.releaseFromEngine(en)
	t.queue.Remove(en.id)
	delete(t.entries, en.id)
	t.endOutageWithoutRequests()
	en.endPause(now)
	en.apply(ended)
	if en.group != nil {
		en.dropReplay()
		en.group.entryDone(en, now)
	}
	en.notify()
}

// dropReplay frees what only sending the request again needs. The other choices of the group may still take long.
func (en *entry) dropReplay() {
	en.summary.PromptTokens = en.promptTokens()
	answerBytes := int64(0)
	if en.result != nil {
		answerBytes = 4 * int64(len(en.result.Embedding))
	}
	en.rec.Shrink(en.req.Infer, answerBytes)
}

// cancel ends a request early and sends what waits in its place. Its entry is deleted before the engine is told, so
// that late frames are dropped.
func (t *Table) cancel(en *entry, because *api.Error, now time.Time) {
	if en.state == done {
		return
	}
	e, atEngine := en.engine, en.state.atEngine()
	t.finish(en, nil, because, now)
	if atEngine {
		e.conn.Cancel(en.id, en.attempt)
	}
	t.dispatch(now)
}

// fail ends a request that an engine may still work on.
func (t *Table) fail(en *entry, err *api.Error, now time.Time) {
	e, atEngine := en.engine, en.state.atEngine()
	t.finish(en, nil, err, now)
	if atEngine {
		e.conn.Cancel(en.id, en.attempt)
	}
}

// settle records the outcome of a request, once.
func (t *Table) settle(en *entry, outcome Outcome, now time.Time) {
	if en.settled {
		return
	}
	t.cancel(en, api.Cancelled(), now)
	t.recordOutcome(en, outcome, now)
	t.forget(en)
}

// forget gives back what a request that is done holds.
func (t *Table) forget(en *entry) {
	en.settled = true
	en.rec.Close()
	t.unsettled--
	t.updateGauges()
	en.modelMetrics.Release()
}

// ending is how a request ended, in the words of the metrics.
type ending struct{ reason, errorType string }

// endingOf maps what the client got to a finish reason. Only a complete answer that was delivered counts as a success.
func endingOf(result *Result, err *api.Error, outcome Outcome) ending {
	switch {
	case outcome == ClientGone, err != nil && err.Type == api.TypeCancelled:
		return ending{string(api.FinishCancelled), api.TypeCancelled.Outcome().Failed}
	case err != nil:
		return ending{string(api.FinishError), err.Outcome().Failed}
	case result != nil && outcome == Delivered:
		return ending{result.FinishReason, ""}
	}
	return ending{string(api.FinishError), api.TypeInternal.Outcome().Failed}
}

// recordOutcome reports a settled request to the metrics.
func (t *Table) recordOutcome(en *entry, outcome Outcome, now time.Time) {
	end := endingOf(en.result, en.err, outcome)
	if end.reason == string(api.FinishCancelled) && !en.isFurtherChoice() {
		t.metrics.Cancelled(en.stage())
	}
	if !en.everAccepted {
		if en.err != nil && !en.isFurtherChoice() && en.err.Outcome().Rejected != "" && outcome != ClientGone {
			t.metrics.Rejected(en.err.Outcome().Rejected)
		}
		return
	}
	en.modelMetrics.Finish(metrics.Outcome{
		Reason: end.reason, ErrorType: end.errorType, Domain: t.metrics.Domain(en.domain),
		FurtherChoice: en.isFurtherChoice(), SharesPrompt: en.sharesPrompt(),
		PromptTokens: en.promptTokens(), CachedTokens: en.cachedTokens(), OutputTokens: len(en.rec.Generated),
		Queue:      en.queueTime(),
		Prefill:    en.timing.prefill,
		Decode:     en.timing.decode,
		Restart:    en.pausedFor,
		TraceID:    metrics.SampledTraceID(en.req.Traceparent),
		FirstToken: en.timing.firstToken,
		Total:      now.Sub(en.req.Received),
	})
}

// queueTime is how long the request waited, in the proxy and at the engine that gave its first token. What an answer
// waits at a further engine is part of its pause.
func (en *entry) queueTime() time.Duration {
	atEngine := en.summary.Queue
	if len(en.rec.Generated) > 0 && en.attempt != en.timing.firstAttempt { // the engine's summary never came
		atEngine = en.timing.queue
	}
	return max(0, en.firstSentAt.Sub(en.req.Received)) + atEngine
}

// stage returns how far a request had come.
func (en *entry) stage() string {
	switch {
	case en.firstSentAt.IsZero():
		return "queue"
	case len(en.rec.Generated) == 0:
		return "prefill"
	}
	return "decode"
}

// promptTokens returns the number of the prompt's tokens as the engine's summary says, or without a summary, as the
// engine rendered it.
func (en *entry) promptTokens() int {
	if en.summary.PromptTokens > 0 {
		return en.summary.PromptTokens
	}
	return len(en.rec.PromptTokens)
}
