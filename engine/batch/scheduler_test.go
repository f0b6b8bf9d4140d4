package batch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// desk drives a scheduler without executor, clock or model: it carries plans out by counting.
type desk struct {
	t    *testing.T
	s    scheduler
	p    plan
	next uint64
	done []*sequence
}

func newDesk(t *testing.T, l Limits) *desk {
	return &desk{t: t, s: newScheduler(l, pace{target: time.Millisecond, most: 1 << 20, price: promptPrice(1), prompts: true})}
}

// enter submits a request of so many prompt tokens and answer tokens.
func (d *desk) enter(owner string, a Adapter, prompt, answer int) *sequence {
	q := newSequence(&Request{ID: d.next, Owner: owner, Adapter: a, Prompt: make([]Token, prompt), MaxNewTokens: answer})
	for i := range q.tokens {
		q.tokens[i] = Token(d.next<<16) + Token(i) // nothing in common with others
	}
	q.arrival = d.next
	d.next++
	d.s.enqueue(q)
	return q
}

// step plans and carries out one step; false: there was nothing to do.
func (d *desk) step() bool {
	d.t.Helper()
	for {
		if _, ok := d.s.admit(); !ok {
			break
		}
	}
	if !d.s.plan(&d.p, false) {
		return false
	}
	d.s.takeCleared()
	if d.s.free() < d.p.decodes+d.p.prompts {
		d.t.Fatalf("step of %d tokens, %d cells are free", d.p.decodes+d.p.prompts, d.s.free())
	}
	if n := d.p.decodes + d.p.prompts; n > d.s.limits.StepTokens {
		d.t.Fatalf("step of %d tokens", n)
	}
	for _, it := range d.p.items {
		if it.tokens <= 0 || it.seq.req.Adapter != d.p.adapter {
			d.t.Fatalf("bad item %+v", it)
		}
		draws := it.draws()
		it.seq.filled += it.tokens
		if !draws {
			continue
		}
		it.seq.tokens = append(it.seq.tokens, 1)
		if it.seq.answer() == it.seq.req.MaxNewTokens {
			d.s.end(it.seq, true)
			d.done = append(d.done, it.seq)
		}
	}
	return true
}

// shape writes the last plan down: id:tokens for each item.
func (d *desk) shape() string {
	var b strings.Builder
	for _, it := range d.p.items {
		fmt.Fprintf(&b, " %d:%d", it.seq.req.ID, it.tokens)
	}
	return strings.TrimSpace(b.String())
}

// promptPrice makes steps cost so many ns a prompt token and nothing else.
func promptPrice(ns float64) price { return price{parts: [3]float64{0, 0, ns * pricePrompts}} }

