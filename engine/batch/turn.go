package batch

import (
	"context"
	"time"
)

// Turn is what a function given to TakeTurn may know.
type Turn struct {
	// Limit is how long the function should take at most, since steps or other turns wait; 0: nobody does.
	Limit  time.Duration
	expect func(Phase, time.Duration)
	count  func(base string, took time.Duration, tokens, texts, done int)
}

// Expect says how long the rest of the turn will take, for the heartbeat; without it, any turn that takes as long as
// Options.StallFloor counts as hung.
func (t Turn) Expect(d time.Duration) {
	if t.expect != nil {
		t.expect(PhaseStep, d)
	}
}

// ExpectFirst is Expect for the first of its kind: the device may have to compile it, or nobody knows how long it
// takes. It has the time of a call.
func (t Turn) ExpectFirst(d time.Duration) {
	if t.expect != nil {
		t.expect(PhaseFirstStep, d)
	}
}

// Computed counts what the turn computed for a base: tokens of so many texts, of which some are done now.
func (t Turn) Computed(base string, took time.Duration, tokens, texts, done int) {
	if t.count != nil {
		t.count(base, took, tokens, texts, done)
	}
}

// TakeTurn runs fn on the executor's goroutine and returns its error. While somebody decodes, turns and steps
// alternate: after each step at most one turn, in the order of TakeTurn. Those that take turns wait for each, so there
// are no more turns than of them. ctx only ends the wait while fn is queued.
func (e *Executor) TakeTurn(ctx context.Context, fn func(Turn) error) error {
	c := &call{turn: fn, done: make(chan struct{})}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrClosed
	}
	e.turns = append(e.turns, c)
	e.mu.Unlock()
	e.signal()
	return c.wait(ctx)
}

// runTurn runs the next turn and reports whether there was one. othersWait: there is a step to do.
func (e *Executor) runTurn(othersWait bool) bool {
	e.mu.Lock()
	var c *call
	if len(e.turns) > 0 {
		c, e.turns = e.turns[0], e.turns[1:]
		othersWait = othersWait || len(e.turns) > 0
	}
	e.mu.Unlock()
	if c == nil {
		return false
	}
	if c.claimed.CompareAndSwap(false, true) {
		t := Turn{expect: func(p Phase, d time.Duration) { e.heartbeat.begin(e.now(), p, d) }, count: e.countTurn}
		if othersWait {
			t.Limit = e.opts.TargetStep
		}
		t.Expect(0)
		c.err = c.turn(t)
		close(c.done)
	}
	return true
}

// refuseTurns ends the turns of an executor that is closing.
func (e *Executor) refuseTurns() {
	e.mu.Lock()
	turns := e.turns
	e.turns = nil
	e.mu.Unlock()
	for _, c := range turns {
		if c.claimed.CompareAndSwap(false, true) {
			c.err = ErrClosed
			close(c.done)
		}
	}
}

func (e *Executor) countTurn(base string, took time.Duration, tokens, texts, done int) {
	e.opts.Observe.Decode(base, "prefill", took.Seconds(), tokens, texts)
	e.opts.Observe.Tokens(base, "prompt", tokens)
	if done > 0 {
		e.opts.Observe.Embedded(base, done)
	}
}
