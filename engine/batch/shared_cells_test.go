package batch

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// cellPlaces is which cells of a cache each sequence has: what the library keeps, to compare the counts with.
type cellPlaces struct {
	of    map[int][]*int // by sequence; each cell holds the number of the last count that met it
	count int
}

func newCellPlaces() *cellPlaces { return &cellPlaces{of: make(map[int][]*int)} }

// used is how many cells there are that any of these sequences has.
func (p *cellPlaces) used(some func(seq int) bool) int {
	p.count++
	n := 0
	for seq, cells := range p.of {
		if !some(seq) {
			continue
		}
		for _, c := range cells {
			if *c != p.count {
				*c = p.count
				n++
			}
		}
	}
	return n
}

func (p *cellPlaces) usedByAll() int { return p.used(func(int) bool { return true }) }

func (p *cellPlaces) add(seq, cells int) {
	for range cells {
		p.of[seq] = append(p.of[seq], new(int))
	}
}

func (p *cellPlaces) cut(seq, cells int) {
	p.of[seq] = p.of[seq][:min(len(p.of[seq]), cells):cells]
}

func (p *cellPlaces) share(from, to, cells int) {
	p.of[to] = append([]*int(nil), p.of[from][:cells]...)
}

// forgetCleared forgets the cells of the slots that the scheduler has cleared.
func (st *schedulerTest) forgetCleared() {
	for _, at := range st.scheduler.takeCleared() {
		if st.places != nil {
			st.places.cut(at, 0)
		}
	}
}

// reuse carries out what an admission reuses.
func (st *schedulerTest) reuse(a admission) {
	switch {
	case st.places == nil:
	case a.copyCells > 0:
		st.places.share(a.copyFrom, a.slot, a.copyCells)
	default:
		st.places.cut(a.slot, a.keepCells)
	}
}

// checkPlaces compares the scheduler's count of free cells with what is really free.
func (st *schedulerTest) checkPlaces() {
	st.t.Helper()
	if st.places == nil {
		return
	}
	if free, want := st.scheduler.freeCells(), st.scheduler.limits.Cells-st.places.usedByAll(); free != want {
		st.t.Fatalf("%d cells are free by the scheduler's count, really %d", free, want)
	}
}

// checkClaims reports an admission after which the sequences in slots would have more cells than there are, with what
// is set aside for their answers.
func (st *schedulerTest) checkClaims() {
	st.t.Helper()
	if st.places == nil {
		return
	}
	claimed, sequences := st.places.used(st.scheduler.inUse), 0
	for i := range st.scheduler.slots {
		if q := st.scheduler.slots[i].seq; q != nil {
			claimed += len(q.tokens) - q.filled + q.reserveCells()
			sequences++
		}
	}
	if sequences > 1 && claimed > st.scheduler.limits.Cells {
		st.t.Fatalf("%d sequences claim %d cells, there are %d", sequences, claimed, st.scheduler.limits.Cells)
	}
}

// Whatever is copied, cut and computed, the cells are counted right, those of some slots as well.
func TestSharedCellsAreCountedOnce(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		n := 1 + r.IntN(8)
		c, places := newSharedCells(n), newCellPlaces()
		for range 60 {
			from, to := r.IntN(n), r.IntN(n)
			switch {
			case r.IntN(3) == 0:
				places.add(to, r.IntN(10))
			case from == to:
				keep := r.IntN(len(places.of[to]) + 1)
				places.cut(to, keep)
				c.cut(to, keep)
			default:
				cells := r.IntN(len(places.of[from]) + 1)
				places.cut(to, 0)
				c.cut(to, 0)
				places.share(from, to, cells)
				c.copied(from, to, cells)
			}
			some := r.IntN(1 << n)
			inSome := func(i int) bool { return some&(1<<i) != 0 }
			all, ofSome := 0, 0
			for i := range n {
				all += len(places.of[i])
				if inSome(i) {
					ofSome += len(places.of[i])
				}
			}
			if got, want := all-c.repeated, places.usedByAll(); got != want {
				t.Fatalf("seed %d: %d cells counted, want %d", seed, got, want)
			}
			if got, want := ofSome-c.repeatedIn(inSome), places.used(inSome); got != want {
				t.Fatalf("seed %d: %d cells of some slots counted, want %d", seed, got, want)
			}
			for range 2 {
				if got, want := c.repeatedAsBefore(inSome), c.repeatedIn(inSome); got != want {
					t.Fatalf("seed %d: %d remembered, want %d", seed, got, want)
				}
			}
		}
	}
}

