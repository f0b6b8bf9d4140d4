package inflight

import (
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// finish ends a request with a result or an error: it leaves its engine and the queue, and its client is told. The caller holds mu.
func (d *Table) finish(en *entry, result *Result, err *api.Error, now time.Time) {
	if en.state == done {
		return
	}
	if err != nil {
		en.err = err
		if err.Type == api.TypeCancelled {
			en.replayed = false // nobody will know how it went
		}
		d.replayEnded(en, replayFailure(err))
	}
	en.result = result
	d.leave(en)
	d.queue.Remove(en.id)
	delete(d.entries, en.id)
	if !en.pausedAt.IsZero() {
		en.paused += now.Sub(en.pausedAt)
		en.pausedAt = time.Time{}
	}
	en.move(ended)
	en.notify()
}

// cancel gives a request up. The entry is deleted before the engine hears of it, so that late frames meet nobody.
func (d *Table) cancel(en *entry, because *api.Error, now time.Time) {
	if en.state == done {
		return
	}
	e, working := en.at, en.state.atEngine()
	d.finish(en, nil, because, now)
	if working {
		e.link.Cancel(en.id, en.attempt)
	}
	d.pump(now)
}

// fail ends a request that an engine may still work on.
func (d *Table) fail(en *entry, err *api.Error, now time.Time) {
	e, working := en.at, en.state.atEngine()
	d.finish(en, nil, err, now)
	if working {
		e.link.Cancel(en.id, en.attempt)
	}
}

// settle records the end of a request, once.
func (d *Table) settle(en *entry, outcome Outcome, now time.Time) {
	if en.settled {
		return
	}
	en.settled = true
	d.cancel(en, api.Cancelled(), now)
	en.rec.Close()
	d.unsettled--
	d.gauges()
	d.record(en, outcome, now)
	en.mm.Release()
}

// ending of a request as the metrics call it.
type ending struct{ reason, errorType string }

// endingOf maps what the client saw to a finish reason: only a whole answer that was delivered counts as one.
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

func (d *Table) record(en *entry, outcome Outcome, now time.Time) {
	end := endingOf(en.result, en.err, outcome)
	if end.reason == string(api.FinishCancelled) {
		d.m.Cancelled(en.stage())
	}
	if !en.accepted {
		if en.err != nil && en.err.Outcome().Rejected != "" && outcome != ClientGone {
			d.m.Rejected(en.err.Outcome().Rejected)
		}
		return
	}
	en.mm.Finish(metrics.Outcome{
		Reason: end.reason, ErrorType: end.errorType, Domain: d.m.Domain(en.domain),
		PromptTokens: en.promptTokens(), CachedTokens: en.summary.CachedTokens, OutputTokens: len(en.rec.Generated),
		Queue:      max(0, en.firstSent.Sub(en.req.Received)) + en.summary.Queue,
		Prefill:    en.times.prefill,
		Decode:     en.times.decode,
		Restart:    en.paused,
		TraceID:    metrics.SampledTraceID(en.req.Traceparent),
		FirstToken: en.times.first,
		Total:      now.Sub(en.req.Received),
	})
}

// stage that a request had reached.
func (en *entry) stage() string {
	switch {
	case en.firstSent.IsZero():
		return "queue"
	case len(en.rec.Generated) == 0:
		return "prefill"
	}
	return "decode"
}

// promptTokens as the engine counted them, or as it rendered them when no summary came.
func (en *entry) promptTokens() int {
	if en.summary.PromptTokens > 0 {
		return en.summary.PromptTokens
	}
	return len(en.rec.PromptTokens)
}
