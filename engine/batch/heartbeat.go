package batch

import (
	"sync/atomic"
	"time"
)

const (
	stallFactor = 20 // a step that takes this many times longer than predicted is hung
	callFactor  = 10 // a call may take this many times the floor: it may make a context and run it once
)

// pulse is the heartbeat: written by the executor's goroutine, read by any.
type pulse struct {
	floor   time.Duration
	phase   atomic.Uint32
	counter atomic.Uint64
	moved   atomic.Int64 // reading of the executor's clock
	budget  atomic.Int64
}

func (p *pulse) init(floor time.Duration) {
	p.floor = floor
	p.budget.Store(int64(floor))
}

// move notes that something new begins and how long it is expected to take (0: unknown).
func (p *pulse) move(now time.Duration, phase Phase, predicted time.Duration) {
	budget := max(p.floor, stallFactor*predicted)
	if phase == PhaseCall {
		budget = callFactor * p.floor
	}
	p.budget.Store(int64(budget))
	p.phase.Store(uint32(phase))
	p.moved.Store(int64(now))
	p.counter.Add(1)
}

func (p *pulse) beat(now time.Duration) Beat {
	return Beat{
		Phase: Phase(p.phase.Load()), Counter: p.counter.Load(),
		Age: max(now-time.Duration(p.moved.Load()), 0), Budget: time.Duration(p.budget.Load()),
	}
}
