package batch

import (
	"context"
	"errors"
	"testing"
	"time"

	"tandem/scripts/await"
)

func TestTurnsAndStepsAlternate(t *testing.T) {
	counts := &countingObserver{}
	e := NewExecutor(Options{TargetStep: 7 * time.Millisecond, Observe: counts})
	defer e.Close(context.Background())
	steps := 0 // of the executor's goroutine
	r := newFakeRunner(Limits{Cells: 4096, Sequences: 4, SequenceMax: 4096, StepTokens: 64, Prefix: true})
	r.stepTime = func(int) time.Duration { // so that the answer outlasts the turns
		steps++
		return 20 * time.Millisecond
	}
	if err := e.Attach(t.Context(), "b", r); err != nil {
		t.Fatal(err)
	}
	alone := Turn{Limit: 1}
	if err := e.TakeTurn(t.Context(), func(turn Turn) error { alone = turn; return nil }); err != nil || alone.Limit != 0 {
		t.Errorf("a turn with nobody beside it has the limit %s, %v", alone.Limit, err)
	}
	if err := e.Submit(endlessRequest(newRecordingSink(t))); err != nil {
		t.Fatal(err)
	}
	const turns = 20
	var before []int // steps before each turn
	for range turns {
		err := e.TakeTurn(t.Context(), func(turn Turn) error {
			before = append(before, steps)
			turn.Computed("b", time.Millisecond, 10, 2, 1)
			if turn.Limit != 7*time.Millisecond {
				t.Errorf("beside a stream the limit is %s", turn.Limit)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < turns; i++ {
		if before[i] <= before[i-1] {
			t.Errorf("no step between turns %d and %d: %v", i-1, i, before)
		}
	}
	e.Cancel(1, 0)
	if counts.prompt.Load() != 10*turns+5 || counts.embedded.Load() != turns {
		t.Errorf("counted %d tokens and %d texts of %d turns", counts.prompt.Load(), counts.embedded.Load(), turns)
	}
}

func TestAHungTurnIsNoticed(t *testing.T) {
	e := NewExecutor(Options{StallFloor: 5 * time.Millisecond})
	defer e.Close(context.Background())
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- e.TakeTurn(t.Context(), func(turn Turn) error {
			turn.Expect(time.Millisecond)
			close(begun)
			<-end
			return errors.New("at last")
		})
	}()
	<-begun
	await.Until(t, 10*time.Second, "the heartbeat is overdue", func() bool {
		h := e.Heartbeat()
		return h.Phase == PhaseStep && h.Budget == stallFactor*time.Millisecond && h.Age > h.Budget
	})
	close(end)
	if err := <-ended; err == nil || err.Error() != "at last" {
		t.Errorf("the turn's error is %v", err)
	}
}

func TestATurnOfANewKindHasTheTimeOfACall(t *testing.T) {
	e := NewExecutor(Options{StallFloor: time.Minute})
	defer e.Close(context.Background())
	err := e.TakeTurn(t.Context(), func(turn Turn) error {
		turn.ExpectFirst(time.Millisecond)
		if h := e.Heartbeat(); h.Phase != PhaseFirstStep || h.Budget != callFactor*time.Minute {
			t.Errorf("heartbeat %+v", h)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTurnsEndWithTheirContextAndTheExecutor(t *testing.T) {
	e := NewExecutor(Options{})
	begun, end := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() { first <- e.TakeTurn(t.Context(), func(Turn) error { close(begun); <-end; return nil }) }()
	<-begun
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := e.TakeTurn(ctx, func(Turn) error { t.Error("a turn ran that nobody waits for"); return nil }); err == nil || err.Error() != "enough" {
		t.Errorf("with its context ended: %v", err)
	}
	queued := make(chan error, 1)
	go func() { queued <- e.TakeTurn(t.Context(), func(Turn) error { return errors.New("it ran") }) }()
	await.Until(t, 10*time.Second, "the turn is queued", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.turns) == 2
	})
	closed := make(chan error, 1)
	go func() { closed <- e.Close(context.Background()) }()
	await.Until(t, 10*time.Second, "the executor is closing", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.closed
	})
	close(end)
	if err := errors.Join(<-first, <-closed); err != nil {
		t.Error(err)
	}
	if err := <-queued; !errors.Is(err, ErrClosed) {
		t.Errorf("a turn that was queued when the executor closed: %v", err)
	}
	if err := e.TakeTurn(t.Context(), func(Turn) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// endlessRequest is one whose answer ends only when it is cut.
func endlessRequest(sink *recordingSink) *Request {
	for seed := 1; ; seed++ {
		r := sink.request(1, prompt(seed, 5), 300)
		if _, _, reason := expectedAnswer(r); reason == FinishLength {
			return r
		}
	}
}