func TestPlan(t *testing.T) {
	one, two := &fakeAdapter{"one"}, &fakeAdapter{"two"}
	type enter struct {
		step   int // before which
		a      Adapter
		prompt int
		answer int
	}
	for name, tc := range map[string]struct {
		limits  Limits
		perStep int // prompt tokens that the pace allows
		enters  []enter
		want    []string
	}{
		"decode first, then prompt in chunks": {
			Limits{Cells: 1000, Sequences: 4, StepTokens: 100}, 32,
			[]enter{{0, nil, 2, 9}, {1, nil, 70, 9}},
			[]string{"0:2", "0:1 1:32", "0:1 1:32", "0:1 1:6", "0:1 1:1"},
		},
		"the first prompt has half, the shortest ones the rest": {
			Limits{Cells: 1000, Sequences: 5, StepTokens: 100}, 64,
			[]enter{{0, nil, 300, 9}, {0, nil, 40, 9}, {0, nil, 10, 9}, {2, nil, 5, 9}},
			[]string{"0:32 2:10 1:22", "2:1 0:46 1:18", "1:1 2:1 0:59 3:5", "1:1 2:1 3:1 0:64"},
		},
		"a step never exceeds what the runner takes": {
			Limits{Cells: 1000, Sequences: 4, StepTokens: 3}, 64,
			[]enter{{0, nil, 2, 9}, {0, nil, 9, 9}},
			[]string{"0:2 1:1", "0:1 1:2", "0:1 1:2", "0:1 1:2"},
		},
		"sequences join and leave at every step": {
			Limits{Cells: 1000, Sequences: 2, StepTokens: 100}, 64,
			[]enter{{0, nil, 2, 2}, {0, nil, 2, 4}, {0, nil, 2, 2}},
			[]string{"0:2 1:2", "0:1 1:1", "1:1 2:2", "2:1 1:1"},
		},
		"an adapter keeps its turn for a few steps": {
			Limits{Cells: 1000, Sequences: 4, StepTokens: 100}, 64,
			[]enter{{0, one, 1, 99}, {0, two, 1, 99}},
			[]string{"0:1", "0:1", "0:1", "0:1", "1:1", "1:1", "1:1", "1:1", "0:1"},
		},
		"a lone adapter never waits": {
			Limits{Cells: 1000, Sequences: 4, StepTokens: 100}, 64,
			[]enter{{0, one, 1, 99}, {0, one, 1, 99}},
			[]string{"0:1 1:1", "0:1 1:1", "0:1 1:1", "0:1 1:1", "0:1 1:1", "0:1 1:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, tc.limits)
			d.s.pace.price = promptPrice(float64(d.s.pace.target) / float64(tc.perStep))
			d.s.pace.most = tc.perStep
			for i, want := range tc.want {
				for _, e := range tc.enters {
					if e.step == i {
						d.enter("", e.a, e.prompt, e.answer)
					}
				}
				d.step()
				if got := d.shape(); got != want {
					t.Fatalf("step %d: got %s, want %s", i, got, want)
				}
			}
		})
	}
}

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
			d := newDesk(t, Limits{Cells: 1000, Sequences: 8, SequenceMax: 100, StepTokens: 64})
			var all []*sequence
			for _, q := range tc.seqs {
				s := d.enter(q.owner, nil, 50, 9)
				all = append(all, s)
				d.s.admit()
				s.filled, s.preempted = q.cells, q.preempted
			}
			got := -1
			if d.s.giveWay(&d.p) {
				got = slices.Index(all, d.p.preempted[0])
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
	d := newDesk(t, Limits{Cells: 100, Sequences: 8, SequenceMax: 100, StepTokens: 64})
	d.enter("greedy", nil, 20, 60)
	second := d.enter("greedy", nil, 20, 60)
	d.enter("modest", nil, 10, 60)
	for len(d.p.preempted) == 0 {
		d.step()
	}
	if d.p.preempted[0] != second || d.shape() != "0:1 2:1" {
		t.Errorf("request %d gave way, the step is %s", d.p.preempted[0].req.ID, d.shape())
	}
}

// A sequence with a worker isn't touched: its draw belongs to the cells that it has.
func TestDrawingSequencesKeepTheirCells(t *testing.T) {
	d := newDesk(t, Limits{Cells: 60, Sequences: 8, SequenceMax: 40, StepTokens: 64})
	a, b := d.enter("", nil, 10, 30), d.enter("", nil, 10, 30)
	a.preempted, b.preempted = 2, 2 // so only the last resort is left
	for d.s.free() > 0 && d.step() {
	}
	b.stage = stageDrawing
	if d.step() || b.stage != stageDrawing || b.filled == 0 {
		t.Errorf("step %s, drawing sequence %+v", d.shape(), b)
	}
	b.stage = stageReady
	if !d.step() || d.p.preempted[0] != b {
		t.Error("nothing gives way although the draw is done")
	}
}

func TestAdmissionCountsTokens(t *testing.T) {
	d := newDesk(t, Limits{Cells: 100, Sequences: 8, SequenceMax: 100, StepTokens: 64})
	d.enter("", nil, 60, 5)
	big := d.enter("", nil, 50, 5)
	small := d.enter("", nil, 10, 5)
	d.step()
	if big.stage != stageWaiting || small.stage != stageWaiting {
		t.Error("one that doesn't fit got in, or one behind it overtook")
	}
	for len(d.done) == 0 && d.step() {
	}
	d.step()
	if big.stage != stageReady || small.stage != stageReady {
		t.Error("they fit now but didn't get in")
	}
}

