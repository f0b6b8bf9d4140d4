package batch

import "slices"

// The part of the scheduler that assigns KV cells and slots: admission, prefix reuse, preemption.

// admission gives a sequence a slot.
type admission struct {
	seq       *sequence
	slot      int
	keepCells int // cells of a finished sequence in that slot that it reuses
	copyCells int // cells to copy from the slot named from
	copyFrom  int
	first     bool // the sequence had none before, so what it reuses counts as cached

	// Not nil: the sequence only takes its place, and waits until the leader has computed so many tokens.
	leader        *sequence
	awaitedTokens int
}

// admit gives a sequence a slot: one whose wait for another's cells is over, or the first in the queue if there is a
// slot and its tokens fit beside what the others will need.
func (s *scheduler) admit() (admission, bool) {
	q := s.nextOverWait()
	if q != nil {
		s.slots[q.slot] = slot{} // it has no cells, so it can get another slot as well
	} else if len(s.waiting) > 0 && s.mayFit(s.waiting[0]) {
		q = s.waiting[0]
	} else {
		return admission{}, false
	}
	a, ok := s.findSlot(q)
	if !ok {
		return admission{}, false
	}
	if q.stage == stageWaiting {
		if !s.fits(a) {
			return admission{}, false
		}
		s.waiting = slices.Delete(s.waiting, 0, 1)
	}
	s.takeSlot(a)
	q.slot, q.leader, q.awaitedTokens = a.slot, a.leader, a.awaitedTokens
	if a.leader != nil {
		q.stage = stageAwaiting
		return a, true
	}
	q.stage, q.filled = stageReady, a.keepCells+a.copyCells
	if a.first = !q.hadSlot; a.first {
		q.hadSlot, q.cached = true, min(q.filled, len(q.req.Prompt))
	}
	return a, true
}

// undoReuse is for when the runner couldn't keep or copy the cells of an admission. A model that can't copy those of a
// running sequence never can, so nobody waits for any again.
func (s *scheduler) undoReuse(a admission) {
	a.seq.filled = 0
	s.shared.cut(a.slot, 0)
	if a.first { // what was reused before a preemption was reused
		a.seq.cached = 0
	}
	s.copyFailed = s.copyFailed || a.copyCells > 0
}

// mayFit reports whether a waiting sequence fits if it shares all that it may.
func (s *scheduler) mayFit(q *sequence) bool { return s.fitsSharing(q, q.reusableTokens()) }

// fits reports whether the tokens of a sequence, and some of the answer, have room beside those of the sequences in
// slots, with which it shares what it keeps or copies.
func (s *scheduler) fits(a admission) bool {
	shared := 0
	switch {
	case a.keepCells > 0:
		shared = min(a.keepCells, s.shared.most(a.slot, s.inUse))
	case a.copyCells > 0 && s.inUse(a.copyFrom):
		shared = a.copyCells
	case a.copyCells > 0:
		shared = min(a.copyCells, s.shared.most(a.copyFrom, s.inUse))
	}
	return s.fitsSharing(a.seq, shared)
}

// fitsSharing reports whether a sequence has room beside those in slots if it shares so many cells with them. One that
// is alone always has: validate made sure that its prompt fits. So has one with a stream of its own. What a sequence
// awaits isn't counted as shared, since its leader may not get that far.
func (s *scheduler) fitsSharing(q *sequence, cells int) bool {
	if s.limits.StreamCells > 0 {
		return true
	}
	claimed, others := 0, false
	for i := range s.slots {
		if o := s.slots[i].seq; o != nil {
			claimed += len(o.tokens) + o.reserveCells()
			others = true
		}
	}
	claimed -= s.repeatedInUse()
	return !others || claimed+len(q.tokens)-cells+q.reserveCells() <= s.limits.Cells
}

// inUse reports whether a slot has a sequence.
func (s *scheduler) inUse(slot int) bool { return s.slots[slot].seq != nil }

// repeatedInUse is how often cells are counted too much in the sum of those of the sequences in slots.
func (s *scheduler) repeatedInUse() int {
	if s.shared.repeated == 0 {
		return 0
	}
	return s.shared.repeatedAsBefore(s.inUse)
}

