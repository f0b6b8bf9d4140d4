package batch

import (
	"bytes"
	"errors"
	"math"
	"time"
)

// takeResult takes one sequence's result of a step and returns how many tokens were drawn.
func (e *Executor) takeResult(b *base, q *sequence, s *Slice, now time.Duration) int {
	if s.Err != nil {
		e.sequenceFailed(b, q, s.Err)
		return 0
	}
	if q.wantsScores() {
		e.takeScores(b, q, s)
	}
	q.filled += len(s.Tokens)
	switch {
	case s.Sampler == nil:
		return 0
	case s.Sampler.Constrained():
		q.stage = stageDrawing
		if q.jobRunning {
			return 0
		}
		return e.drawConstrained(b, q, now)
	}
	e.takeToken(b, q, s.Draw, now)
	return 1
}

// drawConstrained adds the next tokens of a sequence whose grammar is ready, the forced ones or a drawn one, and
// returns how many.
func (e *Executor) drawConstrained(b *base, q *sequence, now time.Duration) int {
	q.stage = stageReady
	if len(q.forced) > 0 {
		return e.takeForced(b, q, now)
	}
	d, err := q.sampler.Draw(q.answerTokens())
	if err != nil {
		e.fail(q, samplerFailure(err))
		return 0
	}
	q.feedTogether = 1
	if e.takeToken(b, q, d, now); q.stage != stageEnded {
		e.startJob(q)
	}
	return 1
}

// takeForced adds the tokens that a grammar forces. The grammar is past them already, so the next draw needs no worker.
func (e *Executor) takeForced(b *base, q *sequence, now time.Duration) int {
	forced := q.forced
	q.forced = nil
	q.feedTogether = min(len(forced), maxForcedTokens, b.limits.StepTokens)
	if q.req.ReplaySteps { // such a request feeds one token a step each time
		q.feedTogether = 1
	}
	q.takingForced = len(forced) > 1
	defer func() { q.takingForced = false }()
	for i, t := range forced {
		e.takeToken(b, q, Draw{Token: t, Logprob: float32(math.NaN()), Margin: float32(math.Inf(1))}, now)
		if q.stage == stageEnded {
			return i + 1
		}
	}
	return len(forced)
}

// sequenceFailed preempts or fails a sequence that couldn't be decoded.
func (e *Executor) sequenceFailed(b *base, q *sequence, err error) {
	shared := b.scheduler.othersInSlots(q) || len(b.plan.preempted) > 0
	again := errors.Is(err, ErrCellsLost) || errors.Is(err, ErrNoCells) && shared
	if again && q.preempted < maxNoCellsPreemptions {
		b.scheduler.preempt(q, &b.plan)
		e.notePreemption(b, q)
		return
	}
	e.opts.Log.Error("sequence failed", "base", b.key, "request", q.req.ID, "error", err)
	e.fail(q, Failure{stepFailureCode(err), err.Error()})
}

// stepFailureCode is the code for an error of a step, or of a sampler in it.
func stepFailureCode(err error) FailureCode {
	switch {
	case errors.Is(err, ErrNoCells):
		return FailOutOfMemory
	case errors.Is(err, ErrGrammarTooComplex):
		return FailGrammarTooHard
	}
	return FailDecode
}

// samplerFailure is the failure for an error of a grammar.
func samplerFailure(err error) Failure {
	if errors.Is(err, ErrGrammarTooComplex) {
		return Failure{FailGrammarTooHard, err.Error()}
	}
	return Failure{FailInternal, err.Error()}
}

func (e *Executor) notePreemption(b *base, q *sequence) {
	e.opts.Observe.Preempted(b.key)
	e.opts.Log.Debug("sequence preempted", "base", b.key, "request", q.req.ID, "tokens", len(q.tokens), "times", q.preempted)
}

// takeToken adds a drawn token to its sequence: text, end of the answer, outbox.
func (e *Executor) takeToken(b *base, q *sequence, d Draw, now time.Duration) {
	index := q.answerTokens()
	since := q.tokenDrawn(now)
	q.tokens = append(q.tokens, d.Token)
	last := b.runner.IsEnd(d.Token)
	var piece []byte
	if !last {
		piece = q.pieceOf(b.runner, d.Token)
	}
	text, stopped := q.text.push(piece)
	reason, over := answerEnds(q.req, b.limits, index+1, last || stopped)
	if over {
		text = q.text.finish()
	}
	if q.takingForced { // the assembler reuses its buffer for the next token, which is emitted together with this one
		text = bytes.Clone(text)
	}
	step := e.outbox.stepFor(q.req.Sink)
	step.Tokens = append(step.Tokens, StepToken{
		ID: q.req.ID, Attempt: q.req.Attempt, Index: index, Token: d.Token, Text: text, TextEnd: q.text.releasedBytes,
		Logprob: d.Logprob, Margin: d.Margin, SinceLast: since, Top: withTexts(b.runner, d.Top),
	})
	if !last && q.req.Sampling.wantsLogprobs() {
		step.Tokens[len(step.Tokens)-1].Piece = b.runner.TokenText(d.Token)
	}
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
	b.scheduler.remove(q, reason != FinishError) // after an error the content of its cells is unknown
	b.blocked = false
	step := e.outbox.stepFor(q.req.Sink)
	step.Done = append(step.Done, q.summary(reason, f, e.now()))
	e.retire(q)
}

// retire closes an ended sequence's sampler as soon as no worker has it, and lists the sequence for releaseEnded.
func (e *Executor) retire(q *sequence) {
	if q.jobRunning {
		return
	}
	if q.sampler != nil {
		q.sampler.Close()
	}
	e.ended = append(e.ended, q)
}

// flush emits the outbox and releases the ended sequences.
func (e *Executor) flush(base string, took time.Duration) {
	e.outbox.flush(base, took)
	for _, s := range e.outbox.goneSinks {
		e.dropSink(s)
	}
	e.releaseEnded()
}

// releaseEnded removes the ended sequences and calls their Release.
func (e *Executor) releaseEnded() {
	if len(e.ended) == 0 {
		return
	}
	e.mu.Lock()
	for _, q := range e.ended {
		delete(e.requests, q.key())
		q.job.base.sequenceCount--
	}
	e.mu.Unlock()
	for _, q := range e.ended {
		if q.req.Release != nil {
			q.req.Release()
		}
	}
	clear(e.ended)
	e.ended = e.ended[:0]
}