func TestOneThatIsAloneAndDoesNotFitStarves(t *testing.T) {
	d := newDesk(t, Limits{Cells: 20, Sequences: 2, SequenceMax: 100, StepTokens: 64})
	q := d.enter("", nil, 15, 50)
	for d.p.starved == nil && d.step() {
	}
	if d.p.starved != q || q.filled != 20 {
		t.Errorf("starved %v, filled %d", d.p.starved, q.filled)
	}
}

// Whatever comes in, everything ends, nobody holds more cells than there are, and nothing waits forever.
func TestTinyCacheNeverDeadlocks(t *testing.T) {
	adapters := []Adapter{nil, &fakeAdapter{"one"}, &fakeAdapter{"two"}}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := Limits{Cells: 30 + r.IntN(60), Sequences: 1 + r.IntN(8), SequenceMax: 30, StepTokens: 8 + r.IntN(64), Prefix: seed%2 == 0}
		d := newDesk(t, l)
		n := 1 + r.IntN(20)
		for i := 0; i < n; i++ {
			prompt := 1 + r.IntN(20)
			d.enter(fmt.Sprint(r.IntN(3)), adapters[r.IntN(3)], prompt, 1+r.IntN(30-prompt))
		}
		steps := 0
		for d.step() {
			if steps++; steps > 50_000 {
				t.Fatalf("seed %d: no end", seed)
			}
			if d.p.starved != nil {
				t.Fatalf("seed %d: %+v starved, although it fits alone", seed, d.p.starved)
			}
		}
		if len(d.done) != n {
			t.Fatalf("seed %d: %d of %d ended, limits %+v", seed, len(d.done), n, l)
		}
	}
}

// However many sequences an adapter has and however long its prompts are, the others keep their rate.
func TestAdaptersShareFairly(t *testing.T) {
	few, many, prompts := &fakeAdapter{"few"}, &fakeAdapter{"many"}, &fakeAdapter{"prompts"}
	d := newDesk(t, Limits{Cells: 1 << 20, Sequences: 32, SequenceMax: 1 << 20, StepTokens: 512})
	d.s.pace.price = promptPrice(float64(d.s.pace.target) / 64)
	lone := d.enter("", few, 1, 1<<20)
	var crowd []*sequence
	for range 12 {
		crowd = append(crowd, d.enter("", many, 1, 1<<20))
	}
	reader := d.enter("", prompts, 1<<18, 1)
	last, gap := 0, 0
	const steps = 1200
	for i := range steps {
		d.step()
		if d.p.items[0].seq == lone {
			last = i
		}
		gap = max(gap, i-last)
	}
	if gap > 2*turnSteps+1 {
		t.Errorf("the lone sequence waited for %d steps", gap)
	}
	for _, q := range crowd {
		if a, b := lone.answer(), q.answer(); a < b*8/10 || b < a*8/10 {
			t.Errorf("one sequence has %d tokens, one of another adapter %d", a, b)
		}
	}
	if reader.filled < steps/3*64*8/10 {
		t.Errorf("the long prompt got %d tokens in %d steps", reader.filled, steps)
	}
}