// findSlot finds a slot and what is reused in it. Nobody loses by a sequence that goes on from what a slot keeps, but
// for a few tokens at its end. Any other gets a free slot, or that of the cells that nobody has used for the longest
// time, and a copy of what another one has in common with it.
func (s *scheduler) findSlot(q *sequence) (admission, bool) {
	free, oldest := s.freeSlot(), s.oldestPrefix()
	if free < 0 && oldest < 0 {
		return admission{}, false
	}
	to, own := free, 0 // own: what that slot has of it
	if free < 0 {
		to, own = oldest, s.commonPrefix(q, oldest)
	}
	source, common := s.longestPrefix(q)
	if leader, soon := s.prefixInPrefill(q); s.worthAwaiting(soon - common) {
		return admission{seq: q, slot: s.slotToWaitIn(q, to, own), leader: leader, awaitedTokens: soon}, true
	}
	switch {
	case common < minReuseTokens:
		return admission{seq: q, slot: to}, true
	case s.isContinued(source, common):
		return admission{seq: q, slot: source, keepCells: common}, true
	case source != to && common-own >= s.limits.CopyTokens:
		return admission{seq: q, slot: to, copyCells: common, copyFrom: source}, true
	case own >= minReuseTokens:
		return admission{seq: q, slot: to, keepCells: own}, true
	}
	return admission{seq: q, slot: to}, true
}

// slotToWaitIn is the slot that a sequence takes that only waits: to, unless that keeps more of its beginning (own)
// than any other one does. Its leader may not get that far, so then it is the next oldest, if there is one.
func (s *scheduler) slotToWaitIn(q *sequence, to, own int) int {
	if own < minReuseTokens || s.oldestKept(func(at int) bool { return at != to && s.commonPrefix(q, at) >= own }) >= 0 {
		return to
	}
	if other := s.oldestKept(func(at int) bool { return at != to }); other >= 0 {
		return other
	}
	return to
}

// freeSlot is the first slot without a sequence and without kept cells; -1: there is none.
func (s *scheduler) freeSlot() int {
	return slices.IndexFunc(s.slots, func(sl slot) bool { return sl.seq == nil && sl.keptTokens == nil })
}

// oldestPrefix is the slot whose kept cells' sequence ended first; -1: there is none.
func (s *scheduler) oldestPrefix() int { return s.oldestKept(func(int) bool { return true }) }

// oldestKept is the same of some slots.
func (s *scheduler) oldestKept(some func(slot int) bool) int {
	oldest := -1
	for i := range s.slots {
		if s.slots[i].keptTokens != nil && (oldest < 0 || s.slots[i].keptSince < s.slots[oldest].keptSince) && some(i) {
			oldest = i
		}
	}
	return oldest
}

// takeSlot puts a sequence into its slot, with the cells that it keeps or copies.
func (s *scheduler) takeSlot(a admission) {
	if s.slots[a.slot].keptTokens != nil && a.keepCells == 0 {
		s.clearSlot(a.slot)
	}
	s.slots[a.slot] = slot{seq: a.seq}
	s.shared.cut(a.slot, a.keepCells)
	if a.copyCells > 0 && s.limits.StreamCells == 0 {
		s.shared.copied(a.copyFrom, a.slot, a.copyCells)
	}
}

// longestPrefix finds the slot whose cells share the longest prefix with the sequence, in use or kept. Of several it
// prefers the one that loses least when it is taken over: one that is continued, then the oldest.
func (s *scheduler) longestPrefix(q *sequence) (at, common int) {
	at = -1
	for i := range s.slots {
		n := s.commonPrefix(q, i)
		if n > common || n > 0 && n == common && s.takenBefore(i, at, n) {
			at, common = i, n
		}
	}
	return at, common
}

// isContinued reports whether a sequence with so many tokens in common with what a slot keeps may cut the rest of it:
// so few that they wouldn't be reused. The last tokens of an answer may be others when a client sends it back, and what
// differs in short questions without a conversation isn't worth a slot.
func (s *scheduler) isContinued(at, common int) bool {
	kept := s.slots[at].keptTokens
	return kept != nil && len(kept)-common < minReuseTokens
}

// takenBefore reports whether slot a is rather taken over than b by a sequence that has so many tokens in common with
// both.
func (s *scheduler) takenBefore(a, b, common int) bool {
	ka, kb := &s.slots[a], &s.slots[b]
	switch {
	case ka.keptTokens == nil || kb.keptTokens == nil:
		return ka.keptTokens != nil && kb.keptTokens == nil
	case s.isContinued(a, common) != s.isContinued(b, common):
		return s.isContinued(a, common)
	}
	return ka.keptSince < kb.keptSince
}

