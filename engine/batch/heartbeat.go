package batch

import (
	"sync/atomic"
	"time"
)

const (
	stallFactor = 20 // a step that takes this many times longer than predicted is hung
	// A call may take this many times the floor: it may make a context and run it once. So may a step of a kind that
	// the device hasn't computed yet: it may have to compile that.
	callFactor = 10
)

// heartbeat shows that the step loop works: written by the executor's goroutine, read by any.
type heartbeat struct {
	minBudget time.Duration
	phase     atomic.Uint32
	counter   atomic.Uint64
	movedAt   atomic.Int64 // time of the executor's clock
	budget    atomic.Int64
}

func (h *heartbeat) init(floor time.Duration) {
	h.minBudget = floor
	h.budget.Store(int64(floor))
}

// begin notes that a phase begins and how long it is expected to take (0: unknown).
func (h *heartbeat) begin(now time.Duration, phase Phase, predicted time.Duration) {
	budget := max(h.minBudget, stallFactor*predicted)
	switch phase {
	case PhaseCall:
		budget = callFactor * h.minBudget
	case PhaseFirstStep:
		budget = max(budget, callFactor*h.minBudget)
	}
	h.movedAt.Store(int64(now)) // before the budget, which is read before it: see at
	h.budget.Store(int64(budget))
	h.phase.Store(uint32(phase))
	h.counter.Add(1)
}

// at is the state at a time. Whoever reads the budget of a phase finds its beginning as well, so that the age of a long
// phase is never held against the budget of the short one after it.
func (h *heartbeat) at(now time.Duration) Heartbeat {
	b := Heartbeat{Phase: Phase(h.phase.Load()), Counter: h.counter.Load(), Budget: time.Duration(h.budget.Load())}
	b.Age = max(now-time.Duration(h.movedAt.Load()), 0)
	return b
}

// Heartbeat is the state of the executor's goroutine: Counter moves at least once a second while idle, and with every
// step.
type Heartbeat struct {
	Phase   Phase
	Counter uint64
	Age     time.Duration // since Counter moved
	Budget  time.Duration // Age above this means hung
}

// Phase is what the executor does now.
type Phase uint8

// Phases of the executor.
const (
	PhaseIdle Phase = iota
	PhaseStep
	PhaseCall      // a function given to Do
	PhaseFirstStep // a step of a kind that the device may have to compile
)
