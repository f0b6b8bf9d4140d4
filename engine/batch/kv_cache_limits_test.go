package batch

import (
	"fmt"
	"testing"
)

func TestTinyCacheFinishesEverythingWithTheRightText(t *testing.T) {
	for _, prefix := range []bool{false, true} {
		t.Run(fmt.Sprint("prefix ", prefix), func(t *testing.T) {
			f, sink := newFakeRunner(Limits{Cells: 120, Sequences: 8, SequenceMax: 100, StepTokens: 64, Prefix: prefix}), newRecordingSink(t)
			seen := &countingObserver{}
			e := startExecutor(t, f, Options{Observe: seen})
			var requests []*Request
			for id := range uint64(60) {
				r := sink.request(id, prompt(int(id/2), 5+int(id)%20), 20+int(id)%50)
				r.Owner = fmt.Sprint(id % 3)
				requests = append(requests, r)
				submit(t, e, r)
			}
			for _, r := range requests {
				checkAnswer(t, r, sink.wait(r.ID))
			}
			if seen.preempted.Load() == 0 {
				t.Error("nothing was preempted: the cache is too large for this test")
			}
		})
	}
}

func TestOutOfMemoryAlone(t *testing.T) {
	f, sink := newFakeRunner(Limits{Cells: 20, Sequences: 2, SequenceMax: 100, StepTokens: 64}), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	submit(t, e, sink.request(1, longAnswerPrompt, 50))
	if a := sink.wait(1); a.summary.Failure.Code != FailOutOfMemory || len(a.tokens) != 11 {
		t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
	}
}

func TestFullContextEndsWithLength(t *testing.T) {
	f, sink := newFakeRunner(Limits{Cells: 100, Sequences: 2, SequenceMax: 20, StepTokens: 64}), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	submit(t, e, sink.request(1, longAnswerPrompt, 50))
	if a := sink.wait(1); a.summary.Reason != FinishLength || len(a.tokens) != 11 {
		t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
	}
}

// The runner finds no place although the count says there is one (a sliding window, fragments): others end, then it
// goes on.
func TestNoCellsWaitsForOthers(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	left, both := 3, false
	f.failStep = func(_ Adapter, slices []Slice) error {
		both = both || len(slices) == 2 // one that is alone has nobody to wait for
		if both && left > 0 && slices[0].Index > 0 {
			left--
			return ErrNoCells
		}
		return nil
	}
	e := startExecutor(t, f, Options{})
	a, b := sink.request(1, longAnswerPrompt, 30), sink.request(2, longAnswerPrompt[1:], 30)
	submit(t, e, a)
	submit(t, e, b)
	checkAnswer(t, a, sink.wait(1))
	checkAnswer(t, b, sink.wait(2))
}

// A runner that lost cells, though others aren't in the way: the sequence alone is computed again, and what wasn't
// computed isn't counted.
func TestLostCellsAreComputedAgain(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	lost := false
	f.failStep = func(_ Adapter, slices []Slice) error {
		if !lost && slices[0].Index == 5 {
			lost = true
			return ErrCellsLost
		}
		return nil
	}
	seen := &countingObserver{}
	e := startExecutor(t, f, Options{Observe: seen})
	r := sink.request(1, longAnswerPrompt, 30)
	submit(t, e, r)
	checkAnswer(t, r, sink.wait(1))
	if n := seen.preempted.Load(); n != 1 {
		t.Errorf("%d preemptions, want 1", n)
	}
	if got, want := seen.prompt.Load(), int64(len(longAnswerPrompt)+len(longAnswerPrompt)+5); got > want {
		t.Errorf("%d prompt tokens computed, want at most %d", got, want)
	}
}

// Prompt tokens of a step that found no cells weren't computed.
func TestFailedPromptsAreNotCounted(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	left := 2
	f.failStep = func(_ Adapter, slices []Slice) error {
		if left > 0 && len(slices[0].Tokens) > 1 {
			left--
			return ErrCellsLost
		}
		return nil
	}
	seen := &countingObserver{}
	e := startExecutor(t, f, Options{Observe: seen})
	r := sink.request(1, longAnswerPrompt, 3)
	submit(t, e, r)
	checkAnswer(t, r, sink.wait(1))
	if got, want := seen.prompt.Load(), int64(len(longAnswerPrompt)); got != want {
		t.Errorf("%d prompt tokens counted, want %d", got, want)
	}
}
