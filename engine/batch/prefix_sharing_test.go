package batch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// submitTokens enqueues a request with this prompt.
func (st *schedulerTest) submitTokens(a Adapter, prompt []Token, answer int) *sequence {
	q := st.submit("", a, len(prompt), answer)
	copy(q.tokens, prompt)
	copy(q.req.Prompt, prompt)
	return q
}

// tokensFrom is n tokens that begin with this one.
func tokensFrom(first Token, n int) []Token {
	t := make([]Token, n)
	for i := range t {
		t[i] = first + Token(i)
	}
	return t
}

func TestPromptsThatBeginAlikeAreComputedOnce(t *testing.T) {
	one, two := &fakeAdapter{"one"}, &fakeAdapter{"two"}
	a, b := tokensFrom(0, 100), tokensFrom(1000, 40)
	type enter struct {
		step    int // before which
		adapter Adapter
		prompt  []Token
	}
	cut := func(st *schedulerTest, id int) { // its client has gone
		for i := range st.scheduler.slots {
			if q := st.scheduler.slots[i].seq; q != nil && int(q.req.ID) == id {
				st.scheduler.remove(q, true)
			}
		}
	}
	preempt := func(st *schedulerTest, id int) {
		for i := range st.scheduler.slots {
			if q := st.scheduler.slots[i].seq; q != nil && int(q.req.ID) == id {
				st.scheduler.preempt(q, &st.plan)
			}
		}
	}
	for name, tc := range map[string]struct {
		perStep int // prompt tokens that the budget allows
		enters  []enter
		before  map[int]func(*schedulerTest) // a step
		want    []string
	}{
		"four choices": {
			200, []enter{{0, nil, a}, {0, nil, a}, {0, nil, a}, {0, nil, a}}, nil,
			[]string{"0:100", "0:1 1:1 2:1 3:1", "0:1 1:1 2:1 3:1"},
		},
		"a long prompt in chunks, joined on the way": {
			32, []enter{{0, nil, a}, {2, nil, a}}, nil,
			[]string{"0:32", "0:32", "0:32", "0:4", "0:1 1:1", "0:1 1:1"},
		},
		"the common part ends within the leader's prompt": {
			32, []enter{{0, nil, a}, {0, nil, slices.Concat(a[:50], b)}}, nil,
			[]string{"0:32", "0:32", "0:16 1:16", "0:16 1:16", "0:4 1:8", "0:1 1:1"},
		},
		"the leader's prompt is the shorter one": {
			200, []enter{{0, nil, a[:60]}, {0, nil, a}}, nil,
			[]string{"0:60", "0:1 1:40", "0:1 1:1"},
		},
		"others pass": {
			64, []enter{{0, nil, a}, {0, nil, a}, {0, nil, b}, {1, nil, b}}, nil,
			[]string{"0:32 2:32", "0:48 2:8 3:8", "2:1 3:1 0:20", "0:1 2:1 3:1 1:1"},
		},
		"a beginning of a few tokens is computed twice": {
			200, []enter{{0, nil, a}, {0, nil, slices.Concat(a[:minReuseTokens-1], b)}}, nil,
			[]string{"0:100 1:47"},
		},
		"a short prompt waits, too": {
			200, []enter{{0, nil, a[:minReuseTokens+1]}, {0, nil, a[:minReuseTokens+1]}}, nil,
			[]string{"0:9", "0:1 1:1"},
		},
		"adapters don't share": {
			200, []enter{{0, one, a}, {0, two, a}}, nil,
			append(append([]string{"0:100"}, slices.Repeat([]string{"0:1"}, 8)...), "1:100"),
		},
		"the leader's client goes, and its cells stay": {
			32, []enter{{0, nil, a}, {0, nil, a}, {0, nil, a}},
			map[int]func(*schedulerTest){2: func(st *schedulerTest) { cut(st, 0) }},
			[]string{"0:32", "0:32", "1:32", "1:4", "1:1 2:1"},
		},
		"the leader is preempted": {
			32, []enter{{0, nil, a}, {0, nil, a}, {0, nil, a}},
			map[int]func(*schedulerTest){2: func(st *schedulerTest) { preempt(st, 0) }},
			[]string{"0:32", "0:32", "1:32", "1:32", "1:32", "1:4", "1:1 0:1 2:1"},
		},
		"one that waits goes": {
			64, []enter{{0, nil, a}, {0, nil, a}, {0, nil, a}},
			map[int]func(*schedulerTest){1: func(st *schedulerTest) { cut(st, 1) }},
			[]string{"0:64", "0:36", "0:1 2:1"},
		},
		"a beginning that a second one goes on from": {
			64, []enter{{0, nil, slices.Concat(a[:20], b)}, {0, nil, a}, {0, nil, a}}, nil,
			[]string{"0:60", "0:1 1:64", "0:1 1:16", "0:1 1:1 2:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSchedulerTest(t, Limits{Cells: 2000, Sequences: 6, SequenceMax: 500, StepTokens: 300, Prefix: true})
			st.scheduler.budget.cost = promptCost(float64(st.scheduler.budget.targetDuration) / float64(tc.perStep))
			st.scheduler.budget.maxPromptTokens = tc.perStep
			for i, want := range tc.want {
				if change := tc.before[i]; change != nil {
					change(st)
				}
				for _, e := range tc.enters {
					if e.step == i {
						st.submitTokens(e.adapter, e.prompt, 9)
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

// Waiting costs a step. Where a step takes long beside what the tokens cost nobody waits, unless many would be held up.
func TestCheapBeginningsAreNotWaitedFor(t *testing.T) {
	a := tokensFrom(0, 50)
	for name, tc := range map[string]struct {
		fixed  time.Duration // of a step, beside 1 µs a token
		others int           // sequences that decode meanwhile
		want   string
	}{
		"cheap tokens":              {200 * time.Microsecond, 0, "0:50 1:50"},
		"cheap steps":               {50 * time.Microsecond, 0, "0:50"},
		"cheap tokens, many others": {200 * time.Microsecond, 4, "2:1 3:1 4:1 5:1 0:50"},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSchedulerTest(t, Limits{Cells: 2000, Sequences: 8, SequenceMax: 500, StepTokens: 300, Prefix: true})
			st.nextID = 2
			for range tc.others {
				st.submit("", nil, 1, 99)
			}
			st.step()
			st.scheduler.budget.cost = stepCost{coefficients: costVector{float64(tc.fixed), 0, 1e3 * promptUnit, 0}}
			st.scheduler.budget.targetDuration = time.Second
			st.nextID = 0
			st.submitTokens(nil, a, 9)
			st.submitTokens(nil, a, 9)
			st.step()
			if got := st.planString(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// A long prompt whose beginning a short one awaits has the short one's place among the prompts.
func TestAwaitedBeginningsComeEarly(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 5000, Sequences: 8, SequenceMax: 2000, StepTokens: 300, Prefix: true})
	st.scheduler.budget.cost = promptCost(float64(st.scheduler.budget.targetDuration) / 64)
	st.scheduler.budget.maxPromptTokens = 64
	st.submit("", nil, 1000, 9) // has half of each step
	long := tokensFrom(1<<24, 900)
	st.submitTokens(nil, long, 9)
	st.submit("", nil, 300, 9)
	short := st.submitTokens(nil, slices.Concat(long[:90], tokensFrom(1<<25, 5)), 9)
	for range 4 {
		st.step()
	}
	if short.stage != stageReady || short.filled == 0 {
		t.Errorf("the short prompt waits still; the last step is %s", st.planString())
	}
}

// What nobody awaits any more isn't hurried, and one that waits holds no cells that it could give.
func TestSequencesThatWaitAreNoVictims(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 2000, Sequences: 8, SequenceMax: 500, StepTokens: 20, Prefix: true})
	a := tokensFrom(0, 100)
	st.submitTokens(nil, tokensFrom(5000, 90), 9)
	leader, waits := st.submitTokens(nil, a, 9), st.submitTokens(nil, a[:50], 9)
	st.step()
	if waits.stage != stageAwaiting || leader.urgency() != 49-leader.filled {
		t.Fatalf("%+v waits for %+v", waits, leader)
	}
	var p plan
	if !st.scheduler.breakDeadlock(&p) || p.preempted[0] != leader {
		t.Errorf("gave way: %+v", p.preempted)
	}
	st.step()
	st.scheduler.remove(waits, true)
	if st.step(); leader.urgency() != leader.prefillTokensLeft() {
		t.Errorf("urgency %d of a prompt with %d tokens left", leader.urgency(), leader.prefillTokensLeft())
	}
}

// Cells of finished sequences give way to a copy.
func TestKeptCellsGiveWayToSharedOnes(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 300, Sequences: 8, SequenceMax: 200, StepTokens: 300, Prefix: true})
	st.submit("", nil, 100, 1)
	st.step()
	a := tokensFrom(5000, 120)
	st.submitTokens(nil, a, 9)
	st.submitTokens(nil, a, 9)
	st.step()
	if st.step(); st.planString() != "1:1 2:1" {
		t.Errorf("step %s", st.planString())
	}
}

// Log-probabilities of a prompt take many steps.
func TestPromptsWithLogprobsAreNotWaitedFor(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 2000, Sequences: 8, SequenceMax: 500, StepTokens: 500, Prefix: true})
	a := tokensFrom(0, 200)
	st.submitTokens(nil, a, 9).req.PromptLogprobs = true
	st.submitTokens(nil, a, 9)
	if st.step(); st.planString() != fmt.Sprintf("0:%d 1:200", MaxScoredTokens) {
		t.Errorf("step %s", st.planString())
	}
}

// A model that can't copy cells of a running sequence is asked once.
func TestNobodyWaitsForCellsThatCannotBeCopied(t *testing.T) {
	st := newSchedulerTest(t, Limits{Cells: 2000, Sequences: 8, SequenceMax: 500, StepTokens: 300, Prefix: true})
	a := tokensFrom(0, 50)
	st.submitTokens(nil, a, 9)
	st.submitTokens(nil, a, 9)
	st.step()
	copied, ok := st.scheduler.admit()
	if !ok || copied.copyCells != 49 {
		t.Fatalf("%+v", copied)
	}
	st.scheduler.undoReuse(copied)
	b := tokensFrom(100, 50)
	st.submitTokens(nil, b, 9)
	st.submitTokens(nil, b, 9)
	if st.step(); st.planString() != "0:1 1:50 2:50 3:50" {
		t.Errorf("step %s", st.planString())
	}
}

// Prompts of a few families, little room, and clients that go: everything ends, and no slot is left in use.
func TestSharingNeverDeadlocks(t *testing.T) {
	shared := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		l := Limits{Cells: 60 + r.IntN(120), Sequences: 1 + r.IntN(8), SequenceMax: 60, StepTokens: 8 + r.IntN(64), Prefix: true}
		st := newSchedulerTest(t, l)
		st.places = newCellPlaces()
		st.scheduler.budget.maxPromptTokens = 4 + r.IntN(40)
		adapters := []Adapter{nil, &fakeAdapter{"one"}}
		var open []*sequence
		n := 1 + r.IntN(30)
		for range n {
			common, own := r.IntN(40), 1+r.IntN(12)
			p := slices.Concat(tokensFrom(Token(r.IntN(2))<<20, common), tokensFrom(Token(r.IntN(50))<<10, own))
			open = append(open, st.submitTokens(adapters[r.IntN(2)], p, 1+r.IntN(60-common-own)))
		}
		gone := 0
		for steps := 0; st.step(); steps++ {
			if steps > 50_000 || st.plan.starved != nil {
				t.Fatalf("seed %d: step %d, starved %+v", seed, steps, st.plan.starved)
			}
			for i := range st.scheduler.slots {
				if q := st.scheduler.slots[i].seq; q != nil && q.stage == stageAwaiting {
					shared++
				}
			}
			if q := open[r.IntN(n)]; r.IntN(20) == 0 && q.stage != stageEnded {
				st.scheduler.remove(q, r.IntN(2) == 0)
				gone++
			}
		}
		if len(st.ended)+gone != n {
			t.Fatalf("seed %d: %d of %d ended and %d went, limits %+v", seed, len(st.ended), n, gone, l)
		}
		for i := range st.scheduler.slots {
			if q := st.scheduler.slots[i].seq; q != nil {
				t.Fatalf("seed %d: slot %d is still in use by %+v", seed, i, q)
			}
		}
	}
	if shared == 0 {
		t.Error("nothing was shared, so this test shows nothing")
	}
}

// All answers are right, and what is common is computed once: choices of a request, and requests with a common
// beginning that come together.
func TestSharedPrefillGivesTheRightAnswers(t *testing.T) {
	limits := roomyLimits
	limits.Prefix = true
	for name, tc := range map[string]struct {
		common, own int
		computed    int // prompt tokens of eight requests
	}{
		"choices":         {200, 0, 200 + 7},
		"a common part":   {200, 20, 200 + 8*20},
		"nothing of note": {4, 20, 8 * 24},
	} {
		t.Run(name, func(t *testing.T) {
			f, sink := newFakeRunner(limits), newRecordingSink(t)
			seen := &countingObserver{}
			e := startExecutor(t, f, Options{Observe: seen})
			var requests []*Request
			cached := 0
			for id := range 8 {
				r := sink.request(uint64(id), slices.Concat(prompt(99, tc.common), tokensFrom(Token(1+id), tc.own)), 40)
				requests = append(requests, r)
				submit(t, e, r)
			}
			for _, r := range requests {
				a := sink.wait(r.ID)
				checkAnswer(t, r, a)
				cached += a.summary.CachedTokens
			}
			if int(seen.prompt.Load()) != tc.computed || cached != 8*(tc.common+tc.own)-tc.computed || int64(cached) != seen.cached.Load() {
				t.Errorf("computed %d prompt tokens and took %d (counted %d) from others, want %d", seen.prompt.Load(), cached, seen.cached.Load(), tc.computed)
			}
		})
	}
}

// What ends a leader, or fails it, leaves those that wait for it untouched.
func TestLeadersThatFail(t *testing.T) {
	limits := roomyLimits
	limits.Prefix, limits.StepTokens = true, 32
	for _, how := range []string{"cancel", "deadline", "failure"} {
		t.Run(how, func(t *testing.T) {
			f, sink := newFakeRunner(limits), newRecordingSink(t)
			var e *Executor
			steps, fail := 0, false
			f.onStep = func(Adapter, []Slice, map[int]int) {
				if steps++; steps == 3 {
					fail = true
					if how == "cancel" {
						e.Cancel(0, 0)
					}
				}
			}
			f.stepTime = func(int) time.Duration { return 2 * time.Millisecond }
			f.failSlice = func(seq int, _ []Token) error {
				if how == "failure" && fail && seq == 0 {
					fail = false
					return errBroken
				}
				return nil
			}
			e = startExecutor(t, f, Options{})
			p := prompt(5, 300)
			var requests []*Request
			for id := range uint64(6) {
				r := sink.request(id, p, 30)
				if how == "deadline" && id == 0 {
					r.Timeout = 7 * time.Millisecond
				}
				requests = append(requests, r)
				submit(t, e, r)
			}
			for _, r := range requests[1:] {
				checkAnswer(t, r, sink.wait(r.ID))
			}
			if a := sink.wait(0); a.summary.Reason == FinishStop || a.summary.Reason == FinishLength {
				t.Errorf("the leader ended with %+v, so this test shows nothing", a.summary)
			}
		})
	}
}

// Replays and requests with log-probabilities of their prompts beside others with the same prompt.
func TestSharingBesideReplaysAndScores(t *testing.T) {
	limits := Limits{Cells: 900, Sequences: 8, SequenceMax: 400, StepTokens: 64, Prefix: true}
	f, sink := newFakeRunner(limits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	p := prompt(3, 120)
	whole := sink.request(1000, p, 40)
	submit(t, e, whole)
	w := sink.wait(1000)
	checkAnswer(t, whole, w)
	var kinds []string
	for id := range uint64(24) {
		r := sink.request(id, p, 40)
		kind := []string{"plain", "scores", "replay", "replay by steps"}[id%4]
		kinds = append(kinds, kind)
		r.PromptLogprobs = kind == "scores"
		if strings.HasPrefix(kind, "replay") {
			r.Generated, r.ReplaySteps = w.tokens[:1+int(id)%20], kind != "replay"
		}
		submit(t, e, r)
	}
	for id, kind := range kinds {
		a := sink.wait(uint64(id))
		switch kind {
		case "plain":
			checkAnswer(t, &Request{ID: uint64(id), Prompt: p, MaxNewTokens: 40}, a)
		case "scores":
			checkScores(t, &Request{ID: uint64(id), Prompt: p}, a)
		default:
			checkContinuation(t, a, w, 1+id%20)
		}
		if t.Failed() {
			t.Fatal(fmt.Sprint(id, " ", kind))
		}
	}
}
