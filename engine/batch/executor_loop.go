package batch

import (
	"runtime"
	"slices"
	"time"
)

// idleHeartbeat is how long the executor sleeps at most, so that its heartbeat keeps moving.
const idleHeartbeat = 500 * time.Millisecond

// run is the executor's goroutine: handle messages, let one turn run, step the base whose turn it is, repeat.
func (e *Executor) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(e.done)
	defer e.samplingWorkers.stop()
	e.timer = time.NewTimer(idleHeartbeat)
	defer e.timer.Stop()
	for {
		closing := e.takeMessages()
		e.endExpired()
		if closing {
			e.refuseTurns()
			if e.endAll() {
				return
			}
		}
		e.updateStats()
		b := e.nextBase()
		turnTaken := e.runTurn(b != nil)
		if b != nil {
			start := e.now()
			e.stepBase(b)
			e.baseTurns.charge(int64(e.now() - start))
			continue
		}
		if !turnTaken {
			e.waitForWork()
		}
	}
}

// takeMessages handles what came in since the last step, in order of arrival, and reports whether the executor is
// closing.
func (e *Executor) takeMessages() (closing bool) {
	e.mu.Lock()
	messages, finished, calls := e.inbox, e.finishedJobs, e.calls
	e.inbox, e.finishedJobs, e.calls = e.spareInbox[:0], e.spareJobs[:0], nil
	for _, m := range messages {
		if m.kind == messageSubmit {
			m.seq.received = true
			m.base.inboxCount--
			m.base.sequenceCount++
		}
	}
	closing = e.closed
	e.mu.Unlock()

	for _, m := range messages {
		switch m.kind {
		case messageSubmit:
			e.receive(m.base, m.seq)
		case messageCancel:
			e.endBetweenSteps(m.seq, FinishCancelled, Failure{})
		case messageSinkGone:
			e.dropSink(m.sink)
		}
	}
	e.jobsFinished(finished)
	for _, c := range calls {
		e.runCall(c, closing)
	}
	clear(messages)
	clear(finished)
	e.spareInbox, e.spareJobs = messages, finished
	return closing
}

// receive starts a new sequence: it ends at once, waits for its sampler, or waits for a slot.
func (e *Executor) receive(b *base, q *sequence) {
	if q.stage == stageEnded { // its sink was dropped by an earlier message of the same batch
		return
	}
	b.blocked = false
	if q.deadline > 0 && (e.nextDeadline == 0 || q.deadline < e.nextDeadline) {
		e.nextDeadline = q.deadline
	}
	switch {
	case q.replayEnd != 0:
		e.endBetweenSteps(q, q.replayEnd, Failure{})
	case q.sampler == nil:
		e.startJob(q)
	default:
		b.scheduler.enqueue(q)
	}
}

// startJob gives a sequence's job to the workers.
func (e *Executor) startJob(q *sequence) {
	q.jobRunning = true
	q.job.maxTokens = q.answerTokensLeft(q.job.base.limits)
	e.runningJobs++
	e.samplingWorkers.queue <- q // never blocks: it has room for every request in progress
}

// jobsFinished takes sequences back from their workers. What they drew is emitted together.
func (e *Executor) jobsFinished(list []*sequence) {
	var took time.Duration
	for i, q := range list {
		took = max(took, q.job.took) // before the sequence goes back to a worker
		e.jobFinished(q)
		if i+1 == len(list) || list[i+1].job.base != q.job.base {
			e.flush(q.job.base.key, took)
			took = 0
		}
	}
}

// jobFinished takes one sequence back.
func (e *Executor) jobFinished(q *sequence) {
	b := q.job.base
	q.jobRunning = false
	e.runningJobs--
	b.blocked = false
	e.opts.Observe.Sampling(b.key, q.job.took.Seconds())
	building := q.sampler == nil
	if building {
		q.sampler = q.job.sampler
	}
	q.forced = q.job.forced
	switch {
	case q.stage == stageEnded:
		e.retire(q)
	case q.job.err != nil:
		e.fail(q, samplerFailure(q.job.err))
	case building:
		b.scheduler.enqueue(q)
	case q.stage == stageDrawing:
		if n := e.drawConstrained(b, q, e.now()); n > 0 {
			e.opts.Observe.Tokens(b.key, "generated", n)
		}
	}
}