// Eight sequences with a beginning in common run together in a cache that holds that beginning once.
func TestASharedBeginningTakesItsCellsOnce(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 300, Sequences: 8, SequenceMax: 290, StepTokens: 300, Prefix: true})
	st.places = newCellPlaces()
	var all []*sequence
	for i := range 8 {
		all = append(all, st.submitTokens(nil, append(tokensFrom(5000, 200), conversation(1+i, 5)...), 7))
	}
	st.step()
	st.step()
	for i, q := range all {
		if q.stage != stageReady || q.preempted > 0 {
			t.Errorf("sequence %d: %+v", i, q)
		}
	}
	b := base{limits: st.scheduler.limits, scheduler: st.scheduler, sequenceCount: 8}
	if s := b.stats(); s.FreeCells < 50 {
		t.Errorf("%+v", s)
	}
	for st.step() {
		if len(st.plan.preempted) > 0 {
			t.Fatalf("gave way: %+v", st.plan.preempted)
		}
	}
	if len(st.ended) != 8 {
		t.Errorf("%d ended", len(st.ended))
	}
}

// Of what is kept only the part that one in use has as well takes no room.
func TestAdmissionBesideSharedCells(t *testing.T) {
	for name, tc := range map[string]struct {
		own  int // tokens of the next prompt beside the 200 in common
		want bool
	}{
		"it fits with the common part": {62, true},
		"one token too many":           {63, false},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSchedulerTest(t, Limits{Cells: 300, Sequences: 4, SequenceMax: 290, StepTokens: 300, Prefix: true})
			st.places = newCellPlaces()
			st.submitTokens(nil, append(tokensFrom(5000, 200), conversation(1, 5)...), 20)
			st.step() // holds 206 with its first token, and 16 are set aside for its answer
			q := st.submitTokens(nil, append(tokensFrom(5000, 200), conversation(2, tc.own)...), 18)
			st.step()
			if in := q.stage == stageReady; in != tc.want {
				t.Errorf("in a slot: %v", in)
			}
		})
	}
}

// What sequences of an owner share is freed once, so that owner doesn't give way for one that holds more.
func TestTheOwnerOfMostCellsGivesWayWhateverIsShared(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 300, Sequences: 4, SequenceMax: 290, StepTokens: 300, Prefix: true})
	st.places = newCellPlaces()
	submit := func(owner string, tokens []Token) {
		st.submitTokens(nil, tokens, 40).req.Owner = owner
	}
	for i := range 2 {
		submit("sharing", append(tokensFrom(5000, 90), conversation(1+i, 5)...))
	}
	submit("alone", conversation(3, 150))
	for len(st.plan.preempted) == 0 {
		if !st.step() {
			t.Fatal("cells didn't run out")
		}
	}
	if owner := st.plan.preempted[0].req.Owner; owner != "alone" {
		t.Errorf("a sequence of %q gave way, which hold 190 cells but for 90 that they share", owner)
	}
}

// A beginning that a running sequence has as well isn't dropped for its cells: that frees none.
func TestAPrefixThatFreesNothingStays(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 170, Sequences: 4, SequenceMax: 160, StepTokens: 300, Prefix: true})
	st.places = newCellPlaces()
	short := conversation(1, 60)
	first := st.submitTokens(nil, short, 5)
	st.step()
	longer := st.submitTokens(nil, slices.Concat(short, conversation(2, 20)), 70)
	a, _ := st.scheduler.admit()
	st.reuse(a)
	st.scheduler.remove(first, true) // its client has gone
	st.endWith(nil, conversation(3, 50))
	kept := func(tokens []Token) bool {
		return slices.ContainsFunc(st.scheduler.slots, func(sl slot) bool { return slices.Equal(sl.keptTokens, tokens) })
	}
	if !kept(short) || !kept(conversation(3, 50)) || st.scheduler.shared.most(0, st.scheduler.inUse) != 60 {
		t.Fatalf("%+v", st.scheduler.slots)
	}
	for longer.stage != stageEnded {
		if !st.step() {
			t.Fatal("the sequence doesn't end")
		}
	}
	if !kept(short) || kept(conversation(3, 50)) {
		t.Errorf("the one that frees nothing is kept: %v, the one that frees 50 cells: %v", kept(short), kept(conversation(3, 50)))
	}
}

// Two that hold the same cells free them together.
func TestPrefixesWithTheSameCellsAreEvicted(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 100, Sequences: 3, SequenceMax: 90, StepTokens: 100, Prefix: true})
	s := &st.scheduler
	for i := range 2 {
		s.slots[i] = slot{keptTokens: tokensFrom(1, 60), keptSince: uint64(i + 1)}
	}
	s.shared.copied(0, 1, 60)
	for i, want := range []int{40, 100} {
		if !s.evictOldestPrefix() || s.freeCells() != want || s.slots[i].keptTokens != nil {
			t.Errorf("eviction %d: %d cells are free, want %d", i, s.freeCells(), want)
		}
	}
	if s.evictOldestPrefix() {
		t.Error("evicted a third one")
	}
}
