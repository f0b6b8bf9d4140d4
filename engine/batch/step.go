package batch

import (
	"bytes"
	"errors"
	"math"
	"time"
)

const (
	noCellsTries = 4  // how often a sequence for which the runner found no cells waits for others to end before it fails
	forcedRun    = 16 // forced tokens that one sequence feeds in a step at most; the rest of a longer run goes the way of a prompt
)

// step lets one base decode once: admit, plan, make room, decode, hand out what was drawn.
func (e *Executor) step(b *base) {
	e.admit(b)
	if !b.sched.plan(&b.plan, len(e.ready) > 1) {
		b.stalled = true
	}
	e.forget(b)
	for _, q := range b.plan.preempted {
		e.preempted(b, q)
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

// admit gives slots to waiting sequences and carries over the cells that they can reuse.
func (e *Executor) admit(b *base) {
	for {
		a, ok := b.sched.admit()
		e.forget(b)
		if !ok {
			return
		}
		first := a.seq.cached > 0 && a.seq.preempted == 0
		if a.keep > 0 && !b.runner.Truncate(a.slot, a.keep) || a.copy > 0 && !b.runner.CopyPrefix(a.from, a.slot, a.copy) {
			b.sched.reuseFailed(a.seq)
		}
		if first && a.seq.cached > 0 {
			e.opts.Observe.Tokens(b.key, "cached", a.seq.cached)
		}
	}
}

// forget clears the cells of slots that were given up.
func (e *Executor) forget(b *base) {
	for _, at := range b.sched.takeCleared() {
		b.runner.Truncate(at, 0)
	}
}

// decode runs the planned step and hands out the results.
func (e *Executor) decode(b *base) time.Duration {
	p := &b.plan
	start := e.now()
	b.slices = b.slices[:0]
	for _, it := range p.items {
		q := it.seq
		q.start(start, it.draws())
		s := Slice{Seq: q.slot, Start: q.filled, Tokens: q.tokens[q.filled : q.filled+it.tokens], Index: q.answer()}
		if it.draws() {
			s.Sampler = q.sampler
		}
		b.slices = append(b.slices, s)
	}
	whole := e.attempt(b, b.slices)
	if e.opts.StepDelay > 0 {
		time.Sleep(e.opts.StepDelay)
	}
	now := e.now()
	if whole {
		b.sched.pace.measured(p.decodes, p.prompts, now-start)
	}
	if n := p.prompts - p.runs; n > 0 {
		e.opts.Observe.Tokens(b.key, "prompt", n)
	}
	drawn := 0
	for i := range b.slices {
		drawn += e.settle(b, p.items[i].seq, &b.slices[i], now)
	}
	if drawn > 0 {
		e.opts.Observe.Tokens(b.key, "generated", drawn)
	}
	clear(b.slices)
	return now - start
}

// attempt runs one Step. When it fails as a whole it is tried again in halves, so that in the end only the sequence that is to blame has
// an Err. False: it failed.
func (e *Executor) attempt(b *base, part []Slice) bool {
	decodes, prompts, phase := kinds(part)
	e.heartbeat.move(e.now(), PhaseStep, b.sched.pace.predict(decodes, prompts))
	start := time.Now()
	err := b.runner.Step(b.plan.adapter, part)
	e.opts.Observe.Decode(b.key, phase, time.Since(start).Seconds(), decodes+prompts, len(part))
	if timer, ok := b.runner.(DrawTimer); ok {
		e.opts.Observe.Sampling(b.key, timer.DrawTime().Seconds())
	}
	if err == nil {
		return true
	}
	if len(part) == 1 {
		part[0].Err = err
		return false
	}
	e.opts.Log.Warn("step failed, trying its halves", "base", b.key, "sequences", len(part), "error", err)
	e.opts.Observe.DecodeError(b.key, string(failureOf(err)))
	e.attempt(b, part[:len(part)/2])
	e.attempt(b, part[len(part)/2:])
	return false
}

// kinds counts what a step holds and names it for the metrics.
func kinds(part []Slice) (decodes, prompts int, phase string) {
	for i := range part {
		if n := len(part[i].Tokens); n == 1 && part[i].Index > 0 {
			decodes++
		} else {
			prompts += n
		}
	}
	switch {
	case prompts == 0:
		return decodes, prompts, "decode"
	case decodes == 0:
		return decodes, prompts, "prefill"
	}
	return decodes, prompts, "mixed"
}

// settle takes in one sequence's result and returns how many tokens were drawn.
func (e *Executor) settle(b *base, q *sequence, s *Slice, now time.Duration) int {
	if s.Err != nil {
		e.stepFailed(b, q, s.Err)
		return 0
	}
	q.filled += len(s.Tokens)
	switch {
	case s.Sampler == nil:
		return 0
	case s.Sampler.Constrained():
		q.stage = stageDrawing
		if q.busy {
			return 0
		}
		return e.constrained(b, q, now)
	}
	e.token(b, q, s.Draw, now)
	return 1
}

// constrained gives a sequence whose grammar is ready its next tokens, the forced ones or a drawn one, and returns how many.
func (e *Executor) constrained(b *base, q *sequence, now time.Duration) int {
	q.stage = stageReady
	if len(q.forced) > 0 {
		return e.force(b, q, now)
	}
	d, err := q.sampler.Draw(q.answer())
	if err != nil {
		e.fail(q, samplerFailure(err))
		return 0
	}
	q.run = 1
	if e.token(b, q, d, now); q.stage != stageEnded {
		e.dispatch(q)
	}
	return 1
}

// force takes in what a grammar left no choice about. The grammar is past it already, so the next draw needs no worker.
func (e *Executor) force(b *base, q *sequence, now time.Duration) int {
	forced := q.forced
	q.forced = nil
	q.run = min(len(forced), forcedRun, b.limits.StepTokens)
	if q.req.ReplaySteps { // such a request feeds its answer in the same steps each time
		q.run = 1
	}
	q.together = len(forced) > 1
	defer func() { q.together = false }()
	for i, t := range forced {
		e.token(b, q, Draw{Token: t, Logprob: float32(math.NaN()), Margin: float32(math.Inf(1))}, now)
		if q.stage == stageEnded {
			return i + 1
		}
	}
	return len(forced)
}

// stepFailed deals with a sequence that couldn't be decoded.
func (e *Executor) stepFailed(b *base, q *sequence, err error) {
	shared := b.sched.others(q) || len(b.plan.preempted) > 0
	if errors.Is(err, ErrNoCells) && q.preempted < noCellsTries && shared {
		b.sched.preempt(q, &b.plan)
		e.preempted(b, q)
		return
	}
	e.opts.Log.Error("sequence failed", "base", b.key, "request", q.req.ID, "error", err)
	e.fail(q, Failure{failureOf(err), err.Error()})
}

// failureOf names the error of a step, or of a sampler in it.
func failureOf(err error) FailureCode {
	switch {
	case errors.Is(err, ErrNoCells):
		return FailOutOfMemory
	case errors.Is(err, ErrGrammarTooComplex):
		return FailGrammarTooHard
	}
	return FailDecode
}

// samplerFailure names what went wrong with a grammar.
func samplerFailure(err error) Failure {
	if errors.Is(err, ErrGrammarTooComplex) {
		return Failure{FailGrammarTooHard, err.Error()}
	}
	return Failure{FailInternal, err.Error()}
}

func (e *Executor) preempted(b *base, q *sequence) {
	e.opts.Observe.Preempted(b.key)
	e.opts.Log.Debug("sequence preempted", "base", b.key, "request", q.req.ID, "tokens", len(q.tokens), "times", q.preempted)
}

// token takes in a drawn token: text, end, event.
func (e *Executor) token(b *base, q *sequence, d Draw, now time.Duration) {
	index := q.answer()
	since := q.drew(now)
	q.tokens = append(q.tokens, d.Token)
	last := b.runner.IsEnd(d.Token)
	var piece []byte
	if !last {
		piece = b.runner.Piece(d.Token)
	}
	text, stopped := q.text.push(piece)
	reason, over := ends(q.req, b.limits, index+1, last || stopped)
	if over {
		text = q.text.finish()
	}
	if q.together { // the assembler uses its memory again for the next token, which goes out together with this one
		text = bytes.Clone(text)
	}
	step := e.out.to(q.req.Sink)
	step.Tokens = append(step.Tokens, StepToken{
		ID: q.req.ID, Attempt: q.req.Attempt, Index: index, Token: d.Token, Text: text, TextEnd: q.text.end,
		Logprob: d.Logprob, Margin: d.Margin, SinceLast: since, Top: d.Top,
	})
	if over {
		e.finish(q, reason, Failure{})
	}
}

func (e *Executor) fail(q *sequence, f Failure) {
	e.opts.Observe.DecodeError(q.job.base.key, string(f.Code))
	e.finish(q, FinishError, f)
}

// finish ends a sequence; its Summary goes out with the next flush, then its Release is called.
func (e *Executor) finish(q *sequence, reason FinishReason, f Failure) {
	b := q.job.base
	b.sched.end(q, reason != FinishError) // after an error nobody knows what its cells hold
	b.stalled = false
	step := e.out.to(q.req.Sink)
	step.Done = append(step.Done, q.summary(reason, f, e.now()))
	e.leave(q)
}

// leave lets go of an ended sequence as soon as no worker has it.
func (e *Executor) leave(q *sequence) {
	if q.busy {
		return
	}
	if q.sampler != nil {
		q.sampler.Close()
	}
	e.released = append(e.released, q)
}

// flush emits what was gathered and releases what ended.
func (e *Executor) flush(base string, took time.Duration) {
	e.out.flush(base, took)
	for _, s := range e.out.gone {
		e.dropSink(s)
	}
	e.release()
}

// release forgets the ended sequences.
func (e *Executor) release() {
	if len(e.released) == 0 {
		return
	}
	e.mu.Lock()
	for _, q := range e.released {
		delete(e.live, q.key())
		q.job.base.owned--
	}
	e.mu.Unlock()
	for _, q := range e.released {
		if q.req.Release != nil {
			q.req.Release()
		}
	}
	clear(e.released)
	e.released = e.released[:0]
}
