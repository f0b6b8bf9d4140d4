package batch

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// schedulerTest drives a scheduler without executor, clock or model: it carries plans out by counting.
type schedulerTest struct {
	t         *testing.T
	scheduler scheduler
	plan      plan
	places    *cellPlaces // nil: not counted
	nextID    uint64
	now       time.Duration
	device    device // what steps take; nil: nothing
	ended     []*sequence
}

func newSchedulerTest(t *testing.T, l Limits) *schedulerTest {
	return &schedulerTest{t: t, scheduler: newScheduler(l, stepBudget{targetDuration: time.Millisecond, maxPromptTokens: 1 << 20, cost: promptCost(1), promptSeen: true})}
}

// submit enqueues a request of so many prompt tokens and answer tokens.
func (st *schedulerTest) submit(owner string, a Adapter, prompt, answer int) *sequence {
	q := newSequence(&Request{ID: st.nextID, Owner: owner, Adapter: a, Prompt: make([]Token, prompt), MaxNewTokens: answer})
	for i := range q.tokens {
		q.tokens[i] = Token(st.nextID<<16) + Token(i) // nothing in common with others
	}
	q.arrival, q.submittedAt = st.nextID, st.now
	st.nextID++
	st.scheduler.enqueue(q)
	return q
}

// step plans and carries out one step; false: there was nothing to do.
func (st *schedulerTest) step() bool {
	st.t.Helper()
	for {
		waiting := len(st.scheduler.waiting)
		a, ok := st.scheduler.admit()
		st.forgetCleared()
		if !ok {
			break
		}
		st.reuse(a)
		if len(st.scheduler.waiting) < waiting {
			st.checkClaims()
		}
	}
	if !st.scheduler.plan(&st.plan, st.now, false) {
		return false
	}
	st.forgetCleared()
	st.checkPlaces()
	if st.scheduler.freeCells() < st.plan.decodes+st.plan.promptTokens {
		st.t.Fatalf("step of %d tokens, %d cells are free", st.plan.decodes+st.plan.promptTokens, st.scheduler.freeCells())
	}
	if n := st.plan.decodes + st.plan.promptTokens; n > st.scheduler.limits.StepTokens {
		st.t.Fatalf("step of %d tokens", n)
	}
	if st.device != nil {
		took := st.device.takes(st.plan.work())
		st.now += took
		st.scheduler.budget.observe(st.plan.work(), took)
	}
	for _, it := range st.plan.items {
		if it.tokens <= 0 || it.seq.req.Adapter != st.plan.items[0].seq.req.Adapter && !st.scheduler.limits.MixedAdapters {
			st.t.Fatalf("bad item %+v", it)
		}
		if st.places != nil {
			st.places.add(it.seq.slot, it.tokens)
		}
		draws := it.draws()
		it.seq.filled += it.tokens
		if !draws {
			continue
		}
		it.seq.tokens = append(it.seq.tokens, 1)
		it.seq.tokenDrawn(st.now)
		if it.seq.answerTokens() == it.seq.req.MaxNewTokens {
			st.scheduler.remove(it.seq, true)
			st.ended = append(st.ended, it.seq)
		}
	}
	return true
}

// planString is the last plan as id:tokens for each item.
func (st *schedulerTest) planString() string {
	var b strings.Builder
	for _, it := range st.plan.items {
		fmt.Fprintf(&b, " %d:%d", it.seq.req.ID, it.tokens)
	}
	return strings.TrimSpace(b.String())
}

// promptCost makes steps cost so many ns a prompt token and nothing else.
func promptCost(ns float64) stepCost {
	return stepCost{coefficients: costVector{0, 0, ns * promptUnit, 0}}
}

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
		perStep int // prompt tokens that the budget allows
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
		"adapters share each step of a runner that mixes them": {
			Limits{Cells: 1000, Sequences: 4, StepTokens: 100, MixedAdapters: true}, 64,
			[]enter{{0, one, 1, 99}, {0, two, 1, 99}, {1, nil, 5, 99}, {1, two, 100, 99}},
			[]string{"0:1 1:1", "0:1 1:1 2:5 3:59", "0:1 1:1 2:1 3:41", "0:1 1:1 2:1 3:1"},
		},
		"a lone adapter never waits": {
			Limits{Cells: 1000, Sequences: 4, StepTokens: 100}, 64,
			[]enter{{0, one, 1, 99}, {0, one, 1, 99}},
			[]string{"0:1 1:1", "0:1 1:1", "0:1 1:1", "0:1 1:1", "0:1 1:1", "0:1 1:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSchedulerTest(t, tc.limits)
			st.scheduler.budget.cost = promptCost(float64(st.scheduler.budget.targetDuration) / float64(tc.perStep))
			st.scheduler.budget.maxPromptTokens = tc.perStep
			for i, want := range tc.want {
				for _, e := range tc.enters {
					if e.step == i {
						st.submit("", e.a, e.prompt, e.answer)
					}
				}
				st.step()
				if got := st.planString(); got != want {
					t.Fatalf("step %d: got %s, want %s", i, got, want)
				}
			}
		})
	}
}

