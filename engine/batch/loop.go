package batch

import (
	"runtime"
	"slices"
	"time"
)

// idleHeartbeat: how long the executor sleeps at most, so that its heartbeat is seen to move.
const idleHeartbeat = 500 * time.Millisecond

// run is the executor's goroutine: take what came in, let the base whose turn it is make one step, repeat.
func (e *Executor) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(e.done)
	defer e.pool.stop()
	e.timer = time.NewTimer(idleHeartbeat)
	defer e.timer.Stop()
	for {
		closing := e.takeIn()
		e.expire()
		if closing && e.drain() {
			return
		}
		e.publish()
		if b := e.next(); b != nil {
			start := e.now()
			e.step(b)
			e.rounds.spend(int64(e.now() - start))
			continue
		}
		e.idle()
	}
}

// takeIn handles everything that happened since the last step, in order of arrival, and tells whether the executor is closing.
func (e *Executor) takeIn() (closing bool) {
	e.mu.Lock()
	messages, drawn, calls := e.inbox, e.drawn, e.calls
	e.inbox, e.drawn, e.calls = e.spare[:0], e.spareQ[:0], nil
	for _, m := range messages {
		if m.kind == messageSubmit {
			m.seq.received = true
			m.base.queued--
			m.base.owned++
		}
	}
	closing = e.closed
	e.mu.Unlock()

	for _, m := range messages {
		switch m.kind {
		case messageSubmit:
			e.received(m.base, m.seq)
		case messageCancel:
			e.end(m.seq, FinishCancelled, Failure{})
		case messageSinkGone:
			e.dropSink(m.sink)
		}
	}
	e.jobsFinished(drawn)
	for _, c := range calls {
		e.call(c, closing)
	}
	clear(messages)
	clear(drawn)
	e.spare, e.spareQ = messages, drawn
	return closing
}

// received puts a new sequence on its way.
func (e *Executor) received(b *base, q *sequence) {
	if q.stage == stageEnded { // its sink left while what came before it was handled
		return
	}
	b.stalled = false
	if q.deadline > 0 && (e.deadline == 0 || q.deadline < e.deadline) {
		e.deadline = q.deadline
	}
	switch {
	case q.decided != 0:
		e.end(q, q.decided, Failure{})
	case q.sampler == nil:
		e.dispatch(q)
	default:
		b.sched.enqueue(q)
	}
}

// dispatch gives a sequence's job to the workers.
func (e *Executor) dispatch(q *sequence) {
	q.busy = true
	q.job.room = q.room(q.job.base.limits)
	e.outgoing++
	e.pool.queue <- q // never blocks: it has room for every request in hand
}

// jobsFinished takes sequences back from their workers. What they drew goes out together.
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
	q.busy = false
	e.outgoing--
	b.stalled = false
	e.opts.Observe.Sampling(b.key, q.job.took.Seconds())
	building := q.sampler == nil
	if building {
		q.sampler = q.job.sampler
	}
	q.forced = q.job.forced
	switch {
	case q.stage == stageEnded:
		e.leave(q)
	case q.job.err != nil:
		e.fail(q, samplerFailure(q.job.err))
	case building:
		b.sched.enqueue(q)
	case q.stage == stageDrawing:
		if n := e.constrained(b, q, e.now()); n > 0 {
			e.opts.Observe.Tokens(b.key, "generated", n)
		}
	}
}

// call runs one function given to Do, unless its caller gave up.
func (e *Executor) call(c *call, closing bool) {
	if !c.taken.CompareAndSwap(false, true) {
		return
	}
	e.heartbeat.move(e.now(), PhaseCall, 0)
	if closing {
		c.err = ErrClosed
	} else {
		c.err = c.fn()
	}
	close(c.done)
}

