package batch

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sink := newFakeRunner(Limits{Cells: 4096, Sequences: 1, SequenceMax: 512, StepTokens: 64}), newRecordingSink(t)
		f.stepTime = func(int) time.Duration { return 10 * time.Millisecond }
		e := startExecutor(t, f, Options{})
		began := time.Now()
		decoding, waiting := sink.request(1, longAnswerPrompt, 300), sink.request(2, longAnswerPrompt, 300)
		decoding.Timeout, waiting.Timeout = 205*time.Millisecond, 105*time.Millisecond
		submit(t, e, decoding)
		submit(t, e, waiting)
		a := sink.wait(2)
		if took := time.Since(began); a.summary.Reason != FinishDeadline || took > 120*time.Millisecond || len(a.tokens) != 0 {
			t.Errorf("waiting: after %s, %d tokens, %+v", took, len(a.tokens), a.summary)
		}
		if a.summary.Queue < 105*time.Millisecond || a.summary.Prefill+a.summary.Decode != 0 {
			t.Errorf("durations of the waiting one: %+v", a.summary)
		}
		a = sink.wait(1)
		if took := time.Since(began); a.summary.Reason != FinishDeadline || took > 220*time.Millisecond || len(a.tokens) == 0 {
			t.Errorf("decoding: after %s, %d tokens, %+v", took, len(a.tokens), a.summary)
		}
	})
}

func TestDurationsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
		f.stepTime = func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		e := startExecutor(t, f, Options{StepTokens: 16})
		first, second := sink.request(1, longAnswerPrompt, 20), sink.request(2, prompt(3, 100), 10)
		submit(t, e, first)
		sink.onToken = func(s StepToken) {
			if s.ID == 1 && s.Index == 4 {
				if err := e.Submit(second); err != nil {
					t.Error(err)
				}
			}
		}
		began := time.Now()
		a := sink.wait(1)
		total := time.Since(began)
		if sum := a.summary; a.took != sum.Prefill+sum.Decode || sum.Queue+a.took != total {
			t.Errorf("tokens took %s, request %s, summary %+v", a.took, total, sum)
		}
		if a.summary.Prefill != 10*time.Millisecond {
			t.Errorf("prefill of 10 tokens at 1 ms took %s", a.summary.Prefill)
		}
		for i, s := range a.steps[1:5] {
			if s.SinceLast != time.Millisecond {
				t.Errorf("token %d took %s", i+1, s.SinceLast)
			}
		}
		if b := sink.wait(2); b.took != b.summary.Prefill+b.summary.Decode {
			t.Errorf("tokens took %s, summary %+v", b.took, b.summary)
		}
	})
}

func TestLongPromptDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sink := newFakeRunner(Limits{Cells: 100_000, Sequences: 8, SequenceMax: 60_000, StepTokens: 2048}), newRecordingSink(t)
		f.stepTime = func(n int) time.Duration { return 5*time.Millisecond + time.Duration(n)*100*time.Microsecond }
		e := startExecutor(t, f, Options{TargetStep: 20 * time.Millisecond})
		var longest atomic.Int64
		began := make(chan struct{})
		sink.onToken = func(s StepToken) {
			if s.ID == 1 && s.Index == 20 {
				close(began)
			}
			if s.ID == 1 && s.Index > 20 {
				longest.Store(max(longest.Load(), int64(s.SinceLast)))
			}
		}
		submit(t, e, sink.request(1, longAnswerPrompt, 300))
		<-began
		submit(t, e, sink.request(2, prompt(1, 50_000), 1))
		short := sink.request(3, prompt(2, 8), 1)
		submit(t, e, short)
		checkAnswer(t, short, sink.wait(3))
		if q := sink.get(3).summary; q.Prefill > 100*time.Millisecond {
			t.Errorf("the short prompt behind the long one took %s", q.Prefill)
		}
		sink.wait(1)
		if got := time.Duration(longest.Load()); got > 40*time.Millisecond {
			t.Errorf("longest gap between two tokens is %s, the target was 20ms", got)
		}
		e.Cancel(2, 0)
		sink.wait(2)
	})
}

func TestTwoBasesShareTheDeviceByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cheap, dear, sink := newFakeRunner(roomyLimits), newFakeRunner(roomyLimits), newRecordingSink(t)
		cheap.stepTime = func(int) time.Duration { return 10 * time.Millisecond }
		dear.stepTime = func(int) time.Duration { return 40 * time.Millisecond }
		e := startExecutor(t, cheap, Options{})
		if err := e.Attach(context.Background(), "dear", dear); err != nil {
			t.Fatal(err)
		}
		var at [3]int
		sink.onToken = func(s StepToken) { at[s.ID]++ }
		a, b := sink.request(1, longAnswerPrompt, 300), sink.request(2, longAnswerPrompt, 300)
		b.Base = "dear"
		submit(t, e, a)
		submit(t, e, b)
		time.Sleep(4 * time.Second)
		sink.mu.Lock()
		n, m := at[1], at[2]
		sink.mu.Unlock()
		if n < 170 || n > 230 || m < 40 || m > 60 {
			t.Errorf("in 4 s the cheap base made %d tokens (want 200), the dear one %d (want 50)", n, m)
		}
		e.Cancel(1, 0)
		e.Cancel(2, 0)
		sink.wait(1)
		sink.wait(2)
	})
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
		hang := make(chan struct{})
		f.failStep = func(Adapter, []Slice) error { <-hang; return nil }
		e := startExecutor(t, f, Options{StallFloor: 5 * time.Second})
		was := e.Heartbeat()
		time.Sleep(time.Second)
		is := e.Heartbeat()
		if is.Counter == was.Counter || is.Phase != PhaseIdle || is.Age > time.Second || is.Budget != 5*time.Second {
			t.Errorf("idle: %+v, then %+v", was, is)
		}
		submit(t, e, sink.request(1, prompt(1, 5), 1))
		synctest.Wait()
		was = e.Heartbeat()
		time.Sleep(6 * time.Second)
		is = e.Heartbeat()
		if is.Counter != was.Counter || is.Phase != PhaseStep || is.Age < 6*time.Second || is.Age <= is.Budget {
			t.Errorf("a step that hangs: %+v, then %+v", was, is)
		}
		close(hang)
		sink.wait(1)
	})
}

// compilingRunner has a device that compiles the first step.
type compilingRunner struct {
	*fakeRunner
	compiled bool
}

func (c *compilingRunner) FirstOfKind([]Slice) bool { return !c.compiled }

func (c *compilingRunner) Step(slices []Slice) error {
	defer func() { c.compiled = true }()
	return c.fakeRunner.Step(slices)
}

// A device may compile a step's kernels when it computes the first of its kind. That has the time of a call; what it
// took says nothing of the next one.
func TestTheFirstStepOfAKindMayTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
		took := []time.Duration{52 * time.Second, 7 * time.Second}
		f.failStep = func(Adapter, []Slice) error {
			time.Sleep(took[0])
			took = took[1:]
			return nil
		}
		e := NewExecutor(Options{StallFloor: 5 * time.Second})
		defer e.Close(context.Background())
		if err := e.Attach(t.Context(), "b", &compilingRunner{fakeRunner: f}); err != nil {
			t.Fatal(err)
		}
		submit(t, e, sink.request(1, prompt(1, 5), 2))
		for _, c := range []struct {
			wait  time.Duration
			phase Phase
			hung  bool
		}{
			{45 * time.Second, PhaseFirstStep, false},
			{6 * time.Second, PhaseFirstStep, true},
			{5 * time.Second, PhaseStep, false}, // 4 s after the second began
			{2 * time.Second, PhaseStep, true},
		} {
			time.Sleep(c.wait)
			if b := e.Heartbeat(); b.Phase != c.phase || (b.Age > b.Budget) != c.hung {
				t.Errorf("%+v; want phase %d, hung: %v", b, c.phase, c.hung)
			}
		}
		sink.wait(1)
	})
}

// A call makes a context and runs it once, which takes a large model on a slow machine longer than any step.
func TestALongCallDoesNotCountAsHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startExecutor(t, newFakeRunner(roomyLimits), Options{StallFloor: 5 * time.Second})
		err := e.Do(t.Context(), func() error {
			time.Sleep(45 * time.Second)
			if b := e.Heartbeat(); b.Phase != PhaseCall || b.Age > b.Budget {
				t.Errorf("in a call of 45 s: %+v", b)
			}
			time.Sleep(6 * time.Second)
			if b := e.Heartbeat(); b.Age <= b.Budget {
				t.Errorf("in a call that hangs: %+v", b)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestBudgetFollowsPredictedStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
		f.stepTime = func(int) time.Duration { return 3 * time.Second }
		e := startExecutor(t, f, Options{StallFloor: 5 * time.Second})
		submit(t, e, sink.request(1, longAnswerPrompt, 10))
		time.Sleep(20 * time.Second)
		if b := e.Heartbeat(); (b.Budget - stallFactor*3*time.Second).Abs() > time.Second {
			t.Errorf("steps of 3 s, budget %s", b.Budget)
		}
		sink.wait(1)
	})
}
