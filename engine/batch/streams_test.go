package batch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

var streamLimits = Limits{Cells: 4 * 100, StreamCells: 100, Sequences: 4, SequenceMax: 96, StepTokens: 200, Prefix: true, CopyTokens: 20}

// A sequence with cells of its own waits for a stream and for nothing else: all of them may be full to the last cell.
func TestStreamsWaitOnlyForAStream(t *testing.T) {
	st := newSchedulerTest(t, streamLimits)
	var all []*sequence
	for range 5 {
		all = append(all, st.submit("", nil, 95, 1000))
	}
	st.step()
	for i, q := range all {
		if in := q.stage == stageReady; in != (i < 4) {
			t.Errorf("sequence %d is in a slot: %v", i, in)
		}
	}
	for _, q := range all[:4] {
		for q.filled < 95 {
			st.step()
		}
		q.filled, q.tokens = 95, append(q.tokens[:95], 1) // one cell is left
	}
	st.scheduler.remove(all[0], true)
	if st.step(); all[4].stage != stageReady || len(st.plan.preempted) > 0 || st.plan.starved != nil {
		t.Errorf("beside three full streams: %+v, plan %+v", all[4], st.plan)
	}
}

func TestPrefixesOfStreams(t *testing.T) {
	for name, c := range map[string]struct {
		kept   []int // prompts of ended sequences, by length; all begin alike
		prompt int   // tokens that the next prompt has in common with all of them
		want   admission
	}{
		"a conversation goes on in its stream":   {[]int{50}, 60, admission{slot: 0, keepCells: 50}},
		"a part is copied":                       {[]int{50}, 40, admission{slot: 1, copyCells: 40}},
		"a small part isn't worth it":            {[]int{50}, 19, admission{slot: 1}},
		"all of a short one is, since it stays":  {[]int{19}, 30, admission{slot: 0, keepCells: 19}},
		"with no free stream it takes that over": {[]int{50, 51, 52, 53}, 40, admission{slot: 0, keepCells: 40}},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSchedulerTest(t, streamLimits)
			for i, n := range c.kept {
				q := st.submitTokens(nil, append(tokensFrom(0, n-1), Token(9000+i)), 1)
				if n == c.kept[0] && c.prompt > n {
					q.tokens[n-1] = Token(n - 1)
				}
				st.scheduler.slots[i] = slot{seq: q}
				st.scheduler.waiting, q.stage, q.slot, q.filled = nil, stageReady, i, n
				st.scheduler.remove(q, true)
			}
			q := st.submitTokens(nil, append(tokensFrom(0, c.prompt), 7777), 5)
			a, ok := st.scheduler.admit()
			a.seq, a.first, a.copyFrom = nil, false, 0
			if !ok || a != c.want || q.cached != c.want.keepCells+c.want.copyCells {
				t.Errorf("%+v (%d reported), want %+v", a, q.cached, c.want)
			}
		})
	}
}

// Copying a stream costs time, so nobody waits for a beginning that is computed sooner.
func TestShortBeginningsAreNotAwaitedInStreams(t *testing.T) {
	for common, want := range map[int]string{19: "0:60 1:29", 20: "0:60"} {
		st := newSchedulerTest(t, streamLimits)
		a := tokensFrom(0, 60)
		st.submitTokens(nil, a, 9)
		st.submitTokens(nil, slices.Concat(a[:common], tokensFrom(5000, 10)), 9)
		st.step()
		if got := st.planString(); got != want {
			t.Errorf("%d tokens in common: %s, want %s", common, got, want)
		}
	}
}

// Whatever comes in, everything ends with the right text, nothing is preempted, and no stream overflows.
func TestStreamsFinishEverythingWithTheRightText(t *testing.T) {
	f, sink := newFakeRunner(streamLimits), newRecordingSink(t)
	seen := &countingObserver{}
	e := startExecutor(t, f, Options{Observe: seen})
	r := rand.New(rand.NewPCG(11, 12))
	var requests []*Request
	for id := range uint64(80) {
		promptTokens := 5 + r.IntN(80)
		q := sink.request(id, prompt(int(id/4), promptTokens), 1+r.IntN(97-promptTokens))
		q.Owner = fmt.Sprint(id % 3)
		requests = append(requests, q)
		submit(t, e, q)
	}
	cached := 0
	for _, q := range requests {
		a := sink.wait(q.ID)
		checkAnswer(t, q, a)
		cached += a.summary.CachedTokens
	}
	if seen.preempted.Load() != 0 || cached == 0 {
		t.Errorf("%d preempted, %d tokens were taken from the cache", seen.preempted.Load(), cached)
	}
}

// The whole cache may hold far more than one request may.
func TestAPromptIsRefusedByItsStream(t *testing.T) {
	e := startExecutor(t, newFakeRunner(streamLimits), Options{})
	sink := newRecordingSink(t)
	if err := e.Submit(sink.request(1, prompt(1, 97), 1)); !errors.Is(err, ErrContextExceeded) {
		t.Errorf("a prompt of 97 tokens in streams of 96: %v", err)
	}
	full := sink.request(2, prompt(1, 96), 50)
	submit(t, e, full)
	if a := sink.wait(2); a.summary.Reason != FinishLength || len(a.tokens) != 1 {
		t.Errorf("a prompt of 96 tokens: %d tokens, %+v", len(a.tokens), a.summary)
	}
}

func TestLimitsOfStreamsThatContradict(t *testing.T) {
	e := startExecutor(t, newFakeRunner(streamLimits), Options{})
	for _, change := range []func(*Limits){func(l *Limits) { l.SequenceMax = 101 }, func(l *Limits) { l.Cells = 399 }} {
		l := streamLimits
		change(&l)
		if err := e.Attach(t.Context(), "other", newFakeRunner(l)); err == nil {
			t.Errorf("%+v: no error", l)
		}
	}
}
