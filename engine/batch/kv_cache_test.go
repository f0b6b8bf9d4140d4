package batch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestVictim(t *testing.T) {
	type seq struct {
		owner     string
		cells     int
		preempted int
	}
	for name, tc := range map[string]struct {
		seqs []seq // by arrival
		want int   // -1: nobody
	}{
		"newest of the owner with most cells":        {[]seq{{"a", 30, 0}, {"b", 10, 0}, {"a", 10, 0}, {"b", 10, 0}}, 2},
		"the owner's total counts, not the sequence": {[]seq{{"a", 30, 0}, {"b", 20, 0}, {"b", 20, 0}}, 2},
		"once is no protection":                      {[]seq{{"a", 10, 0}, {"a", 10, 1}}, 1},
		"twice is":                                   {[]seq{{"a", 10, 0}, {"a", 10, 2}}, 0},
		"then the next owner's":                      {[]seq{{"b", 10, 0}, {"a", 30, 2}, {"a", 30, 2}}, 0},
		"nobody is left":                             {[]seq{{"a", 10, 2}, {"b", 10, 2}}, -1},
		"never one that is alone":                    {[]seq{{"a", 10, 0}}, -1},
		"one without cells frees nothing":            {[]seq{{"a", 10, 0}, {"a", 0, 0}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSchedulerTest(t, Limits{Cells: 1000, Sequences: 8, SequenceMax: 100, StepTokens: 64})
			var all []*sequence
			for _, q := range tc.seqs {
				s := st.submit(q.owner, nil, 50, 9)
				all = append(all, s)
				st.scheduler.admit()
				s.filled, s.preempted = q.cells, q.preempted
			}
			got := -1
			if st.scheduler.preemptVictim(&st.plan) {
				got = slices.Index(all, st.plan.preempted[0])
				if v := all[got]; v.filled != 0 || v.stage != stageWaiting || len(v.tokens) != 50 {
					t.Errorf("victim is %+v", v)
				}
			}
			if got != tc.want {
				t.Errorf("victim is %d, want %d", got, tc.want)
			}
		})
	}
}

// When cells run out the greedy owner's newest gives way, and everybody else goes on in the same step.
func TestGreedyOwnerGivesWay(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 100, Sequences: 8, SequenceMax: 100, StepTokens: 64})
	st.submit("greedy", nil, 20, 60)
	second := st.submit("greedy", nil, 20, 60)
	st.submit("modest", nil, 10, 60)
	for len(st.plan.preempted) == 0 {
		st.step()
	}
	if st.plan.preempted[0] != second || st.planString() != "0:1 2:1" {
		t.Errorf("request %d gave way, the step is %s", st.plan.preempted[0].req.ID, st.planString())
	}
}

// A sequence with a worker isn't touched: its draw belongs to the cells that it has.
func TestDrawingSequencesKeepTheirCells(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 60, Sequences: 8, SequenceMax: 40, StepTokens: 64})
	a, b := st.submit("", nil, 10, 30), st.submit("", nil, 10, 30)
	a.preempted, b.preempted = 2, 2 // so only the last resort is left
	for st.scheduler.freeCells() > 0 && st.step() {
	}
	b.stage = stageDrawing
	if st.step() || b.stage != stageDrawing || b.filled == 0 {
		t.Errorf("step %s, drawing sequence %+v", st.planString(), b)
	}
	b.stage = stageReady
	if !st.step() || st.plan.preempted[0] != b {
		t.Error("nothing gives way although the draw is done")
	}
}

func TestAdmissionCountsTokens(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 100, Sequences: 8, SequenceMax: 100, StepTokens: 64})
	st.submit("", nil, 60, 5)
	big := st.submit("", nil, 50, 5)
	small := st.submit("", nil, 10, 5)
	st.step()
	if big.stage != stageWaiting || small.stage != stageWaiting {
		t.Error("one that doesn't fit got in, or one behind it overtook")
	}
	for len(st.ended) == 0 && st.step() {
	}
	st.step()
	if big.stage != stageReady || small.stage != stageReady {
		t.Error("they fit now but didn't get in")
	}
}

func TestOneThatIsAloneAndDoesNotFitStarves(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 20, Sequences: 2, SequenceMax: 100, StepTokens: 64})
	q := st.submit("", nil, 15, 50)
	for st.plan.starved == nil && st.step() {
	}
	if st.plan.starved != q || q.filled != 20 {
		t.Errorf("starved %v, filled %d", st.plan.starved, q.filled)
	}
}

