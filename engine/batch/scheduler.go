package batch

import (
	"cmp"
	"slices"
)

const (
	turnSteps   = 4  // steps of one adapter before the next has its turn: a switch costs milliseconds
	growthCells = 16 // cells kept free for each sequence's answer when another is let in
	minReuse    = 8  // a shorter common prefix isn't worth taking a slot's cells over
)

// scheduler decides what one base decodes next. It knows no clock, no goroutine and no model: the executor tells it what happened and
// carries out what it says.
//
//	admit → who gets a slot, and which cells it may take over        plan → which tokens of which sequences the next step holds
//	takeCleared → slots whose cells the runner must forget first
type scheduler struct {
	limits  Limits
	pace    pace
	slots   []slot
	waiting []*sequence // by arrival
	cleared []int
	turns   turns[Adapter]
	tick    uint64 // counts endings, to find the oldest kept cells

	// Scratch of one plan.
	groups   []contender[Adapter]
	decoders []*sequence
	prefills []*sequence
}

// slot is one sequence id of the runner: free, in use, or holding the cells of a finished sequence until somebody needs them.
type slot struct {
	seq     *sequence
	kept    []Token
	adapter Adapter // of kept
	ended   uint64  // tick, of kept
}

// item is one sequence's part of a planned step.
type item struct {
	seq    *sequence
	tokens int
}

// plan is one step, and who had to give way for it.
type plan struct {
	adapter   Adapter
	items     []item // decoding ones first, by slot
	decodes   int    // sequences that advance by one token
	prompts   int    // prompt tokens, and those of sequences that advance by several
	runs      int    // the latter alone
	preempted []*sequence
	starved   *sequence // can't go on, even alone
}

func (p *plan) reset() {
	clear(p.items)
	clear(p.preempted)
	*p = plan{items: p.items[:0], preempted: p.preempted[:0]}
}

// draws tells whether the step reaches the end of the sequence's known tokens.
func (it item) draws() bool { return it.tokens == it.seq.pending() }

func newScheduler(l Limits, p pace) scheduler {
	return scheduler{limits: l, pace: p, slots: make([]slot, l.Sequences)}
}

// enqueue puts a sequence in line by its arrival, so one that was preempted comes before those submitted after it.
func (s *scheduler) enqueue(q *sequence) {
	q.stage = stageWaiting
	at, _ := slices.BinarySearchFunc(s.waiting, q, func(a, b *sequence) int {
		if a.arrival < b.arrival {
			return -1
		}
		return 1
	})
	s.waiting = slices.Insert(s.waiting, at, q)
}

// end takes a sequence out, wherever it is. keep: its cells may serve a later one.
func (s *scheduler) end(q *sequence, keep bool) {
	switch q.stage {
	case stageWaiting:
		if i := slices.Index(s.waiting, q); i >= 0 {
			s.waiting = slices.Delete(s.waiting, i, i+1)
		}
	case stageReady, stageDrawing:
		if keep && s.limits.Prefix && q.filled >= minReuse {
			s.tick++
			s.slots[q.slot] = slot{kept: q.tokens[:q.filled], adapter: q.req.Adapter, ended: s.tick}
		} else {
			s.vacate(q.slot)
		}
	}
	q.stage = stageEnded
}

// vacate makes a slot free; its cells are gone once the executor has carried out takeCleared.
func (s *scheduler) vacate(at int) {
	s.slots[at] = slot{}
	s.cleared = append(s.cleared, at)
}

// takeCleared returns the slots whose cells must be forgotten before the next admission or step; valid until the next call into s.
func (s *scheduler) takeCleared() []int {
	c := s.cleared
	s.cleared = s.cleared[:0]
	return c
}

// busy tells whether a plan might find something to do.
func (s *scheduler) busy() bool {
	if len(s.waiting) > 0 {
		return true
	}
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil && q.stage == stageReady {
			return true
		}
	}
	return false
}

// plan fills p with the next step and tells whether there is anything to carry out. crowded: another base waits for its turn.
func (s *scheduler) plan(p *plan, crowded bool) bool {
	p.reset()
	for {
		s.contend(crowded)
		for range len(s.groups) {
			adapter, _ := s.turns.pick(s.groups)
			s.fill(p, adapter, crowded)
			if len(p.items) > 0 {
				s.turns.spend(int64(p.decodes + p.prompts))
				return true
			}
			s.turns.pass()
		}
		if !s.unblock(p) {
			return p.starved != nil || len(p.preempted) > 0
		}
	}
}