// However many sequences an adapter has and however long its prompts are, the others keep their rate.
func TestAdaptersShareFairly(t *testing.T) {
	few, many, prompts := &fakeAdapter{"few"}, &fakeAdapter{"many"}, &fakeAdapter{"prompts"}
	st := newSchedulerTest(t, Limits{Cells: 1 << 20, Sequences: 32, SequenceMax: 1 << 20, StepTokens: 512})
	st.scheduler.budget.cost = promptCost(float64(st.scheduler.budget.targetDuration) / 64)
	lone := st.submit("", few, 1, 1<<20)
	var crowd []*sequence
	for range 12 {
		crowd = append(crowd, st.submit("", many, 1, 1<<20))
	}
	reader := st.submit("", prompts, 1<<18, 1)
	last, gap := 0, 0
	const steps = 1200
	for i := range steps {
		st.step()
		if st.plan.items[0].seq == lone {
			last = i
		}
		gap = max(gap, i-last)
	}
	if gap > 2*maxTurnSteps+1 {
		t.Errorf("the lone sequence waited for %d steps", gap)
	}
	for _, q := range crowd {
		if a, b := lone.answerTokens(), q.answerTokens(); a < b*8/10 || b < a*8/10 {
			t.Errorf("one sequence has %d tokens, one of another adapter %d", a, b)
		}
	}
	if reader.filled < steps/3*64*8/10 {
		t.Errorf("the long prompt got %d tokens in %d steps", reader.filled, steps)
	}
}

// Where steps take long an adapter has one a turn, so that no stream has a gap of several turns of several steps.
func TestTurnsAreAsShortAsStepsAreLong(t *testing.T) {
	one, two := &fakeAdapter{"one"}, &fakeAdapter{"two"}
	for step, want := range map[time.Duration][]string{
		20 * time.Millisecond: {"0:1", "1:1", "0:1", "1:1"},
		4 * time.Millisecond:  {"0:1", "0:1", "1:1", "1:1", "0:1", "0:1"},
		time.Millisecond:      {"0:1", "0:1", "0:1", "0:1", "1:1", "1:1", "1:1", "1:1", "0:1"},
	} {
		st := newSchedulerTest(t, Limits{Cells: 1000, Sequences: 4, StepTokens: 100})
		st.scheduler.budget.cost = stepCost{coefficients: costVector{float64(step), 0, 0, 0}}
		st.submit("", one, 1, 99)
		st.submit("", two, 1, 99)
		for i, items := range want {
			st.step()
			if got := st.planString(); got != items {
				t.Errorf("steps of %v: step %d holds %s, want %s", step, i, got, items)
			}
		}
	}
}

// Prompts of several adapters together hold up the tokens of another one by as much as a prompt of one would.
func TestPromptsOfOtherAdaptersDontHoldUpTokens(t *testing.T) {
	const perStep = 128
	st := newSchedulerTest(t, Limits{Cells: 1 << 20, Sequences: 8, SequenceMax: 1 << 20, StepTokens: 512})
	st.scheduler.budget = stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512, promptSeen: true}
	st.scheduler.budget.cost = promptCost(float64(st.scheduler.budget.targetDuration) / perStep)
	stream := st.submit("", nil, 1, 1<<10)
	for st.step(); !stream.decoding(); st.step() {
	}
	for _, name := range []string{"one", "two", "three", "four"} {
		st.submit("", &fakeAdapter{name}, 5000, 1)
	}
	between := 0
	for range 200 {
		st.step()
		if st.plan.items[0].seq == stream {
			between = 0
			continue
		}
		if between += st.plan.promptTokens; between > perStep*5/4 {
			t.Fatalf("%d prompt tokens between two tokens of the stream, want about %d", between, perStep)
		}
	}
}