// Whatever comes in, everything ends, nobody holds more cells than there are, and nothing waits forever.
func TestTinyCacheNeverDeadlocks(t *testing.T) {
	adapters := []Adapter{nil, &fakeAdapter{"one"}, &fakeAdapter{"two"}}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := Limits{Cells: 30 + r.IntN(60), Sequences: 1 + r.IntN(8), SequenceMax: 30, StepTokens: 8 + r.IntN(64), Prefix: seed%2 == 0}
		st := newSchedulerTest(t, l)
		n := 1 + r.IntN(20)
		for i := 0; i < n; i++ {
			prompt := 1 + r.IntN(20)
			st.submit(fmt.Sprint(r.IntN(3)), adapters[r.IntN(3)], prompt, 1+r.IntN(30-prompt))
		}
		steps := 0
		for st.step() {
			if steps++; steps > 50_000 {
				t.Fatalf("seed %d: no end", seed)
			}
			if st.plan.starved != nil {
				t.Fatalf("seed %d: %+v starved, although it fits alone", seed, st.plan.starved)
			}
		}
		if len(st.ended) != n {
			t.Fatalf("seed %d: %d of %d ended, limits %+v", seed, len(st.ended), n, l)
		}
	}
}

func TestPrefixPlacement(t *testing.T) {
	one, two := &fakeAdapter{"one"}, &fakeAdapter{"two"}
	limits := Limits{Cells: 200, Sequences: 3, SequenceMax: 200, StepTokens: 200, Prefix: true}
	// finish runs a request to its end; its cells are kept.
	finish := func(st *schedulerTest, a Adapter, tokens []Token) *sequence {
		q := st.submit("", a, len(tokens), 1)
		copy(q.tokens, tokens)
		for len(st.ended) == 0 || st.ended[len(st.ended)-1] != q {
			st.step()
		}
		return q
	}
	count := func(n int, from Token) []Token {
		t := make([]Token, n)
		for i := range t {
			t[i] = from + Token(i)
		}
		return t
	}
	place := func(st *schedulerTest, a Adapter, tokens []Token) admission {
		q := st.submit("", a, len(tokens), 5)
		copy(q.tokens, tokens)
		adm, _ := st.scheduler.admit()
		return adm
	}

	st := newSchedulerTest(t, limits)
	finish(st, one, count(20, 0))
	if a := place(st, one, count(30, 0)); a.keepCells != 20 || a.seq.cached != 20 {
		t.Errorf("a continued prompt takes over %d cells (%d reported)", a.keepCells, a.seq.cached)
	}
	st = newSchedulerTest(t, limits)
	finish(st, one, count(20, 0))
	if a := place(st, one, count(20, 0)); a.keepCells != 19 {
		t.Errorf("the same prompt keeps %d cells: its last token must be decoded for its logits", a.copyCells)
	}
	st = newSchedulerTest(t, limits)
	finish(st, one, count(20, 0))
	if a := place(st, two, count(30, 0)); a.keepCells+a.copyCells != 0 {
		t.Error("cells of another adapter were reused")
	}
	if a := place(st, one, append(count(minReuseTokens-1, 0), 99, 98, 97)); a.keepCells+a.copyCells != 0 {
		t.Error("a common prefix of a few tokens was reused")
	}
	st = newSchedulerTest(t, limits)
	finish(st, one, count(150, 0))
	if a := place(st, one, append(count(100, 0), 999)); a.copyCells != 100 {
		t.Errorf("a copy takes no cells, but the slot is taken over: %+v", a)
	}
	limits.Prefix = false
	st = newSchedulerTest(t, limits)
	finish(st, one, count(20, 0))
	if a := place(st, one, count(30, 0)); a.keepCells+a.copyCells != 0 {
		t.Error("cells were reused although the model can't")
	}
}

func TestKeptCellsGiveWay(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 100, Sequences: 4, SequenceMax: 100, StepTokens: 100, Prefix: true})
	old := st.submit("", nil, 40, 1)
	st.step()
	newer := st.submit("", nil, 40, 1)
	st.step()
	st.submit("", nil, 50, 3)
	st.step()
	if st.scheduler.slots[old.slot].keptTokens != nil && st.scheduler.slots[newer.slot].keptTokens == nil {
		t.Error("the newer cells were dropped first")
	}
	if st.planString() != "2:50" || len(st.plan.preempted) != 0 {
		t.Errorf("step %s", st.planString())
	}
}