// contend lists the adapters that have work. A turn is worth a few steps of what an adapter can use, so every sequence advances at a
// like rate, whichever adapter it has.
func (s *scheduler) contend(crowded bool) {
	s.groups = s.groups[:0]
	decodes := 0
	for i := range s.slots {
		q := s.slots[i].seq
		if q == nil || q.stage != stageReady {
			continue
		}
		at := slices.IndexFunc(s.groups, func(c contender[Adapter]) bool { return c.key == q.req.Adapter })
		if at < 0 {
			at = len(s.groups)
			s.groups = append(s.groups, contender[Adapter]{key: q.req.Adapter})
		}
		if q.decoding() {
			s.groups[at].quantum++
			decodes++
		} else {
			s.groups[at].quantum += int64(q.chunk())
		}
	}
	most := int64(s.pace.budget(decodes, crowded) + decodes)
	for i := range s.groups {
		s.groups[i].quantum = turnSteps * min(s.groups[i].quantum, most)
	}
}

// fill plans a step of one adapter: a token for each decoding sequence, then prompt chunks.
func (s *scheduler) fill(p *plan, adapter Adapter, crowded bool) {
	s.collect(adapter)
	for feeds(s.decoders) > s.free() && (s.dropKept() || s.giveWay(p)) {
		s.collect(adapter)
	}
	s.decoders = s.affordable(s.decoders, min(s.free(), s.limits.StepTokens))
	p.adapter = adapter
	for _, q := range s.decoders {
		p.add(q, q.feed())
	}
	waited := crowded || len(s.groups) > 1 || p.runs > 0
	budget := min(s.pace.budget(p.decodes, waited)-p.runs, s.limits.StepTokens-p.decodes-p.runs)
	s.share(p, budget)
}

// add puts a decoding sequence into the plan. Several tokens at once cost what as many of a prompt do.
func (p *plan) add(q *sequence, tokens int) {
	p.items = append(p.items, item{q, tokens})
	if tokens == 1 {
		p.decodes++
	} else {
		p.prompts += tokens
		p.runs += tokens
	}
}

// feeds is how many tokens the sequences feed together.
func feeds(list []*sequence) int {
	n := 0
	for _, q := range list {
		n += q.feed()
	}
	return n
}

// collect finds the ready sequences of an adapter, in slot order, which stays the same from step to step.
func (s *scheduler) collect(adapter Adapter) {
	s.decoders, s.prefills = s.decoders[:0], s.prefills[:0]
	for i := range s.slots {
		q := s.slots[i].seq
		switch {
		case q == nil || q.stage != stageReady || q.req.Adapter != adapter:
		case q.decoding():
			s.decoders = append(s.decoders, q)
		default:
			s.prefills = append(s.prefills, q)
		}
	}
}

// affordable keeps the oldest sequences that feed at most n tokens together, in slot order.
func (s *scheduler) affordable(list []*sequence, n int) []*sequence {
	if feeds(list) <= n {
		return list
	}
	slices.SortFunc(list, byArrival)
	fit := 0
	for ; fit < len(list) && list[fit].feed() <= n; fit++ {
		n -= list[fit].feed()
	}
	list = list[:fit]
	slices.SortFunc(list, func(a, b *sequence) int { return a.slot - b.slot })
	return list
}

func byArrival(a, b *sequence) int {
	if a.arrival < b.arrival {
		return -1
	}
	return 1
}

// share hands out prompt tokens. Half of them go to the prompt that came first, so a long one always gets on; the others to the shortest
// ones, so that most are through early and a short one never waits for a long one (shortest remaining processing time first).
func (s *scheduler) share(p *plan, budget int) {
	wanted := 0
	for _, q := range s.prefills {
		wanted += q.chunk()
	}
	budget = min(budget, wanted)
	for s.free()-p.decodes-p.prompts < budget && s.dropKept() {
	}
	budget = min(budget, s.free()-p.decodes-p.prompts)
	if budget <= 0 {
		return
	}
	s.orderPrompts()
	first := s.prefills[0]
	others := wanted - first.chunk()
	left := give(p, first, max((budget+1)/2, budget-others), budget)
	for _, q := range s.prefills[1:] {
		left = give(p, q, left, left)
	}
}

// give puts up to so many of a prompt's tokens into the plan and returns what is left of the budget.
func give(p *plan, q *sequence, most, budget int) int {
	part := min(most, q.chunk(), budget)
	if part <= 0 {
		return budget
	}
	p.prompts += part
	p.items = append(p.items, item{q, part})
	return budget - part
}

// orderPrompts puts the prompt that came first at the front and the others behind it by what is left of them.
func (s *scheduler) orderPrompts() {
	list := s.prefills
	for i := range list {
		if list[i].arrival < list[0].arrival {
			list[0], list[i] = list[i], list[0]
		}
	}
	slices.SortFunc(list[1:], func(a, b *sequence) int {
		return cmp.Or(cmp.Compare(a.chunk(), b.chunk()), cmp.Compare(a.arrival, b.arrival))
	})
}