// runCall runs one function given to Do, unless its caller doesn't wait any more.
func (e *Executor) runCall(c *call, closing bool) {
	if !c.claimed.CompareAndSwap(false, true) {
		return
	}
	e.heartbeat.begin(e.now(), PhaseCall, 0)
	if closing {
		c.err = ErrClosed
	} else {
		c.err = c.fn()
	}
	close(c.done)
}

// endExpired ends the sequences whose deadline passed.
func (e *Executor) endExpired() {
	now := e.now()
	if e.nextDeadline == 0 || now < e.nextDeadline {
		return
	}
	e.nextDeadline = 0
	expired := e.scratch[:0]
	e.mu.Lock()
	for _, q := range e.requests {
		switch {
		case q.deadline == 0 || !q.received || q.stage == stageEnded:
		case q.deadline <= now:
			expired = append(expired, q)
		case e.nextDeadline == 0 || q.deadline < e.nextDeadline:
			e.nextDeadline = q.deadline
		}
	}
	e.mu.Unlock()
	slices.SortFunc(expired, byArrival)
	for _, q := range expired {
		e.endBetweenSteps(q, FinishDeadline, Failure{})
	}
	clear(expired)
	e.scratch = expired
}

// endAll ends every request and reports whether none is left.
func (e *Executor) endAll() bool {
	for _, q := range e.unfinished(func(*sequence) bool { return true }) {
		e.endBetweenSteps(q, FinishCancelled, Failure{})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runningJobs == 0 && len(e.requests) == 0 && len(e.inbox) == 0 && len(e.calls) == 0
}

// unfinished lists the sequences in progress that match selects, by arrival.
func (e *Executor) unfinished(match func(*sequence) bool) []*sequence {
	picked := make([]*sequence, 0, 16)
	e.mu.Lock()
	for _, q := range e.requests {
		if q.received && q.stage != stageEnded && match(q) {
			picked = append(picked, q)
		}
	}
	e.mu.Unlock()
	slices.SortFunc(picked, byArrival)
	return picked
}

// endBetweenSteps finishes a sequence outside of a step.
func (e *Executor) endBetweenSteps(q *sequence, reason FinishReason, f Failure) {
	if q.stage == stageEnded {
		return
	}
	e.finish(q, reason, f)
	e.flush(q.job.base.key, 0)
}

// dropSink ends the sequences of a sink whose receiver is gone, without Summaries.
func (e *Executor) dropSink(s Sink) {
	for _, q := range e.unfinished(func(q *sequence) bool { return q.req.Sink == s }) {
		q.job.base.scheduler.remove(q, false)
		q.job.base.blocked = false
		e.retire(q)
	}
	e.releaseEnded()
}

// updateStats brings Stats up to date and removes bases that Detach waits for and that have no sequence left.
func (e *Executor) updateStats() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats = e.stats[:0]
	kept := e.basesByKey[:0]
	for _, b := range e.basesByKey {
		if b.detaching != nil && b.sequenceCount == 0 && b.inboxCount == 0 {
			b.detached = true
			close(b.detaching)
			delete(e.bases, b.key)
			continue
		}
		kept = append(kept, b)
		e.stats = append(e.stats, b.stats())
	}
	clear(e.basesByKey[len(kept):])
	e.basesByKey = kept
}

// nextBase picks the base whose turn it is; nil: there is nothing to do.
func (e *Executor) nextBase() *base {
	e.readyBases = e.readyBases[:0]
	for _, b := range e.basesByKey {
		if !b.blocked && b.scheduler.hasWork() {
			e.readyBases = append(e.readyBases, candidate[*base]{b, int64(e.opts.TargetStep)})
		}
	}
	b, _ := e.baseTurns.pick(e.readyBases)
	return b
}

// waitForWork waits for a signal, a deadline, or the next heartbeat.
func (e *Executor) waitForWork() {
	now := e.now()
	e.heartbeat.begin(now, PhaseIdle, 0)
	wait := idleHeartbeat
	if e.nextDeadline > 0 {
		wait = min(wait, max(e.nextDeadline-now, 0))
	}
	e.timer.Reset(wait)
	select {
	case <-e.wake:
	case <-e.timer.C:
	}
}