// expire ends the sequences whose deadline passed.
func (e *Executor) expire() {
	now := e.now()
	if e.deadline == 0 || now < e.deadline {
		return
	}
	e.deadline = 0
	expired := e.picked[:0]
	e.mu.Lock()
	for _, q := range e.live {
		switch {
		case q.deadline == 0 || !q.received || q.stage == stageEnded:
		case q.deadline <= now:
			expired = append(expired, q)
		case e.deadline == 0 || q.deadline < e.deadline:
			e.deadline = q.deadline
		}
	}
	e.mu.Unlock()
	slices.SortFunc(expired, byArrival)
	for _, q := range expired {
		e.end(q, FinishDeadline, Failure{})
	}
	clear(expired)
	e.picked = expired
}

// drain ends everything and tells whether nothing is left.
func (e *Executor) drain() bool {
	for _, q := range e.pick(func(*sequence) bool { return true }) {
		e.end(q, FinishCancelled, Failure{})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.outgoing == 0 && len(e.live) == 0 && len(e.inbox) == 0 && len(e.calls) == 0
}

// pick lists the sequences in hand that want says, by arrival; valid until the next pick.
func (e *Executor) pick(want func(*sequence) bool) []*sequence {
	picked := make([]*sequence, 0, 16)
	e.mu.Lock()
	for _, q := range e.live {
		if q.received && q.stage != stageEnded && want(q) {
			picked = append(picked, q)
		}
	}
	e.mu.Unlock()
	slices.SortFunc(picked, byArrival)
	return picked
}

// end finishes a sequence outside of a step.
func (e *Executor) end(q *sequence, reason FinishReason, f Failure) {
	if q.stage == stageEnded {
		return
	}
	e.finish(q, reason, f)
	e.flush(q.job.base.key, 0)
}

// dropSink ends the sequences of a sink whose receiver left. Nobody would read their Summaries.
func (e *Executor) dropSink(s Sink) {
	for _, q := range e.pick(func(q *sequence) bool { return q.req.Sink == s }) {
		q.job.base.sched.end(q, false)
		q.job.base.stalled = false
		e.leave(q)
	}
	e.release()
}

// publish brings Stats up to date and lets bases go that are to be detached and have no sequence left.
func (e *Executor) publish() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats = e.stats[:0]
	kept := e.list[:0]
	for _, b := range e.list {
		if b.leaving != nil && b.owned == 0 && b.queued == 0 {
			b.detached = true
			close(b.leaving)
			delete(e.bases, b.key)
			continue
		}
		kept = append(kept, b)
		e.stats = append(e.stats, b.stats())
	}
	clear(e.list[len(kept):])
	e.list = kept
}

// stats describes the base between steps.
func (b *base) stats() BaseStats {
	s := BaseStats{Base: b.key, Cells: b.limits.Cells, FreeCells: b.limits.Cells, Sequences: b.limits.Sequences}
	for i := range b.sched.slots {
		q := b.sched.slots[i].seq
		if q == nil {
			continue
		}
		s.FreeCells -= len(q.tokens)
		if q.decoding() {
			s.Decoding++
		} else {
			s.Prefilling++
		}
	}
	s.FreeCells = max(s.FreeCells, 0)
	inSlots := s.Prefilling + s.Decoding
	s.FreeSequences = s.Sequences - inSlots
	s.Waiting = b.owned - inSlots // in line, or with a worker before or after its time in a slot
	return s
}

// next picks the base whose turn it is; nil: there is nothing to do.
func (e *Executor) next() *base {
	e.ready = e.ready[:0]
	for _, b := range e.list {
		if !b.stalled && b.sched.busy() {
			e.ready = append(e.ready, contender[*base]{b, int64(e.opts.TargetStep)})
		}
	}
	b, _ := e.rounds.pick(e.ready)
	return b
}

// idle waits for something to happen, a deadline, or the next heartbeat.
func (e *Executor) idle() {
	now := e.now()
	e.heartbeat.move(now, PhaseIdle, 0)
	wait := idleHeartbeat
	if e.deadline > 0 {
		wait = min(wait, max(e.deadline-now, 0))
	}
	e.timer.Reset(wait)
	select {
	case <-e.wake:
	case <-e.timer.C:
	}
}
