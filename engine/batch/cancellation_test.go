package batch

import (
	"context"
	"testing"
	"time"
)

// slowStep makes answers of hundreds of tokens last for seconds, so that what a test does meanwhile comes before their
// end on a busy machine, too.
func slowStep(int) time.Duration { return 20 * time.Millisecond }

func TestCancel(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	f.stepTime = slowStep
	e := startExecutor(t, f, Options{})
	third := make(chan struct{})
	sink.onToken = func(s StepToken) {
		if s.Index == 2 {
			close(third)
		}
	}
	r := sink.request(1, longAnswerPrompt, 400)
	submit(t, e, r)
	<-third
	e.Cancel(1, 7) // another attempt
	e.Cancel(1, 0)
	e.Cancel(1, 0)
	a := sink.wait(1)
	if a.summary.Reason != FinishCancelled || len(a.tokens) < 3 || a.summary.OutputTokens != len(a.tokens) {
		t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
	}
	e.Cancel(1, 0)
	e.Cancel(99, 0)
}

// A connection breaks while one of its requests was cancelled and another just came: the new one ends with the others,
// once.
func TestSinkThatLeavesWithARequestInTheInbox(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	late := sink.request(2, prompt(2, 8), 30)
	sink.onToken = func(s StepToken) {
		if s.Index != 3 {
			return
		}
		e.Cancel(1, 0)
		if err := e.Submit(late); err != nil {
			t.Error(err)
		}
		sink.gone = true
	}
	submit(t, e, sink.request(1, longAnswerPrompt, 300))
	sink.wait(1)
	sink.wait(2)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := e.Detach(ctx, "b"); err != nil {
		t.Errorf("something is left: %v", err)
	}
}

func TestSinkThatLeft(t *testing.T) {
	f, stays, leaves := newFakeRunner(roomyLimits), newRecordingSink(t), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	r := stays.request(1, longAnswerPrompt, 200)
	leaves.gone = true
	for id := uint64(2); id < 5; id++ {
		submit(t, e, leaves.request(id, longAnswerPrompt, 300))
	}
	submit(t, e, r)
	for id := uint64(2); id < 5; id++ {
		if a := leaves.wait(id); a.summary.Reason != 0 {
			t.Errorf("%d got a summary", id)
		}
	}
	checkAnswer(t, r, stays.wait(1))
	if leaves.emits > 3 { // once for those in progress, once more for each that came in later
		t.Errorf("the sink that left was called %d times", leaves.emits)
	}
}

func TestCancelSink(t *testing.T) {
	f, sink, other := newFakeRunner(roomyLimits), newRecordingSink(t), newRecordingSink(t)
	f.stepTime = slowStep
	e := startExecutor(t, f, Options{})
	for id := range uint64(20) { // some of them wait for a slot
		submit(t, e, sink.request(id, longAnswerPrompt, 300))
	}
	r := other.request(100, longAnswerPrompt, 20)
	submit(t, e, r)
	e.CancelSink(sink)
	for id := range uint64(20) {
		if a := sink.wait(id); a.summary.Reason != 0 {
			t.Errorf("%d got a summary: %+v", id, a.summary)
		}
	}
	checkAnswer(t, r, other.wait(100))
}
