package batch

import "slices"

// The part of the scheduler that knows where KV cells and slots go: admission, kept prefixes, preemption.

// admission gives a waiting sequence a slot.
type admission struct {
	seq  *sequence
	slot int
	keep int // cells of a finished sequence in that slot that it takes over
	copy int // cells to copy from the slot named from
	from int
}

// admit gives the first waiting sequence a slot if there is one and its tokens fit beside what the others will need.
func (s *scheduler) admit() (admission, bool) {
	if len(s.waiting) == 0 || !s.fits(s.waiting[0]) {
		return admission{}, false
	}
	q := s.waiting[0]
	a, ok := s.place(q)
	if !ok {
		return admission{}, false
	}
	s.waiting = slices.Delete(s.waiting, 0, 1)
	s.slots[a.slot] = slot{seq: q}
	q.stage, q.slot = stageReady, a.slot
	q.filled = a.keep + a.copy
	if !q.placed {
		q.placed, q.cached = true, min(q.filled, len(q.req.Prompt))
	}
	return a, true
}

// reuseFailed takes back what an admission promised when the runner couldn't keep or copy the cells.
func (s *scheduler) reuseFailed(q *sequence) {
	q.filled, q.cached = 0, 0
}

// fits tells whether the sequence's tokens, and some of the answer, have room beside those of the sequences in slots. One that is alone
// always gets in: validate made sure that its prompt fits.
func (s *scheduler) fits(q *sequence) bool {
	claimed, others := 0, false
	for i := range s.slots {
		if o := s.slots[i].seq; o != nil {
			claimed += len(o.tokens) + o.growth()
			others = true
		}
	}
	return !others || claimed+len(q.tokens)+q.growth() <= s.limits.Cells
}

// place finds a slot: one with a long common prefix, else a free one, else the one whose kept cells are the oldest.
func (s *scheduler) place(q *sequence) (admission, bool) {
	empty, oldest := -1, -1
	for i := range s.slots {
		sl := &s.slots[i]
		switch {
		case sl.seq != nil:
		case sl.kept == nil:
			if empty < 0 {
				empty = i
			}
		case oldest < 0 || sl.ended < s.slots[oldest].ended:
			oldest = i
		}
	}
	if empty < 0 && oldest < 0 {
		return admission{}, false
	}
	best, common := s.longestPrefix(q)
	if common >= minReuse {
		kept, room := s.slots[best].kept, s.free() >= common
		if kept != nil && (empty < 0 || common == len(kept) || !room) {
			return admission{seq: q, slot: best, keep: common}, true
		}
		if room {
			return admission{seq: q, slot: s.takeSlot(empty, oldest), copy: common, from: best}, true
		}
	}
	return admission{seq: q, slot: s.takeSlot(empty, oldest)}, true
}

// takeSlot gives the empty slot, or empties the oldest one that holds kept cells.
func (s *scheduler) takeSlot(empty, oldest int) int {
	if empty >= 0 {
		return empty
	}
	s.vacate(oldest)
	return oldest
}

// longestPrefix finds the slot that shares most cells with the sequence: same adapter, live or kept; a version that was loaded again is
// another adapter. The last token is never taken from the cache, since its logits are needed.
func (s *scheduler) longestPrefix(q *sequence) (at, common int) {
	at = -1
	if !s.limits.Prefix {
		return at, 0
	}
	most := q.chunk()
	if q.answer() == 0 {
		most--
	}
	for i := range s.slots {
		sl := &s.slots[i]
		have, adapter := sl.kept, sl.adapter
		if sl.seq != nil {
			have, adapter = sl.seq.tokens[:sl.seq.filled], sl.seq.req.Adapter
		}
		if adapter != q.req.Adapter || len(have) <= common {
			continue
		}
		n := commonPrefix(have, q.tokens[:most])
		if n > common {
			at, common = i, n
		}
	}
	return at, common
}

func commonPrefix(a, b []Token) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// free is how many cells nobody holds. A shared prefix counts for each of its sequences, which errs on the safe side.
func (s *scheduler) free() int {
	n := s.limits.Cells
	for i := range s.slots {
		n -= len(s.slots[i].kept)
		if q := s.slots[i].seq; q != nil {
			n -= q.filled
		}
	}
	return n
}

// dropKept gives up the kept cells that were left longest ago.
func (s *scheduler) dropKept() bool {
	oldest := -1
	for i := range s.slots {
		if s.slots[i].kept != nil && (oldest < 0 || s.slots[i].ended < s.slots[oldest].ended) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	s.vacate(oldest)
	return true
}

// giveWay preempts the newest sequence of the owner that holds most cells, unless it was preempted twice before.
func (s *scheduler) giveWay(p *plan) bool {
	held := make(map[string]int) // short of cells is rare; the allocation isn't felt
	active := 0
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil {
			active++
			held[q.req.Owner] += q.filled
		}
	}
	if active < 2 {
		return false
	}
	var victim *sequence
	for i := range s.slots {
		q := s.slots[i].seq
		if q == nil || q.stage != stageReady || q.filled == 0 || q.preempted >= 2 {
			continue
		}
		if victim == nil || worse(held, q, victim) {
			victim = q
		}
	}
	if victim == nil {
		return false
	}
	s.preempt(victim, p)
	return true
}

// worse tells whether a should give way before b.
func worse(held map[string]int, a, b *sequence) bool {
	if ha, hb := held[a.req.Owner], held[b.req.Owner]; ha != hb {
		return ha > hb
	}
	return a.arrival > b.arrival
}

// preempt takes a sequence's cells and puts it back in line with its tokens.
func (s *scheduler) preempt(q *sequence, p *plan) {
	s.vacate(q.slot)
	q.filled = 0
	q.preempted++
	s.enqueue(q)
	p.preempted = append(p.preempted, q)
}

// unblock is for when no ready sequence gets the cells it needs and those that may be preempted were. The newest gives way whatever
// happened to it before; the oldest never does, so something always ends. One that is alone can't be helped. True: plan again.
func (s *scheduler) unblock(p *plan) bool {
	var newest *sequence
	active := 0
	for i := range s.slots {
		q := s.slots[i].seq
		if q == nil {
			continue
		}
		if q.stage == stageDrawing {
			return false // its draw will change things
		}
		active++
		if newest == nil || q.arrival > newest.arrival {
			newest = q
		}
	}
	switch {
	case active == 0:
		return false
	case active == 1:
		p.starved = newest
		return false
	}
	s.preempt(newest, p)
	return true
}

// others tells whether any other sequence is in a slot.
func (s *scheduler) others(q *sequence) bool {
	for i := range s.slots {
		if o := s.slots[i].seq; o != nil && o != q {
			return true
		}
	}
	return false
}
