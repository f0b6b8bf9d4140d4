package batch

import (
	"time"
)

const (
	maxNoCellsPreemptions = 4 // preemptions of a sequence whose cells the runner lost or found no room for
	// maxForcedTokens: forced tokens that one sequence feeds in a step at most; the rest of a longer run is fed like a
	// prompt
	maxForcedTokens = 16
)

// stepBase does one step of a base: admit, plan, clear slots, decode, emit tokens.
func (e *Executor) stepBase(b *base) {
	e.admit(b)
	if !b.scheduler.plan(&b.plan, e.now(), len(e.readyBases) > 1) {
		b.blocked = true
	}
	e.clearSlots(b)
	for _, q := range b.plan.preempted {
		e.notePreemption(b, q)
	}
	var took time.Duration
	if q := b.plan.starved; q != nil {
		e.fail(q, Failure{FailOutOfMemory, "the KV cache is full and no other request holds any of it"})
	}
	if len(b.plan.items) > 0 {
		took = e.decode(b)
	}
	e.flush(b.key, took)
}

// admit gives slots to waiting sequences and keeps or copies the cells that they reuse.
func (e *Executor) admit(b *base) {
	for {
		a, ok := b.scheduler.admit()
		e.clearSlots(b)
		if !ok {
			return
		}
		if a.keepCells > 0 && !b.runner.Truncate(a.slot, a.keepCells) || a.copyCells > 0 && !b.runner.CopyPrefix(a.copyFrom, a.slot, a.copyCells) {
			b.scheduler.undoReuse(a)
		}
		if a.first && a.seq.cached > 0 {
			e.opts.Observe.Tokens(b.key, "cached", a.seq.cached)
		}
	}
}

// clearSlots clears the cells of the slots that the scheduler has cleared.
func (e *Executor) clearSlots(b *base) {
	for _, at := range b.scheduler.takeCleared() {
		b.runner.Truncate(at, 0)
	}
}

// decode runs the planned step and takes the results.
func (e *Executor) decode(b *base) time.Duration {
	p := &b.plan
	start := e.now()
	b.slices = b.slices[:0]
	for _, it := range p.items {
		q := it.seq
		q.stepBegins(start, it.draws())
		s := Slice{Seq: q.slot, Adapter: q.req.Adapter, Start: q.filled, Tokens: q.tokens[q.filled : q.filled+it.tokens], Index: q.answerTokens()}
		if it.draws() {
			s.Sampler = q.sampler
		}
		s.Score = q.score(it.tokens)
		b.slices = append(b.slices, s)
	}
	first := b.firstOfKind(b.slices)
	whole := e.runStep(b, b.slices)
	if e.opts.StepDelay > 0 {
		time.Sleep(e.opts.StepDelay)
	}
	now := e.now()
	if whole && !first {
		b.scheduler.budget.observe(p.work(), now-start)
	}
	if n := p.computedPrompt(b.slices); n > 0 {
		e.opts.Observe.Tokens(b.key, "prompt", n)
	}
	drawn := 0
	for i := range b.slices {
		drawn += e.takeResult(b, p.items[i].seq, &b.slices[i], now)
	}
	if drawn > 0 {
		e.opts.Observe.Tokens(b.key, "generated", drawn)
	}
	clear(b.slices)
	return now - start
}

// runStep runs one Step. When it fails as a whole, each half is tried on its own, and so on, so that in the end only
// the sequence at fault has an Err. False: it failed.
func (e *Executor) runStep(b *base, part []Slice) bool {
	work, phase := workOf(part)
	kind := PhaseStep
	if b.firstOfKind(part) {
		kind = PhaseFirstStep
	}
	e.heartbeat.begin(e.now(), kind, b.scheduler.budget.predict(work))
	start := time.Now()
	err := b.runner.Step(part)
	e.opts.Observe.Decode(b.key, phase, time.Since(start).Seconds(), work.decodes+work.prompts, len(part))
	if timer, ok := b.runner.(DrawTimer); ok {
		e.opts.Observe.Sampling(b.key, timer.DrawTime().Seconds())
	}
	if sampler, ok := b.runner.(DeviceSampler); ok {
		if d := sampler.DeviceDraws(); d != (DeviceDraws{}) {
			e.opts.Observe.DeviceDraws(b.key, d.Draws, d.Repeated)
		}
	}
	if err == nil {
		return true
	}
	if len(part) == 1 {
		part[0].Err = err
		return false
	}
	e.opts.Log.Warn("step failed, trying its halves", "base", b.key, "sequences", len(part), "error", err)
	e.opts.Observe.DecodeError(b.key, string(stepFailureCode(err)))
	e.runStep(b, part[:len(part)/2])
	e.runStep(b, part[len(part)/2:])
	return false
}

// firstOfKind reports whether a step may take long for once.
func (b *base) firstOfKind(part []Slice) bool {
	first, ok := b.runner.(FirstTimer)
	return ok && first.FirstOfKind(part)
}

// workOf counts what a step holds and returns its phase for the metrics.
func workOf(part []Slice) (w stepWork, phase string) {
	for i := range part {
		n := len(part[i].Tokens)
		w.cells += attendedCells(part[i].Start, n)
		if n == 1 && part[i].Index > 0 {
			w.decodes++
		} else {
			w.prompts += n
		}
	}
	switch {
	case w.prompts == 0:
		return w, "decode"
	case w.decodes == 0:
		return w, "prefill"
	}
	return w, "mixed"
}
