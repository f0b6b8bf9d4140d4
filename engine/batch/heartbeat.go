package batch

import (
	"sync/atomic"
	"time"
)

const (
	stallFactor = 20 // a step that takes this many times longer than predicted is hung
	callFactor  = 10 // a call may take this many times the floor: it may make a context and run it once
)

// heartbeat is the step loop's sign of life: written by the executor's goroutine, read by any.
type heartbeat struct {
	floor   time.Duration
	phase   atomic.Uint32
	counter atomic.Uint64
	moved   atomic.Int64 // reading of the executor's clock
	budget  atomic.Int64
}

func (h *heartbeat) init(floor time.Duration) {
	h.floor = floor
	h.budget.Store(int64(floor))
}

// move notes that something new begins and how long it is expected to take (0: unknown).
func (h *heartbeat) move(now time.Duration, phase Phase, predicted time.Duration) {
	budget := max(h.floor, stallFactor*predicted)
	if phase == PhaseCall {
		budget = callFactor * h.floor
	}
	h.budget.Store(int64(budget))
	h.phase.Store(uint32(phase))
	h.moved.Store(int64(now))
	h.counter.Add(1)
}

func (h *heartbeat) at(now time.Duration) Heartbeat {
	return Heartbeat{
		Phase: Phase(h.phase.Load()), Counter: h.counter.Load(),
		Age: max(now-time.Duration(h.moved.Load()), 0), Budget: time.Duration(h.budget.Load()),
	}
}