func TestPrefixPlacement(t *testing.T) {
	one, two := &fakeAdapter{"one"}, &fakeAdapter{"two"}
	limits := Limits{Cells: 200, Sequences: 3, SequenceMax: 200, StepTokens: 200, Prefix: true}
	// finish runs a request to its end and leaves its cells behind.
	finish := func(d *desk, a Adapter, tokens []Token) *sequence {
		q := d.enter("", a, len(tokens), 1)
		copy(q.tokens, tokens)
		for len(d.done) == 0 || d.done[len(d.done)-1] != q {
			d.step()
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
	place := func(d *desk, a Adapter, tokens []Token) admission {
		q := d.enter("", a, len(tokens), 5)
		copy(q.tokens, tokens)
		adm, _ := d.s.admit()
		return adm
	}

	d := newDesk(t, limits)
	finish(d, one, count(20, 0))
	if a := place(d, one, count(30, 0)); a.keep != 20 || a.seq.cached != 20 {
		t.Errorf("a continued prompt takes over %d cells (%d reported)", a.keep, a.seq.cached)
	}
	d = newDesk(t, limits)
	finish(d, one, count(20, 0))
	if a := place(d, one, count(20, 0)); a.copy != 19 {
		t.Errorf("the same prompt copies %d cells: its last token must be decoded for its logits", a.copy)
	}
	d = newDesk(t, limits)
	finish(d, one, count(20, 0))
	if a := place(d, two, count(30, 0)); a.keep+a.copy != 0 {
		t.Error("cells of another adapter were reused")
	}
	if a := place(d, one, append(count(minReuse-1, 0), 99, 98, 97)); a.keep+a.copy != 0 {
		t.Error("a common prefix of a few tokens was reused")
	}
	d = newDesk(t, limits)
	finish(d, one, count(150, 0))
	if a := place(d, one, append(count(100, 0), 999)); a.keep != 100 {
		t.Errorf("without room for a copy the slot is taken over: %+v", a)
	}
	limits.Prefix = false
	d = newDesk(t, limits)
	finish(d, one, count(20, 0))
	if a := place(d, one, count(30, 0)); a.keep+a.copy != 0 {
		t.Error("cells were reused although the model can't")
	}
}

func TestKeptCellsGiveWay(t *testing.T) {
	d := newDesk(t, Limits{Cells: 100, Sequences: 4, SequenceMax: 100, StepTokens: 100, Prefix: true})
	old := d.enter("", nil, 40, 1)
	d.step()
	newer := d.enter("", nil, 40, 1)
	d.step()
	d.enter("", nil, 50, 3)
	d.step()
	if d.s.slots[old.slot].kept != nil && d.s.slots[newer.slot].kept == nil {
		t.Error("the newer cells were dropped first")
	}
	if d.shape() != "2:50" || len(d.p.preempted) != 0 {
		t.Errorf("step %s", d.shape())
	}
}

func TestTurns(t *testing.T) {
	run := func(costs map[string]int64, ready func(round int) []string, rounds int) string {
		var ts turns[string]
		var got strings.Builder
		for i := range rounds {
			var list []contender[string]
			for _, k := range ready(i) {
				list = append(list, contender[string]{k, 10})
			}
			k, ok := ts.pick(list)
			if !ok {
				k = "-"
			}
			got.WriteString(k)
			ts.spend(costs[k])
		}
		return got.String()
	}
	always := func(keys ...string) func(int) []string { return func(int) []string { return keys } }
	for name, tc := range map[string]struct {
		costs map[string]int64
		ready func(int) []string
		want  string
	}{
		"equal cost, equal turns":         {map[string]int64{"a": 5, "b": 5}, always("a", "b"), "aabbaabb"},
		"by cost, not by count":           {map[string]int64{"a": 10, "b": 2}, always("a", "b"), "abbbbbabbbbb"},
		"what was overspent is paid back": {map[string]int64{"a": 15, "b": 5}, always("a", "b"), "abbabbabb"},
		"debt doesn't shut out":           {map[string]int64{"a": 1000, "b": 10}, always("a", "b"), "abababab"},
		"alone without limit":             {map[string]int64{"a": 1000}, always("a"), "aaaa"},
		"nobody":                          {nil, always(), "--"},
		"who leaves loses the turn, who comes back queues up": {map[string]int64{"a": 5, "b": 5, "c": 5}, func(i int) []string {
			if i == 1 || i == 2 {
				return []string{"b", "c"}
			}
			return []string{"a", "b", "c"}
		}, "abbccaa"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := run(tc.costs, tc.ready, len(tc.want)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