// commonPrefix is how many tokens at its beginning the sequence may take from a slot's cells: of the same adapter (a
// version that was loaded again is another one), and never the last token, since its logits are needed.
func (s *scheduler) commonPrefix(q *sequence, at int) int {
	have, adapter := s.slots[at].keptTokens, s.slots[at].keptAdapter
	if o := s.slots[at].seq; o != nil {
		have, adapter = o.tokens[:o.filled], o.req.Adapter
	}
	if !s.limits.Prefix || adapter != q.req.Adapter {
		return 0
	}
	return commonPrefix(have, q.tokens[:q.reusableTokens()])
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

// freeCells is how many cells no slot holds.
func (s *scheduler) freeCells() int {
	n := s.limits.Cells + s.shared.repeated
	for i := range s.slots {
		n -= len(s.slots[i].keptTokens)
		if q := s.slots[i].seq; q != nil {
			n -= q.filled
		}
	}
	return n
}

// evictOldestPrefix clears the kept cells whose sequence ended first, of those that free any. Where several keep the
// same ones and free them only together, it is the first of these. false: sequences in slots have all of them as well.
func (s *scheduler) evictOldestPrefix() bool {
	all := func(int) bool { return true }
	oldest := s.oldestKept(func(at int) bool { return s.freedBy(at, all) > 0 })
	if oldest < 0 {
		oldest = s.oldestKept(func(at int) bool { return s.freedBy(at, s.inUse) > 0 })
	}
	if oldest < 0 {
		return false
	}
	s.clearSlot(oldest)
	return true
}

// freedBy is how many of the cells that a slot keeps none of some others has.
func (s *scheduler) freedBy(at int, others func(slot int) bool) int {
	return len(s.slots[at].keptTokens) - s.shared.most(at, others)
}

// preemptVictim preempts the newest sequence of the owner that holds most cells, unless it was preempted twice before.
func (s *scheduler) preemptVictim(p *plan) bool {
	active := 0
	for i := range s.slots {
		if s.inUse(i) {
			active++
		}
	}
	if active < 2 {
		return false
	}
	cellsByOwner := s.cellsByOwner()
	var victim *sequence
	for i := range s.slots {
		q := s.slots[i].seq
		if q == nil || q.stage != stageReady || q.filled == 0 || q.preempted >= 2 {
			continue
		}
		if victim == nil || preemptBefore(cellsByOwner, q, victim) {
			victim = q
		}
	}
	if victim == nil {
		return false
	}
	s.preempt(victim, p)
	return true
}

// cellsByOwner is how many cells would be free without the sequences of each owner, and without what is kept of them. A
// shortage of cells is rare, so the allocation doesn't matter.
func (s *scheduler) cellsByOwner() map[string]int {
	cells := make(map[string]int)
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil {
			cells[q.req.Owner] += q.filled
		}
	}
	repeated := s.repeatedInUse()
	if repeated == 0 {
		return cells
	}
	for owner := range cells {
		cells[owner] -= repeated - s.shared.repeatedIn(func(at int) bool { return s.inUse(at) && s.slots[at].seq.req.Owner != owner })
	}
	return cells
}

// preemptBefore reports whether a is preempted before b.
func preemptBefore(cellsByOwner map[string]int, a, b *sequence) bool {
	if ha, hb := cellsByOwner[a.req.Owner], cellsByOwner[b.req.Owner]; ha != hb {
		return ha > hb
	}
	return a.arrival > b.arrival
}

// preempt frees a sequence's cells and puts it back into the queue with its tokens.
func (s *scheduler) preempt(q *sequence, p *plan) {
	s.clearSlot(q.slot)
	q.filled = 0
	q.preempted++
	s.enqueue(q)
	p.preempted = append(p.preempted, q)
}

// breakDeadlock is for when no ready sequence gets the cells it needs and preemptVictim finds none. It preempts the
// newest, however often that happened before, and never the oldest, so some sequence always ends. One that is alone
// starves. True: plan again.
func (s *scheduler) breakDeadlock(p *plan) bool {
	var newest *sequence
	active := 0
	for i := range s.slots {
		q := s.slots[i].seq
		if q == nil {
			continue
		}
		if q.stage == stageAwaiting {
			continue // it holds no cells
		}
		if q.stage == stageDrawing {
			return false // plan again after its draw
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

// othersInSlots reports whether any other sequence is in a slot.
func (s *scheduler) othersInSlots(q *sequence) bool {
	for i := range s.slots {
		if o := s.slots[i].seq; o != nil && o != q {
			return true
		}
	}
	return false
}
