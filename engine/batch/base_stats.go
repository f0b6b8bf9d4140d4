package batch

import (
	"slices"
)

// stats describes the base between steps.
func (b *base) stats() BaseStats {
	s := BaseStats{Base: b.key, Cells: b.limits.Cells, FreeCells: b.limits.Cells, Sequences: b.limits.Sequences}
	for i := range b.scheduler.slots {
		q := b.scheduler.slots[i].seq
		if q == nil {
			continue
		}
		s.FreeCells -= len(q.tokens)
		if q.stage == stageAwaiting {
			s.FreeCells += q.awaitedTokens
		}
		if q.decoding() {
			s.Decoding++
		} else {
			s.Prefilling++
		}
	}
	s.FreeCells = max(s.FreeCells+b.scheduler.repeatedInUse(), 0)
	inSlots := s.Prefilling + s.Decoding
	s.FreeSequences = s.Sequences - inSlots
	s.Waiting = b.sequenceCount - inSlots // for a slot, or for a worker before its first slot or after its last
	return s
}

// Stats of every base, by key, as of the last step plus what was submitted since.
func (e *Executor) Stats() []BaseStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := slices.Clone(e.stats)
	for i := range list {
		if b := e.bases[list[i].Base]; b != nil {
			list[i].Waiting += b.inboxCount
		}
	}
	return list
}

// BaseStats is what the proxy's dispatch decision and the gauges need. Taken between steps.
type BaseStats struct {
	Base          string
	FreeSequences int
	Sequences     int // free or not: the proxy's flow control counts with it
	Prefilling    int
	Decoding      int
	Waiting       int // preempted, or submitted and not yet in a sequence
	FreeCells     int
	Cells         int
}
