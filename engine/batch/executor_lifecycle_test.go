package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Half of 10,000 requests are cancelled at any point of their life; nothing is left of any.
func TestTenThousandRequestsLeaveNothing(t *testing.T) {
	f, sink := newFakeRunner(Limits{Cells: 2000, Sequences: 32, SequenceMax: 128, StepTokens: 256, Prefix: true}), newRecordingSink(t)
	e := startExecutor(t, f, Options{MaxRequests: 500, Workers: 2})
	const senders, each = 8, 1250
	var wg sync.WaitGroup
	var requests [senders * each]*Request
	room := make(chan struct{}, 400)
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				id := s*each + i
				room <- struct{}{}
				r := sink.request(uint64(id), prompt(id, 1+id%40), 1+id%20)
				release := r.Release
				r.Release = func() { release(); <-room }
				if id%10 == 0 {
					r.Sampling.Grammar = "root ::= [a-z]"
				}
				r.Owner = fmt.Sprint(id % 5)
				requests[id] = r
				if err := e.Submit(r); err != nil {
					t.Errorf("submit %d: %v", id, err)
					return
				}
				if id%2 == 0 {
					e.Cancel(uint64(id), 0)
				}
			}
		})
	}
	wg.Wait()
	cancelled := 0
	for id, r := range requests {
		a := sink.wait(uint64(id))
		if a.summary.Reason == FinishCancelled {
			cancelled++
			continue
		}
		checkAnswer(t, r, a)
	}
	if cancelled == 0 || cancelled > len(requests)/2 {
		t.Errorf("%d were cancelled", cancelled)
	}
	if err := e.Do(context.Background(), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	if len(e.requests) != 0 || len(e.inbox) != 0 || e.runningJobs != 0 {
		t.Errorf("left over: %d live, %d messages, %d jobs", len(e.requests), len(e.inbox), e.runningJobs)
	}
	e.mu.Unlock()
	if s := e.Stats()[0]; s.Sequences != 32 || s.Waiting != 0 || s.FreeCells != s.Cells || s.FreeSequences != 32 {
		t.Errorf("stats %+v", s)
	}
}

func TestDetachWaits(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	var fast atomic.Bool // once the first answer needn't outlast anything any more
	f.stepTime = func(tokens int) time.Duration {
		if fast.Load() {
			return 0
		}
		return slowStep(tokens)
	}
	e := startExecutor(t, f, Options{})
	r := sink.request(1, longAnswerPrompt, 300)
	submit(t, e, r)

	soon, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := e.Detach(soon, "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("detach of a busy base: %v", err)
	}
	again := sink.request(2, prompt(2, 5), 3)
	submit(t, e, again) // it takes requests again

	gone := make(chan error)
	go func() { gone <- e.Detach(context.Background(), "b") }()
	for id := uint64(3); ; id++ { // until Detach is under way
		err := e.Submit(sink.request(id, prompt(2, 5), 1))
		if errors.Is(err, ErrUnknownBase) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sink.wait(id)
	}
	fast.Store(true)
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	select {
	case <-sink.get(1).released:
	default:
		t.Error("detached while a request was in hand")
	}
	checkAnswer(t, r, sink.wait(1))
	checkAnswer(t, again, sink.wait(2))
	if err := e.Detach(context.Background(), "b"); !errors.Is(err, ErrUnknownBase) {
		t.Errorf("second detach: %v", err)
	}
	if err := e.Attach(context.Background(), "b", f); err != nil {
		t.Errorf("attach after detach: %v", err)
	}
	if err := e.Attach(context.Background(), "b", f); !errors.Is(err, ErrBaseExists) {
		t.Errorf("attach twice: %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	f.stepTime = slowStep
	e := NewExecutor(Options{})
	if err := e.Attach(context.Background(), "b", f); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(20) {
		submit(t, e, sink.request(id, longAnswerPrompt, 300))
	}
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(20) {
		if a := sink.wait(id); a.summary.Reason != FinishCancelled {
			t.Errorf("%d: %+v", id, a.summary)
		}
	}
	if err := e.Submit(sink.request(30, prompt(1, 1), 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("submit: %v", err)
	}
	if err := e.Do(context.Background(), func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("do: %v", err)
	}
	if err := e.Detach(context.Background(), "b"); err != nil {
		t.Errorf("detach: %v", err)
	}
	e.CancelSink(sink)
	if err := e.Close(context.Background()); err != nil {
		t.Errorf("second close: %v", err)
	}
	f.checkRules(t)
}

func TestDoRunsBetweenSteps(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	inside := false
	f.onStep = func(Adapter, []Slice, map[int]int) {
		if inside {
			t.Error("a step during a call")
		}
	}
	r := sink.request(1, longAnswerPrompt, 200)
	submit(t, e, r)
	for range 50 {
		err := e.Do(context.Background(), func() error {
			inside = true
			runtime.Gosched()
			inside = false
			return errBroken
		})
		if !errors.Is(err, errBroken) {
			t.Fatalf("got %v", err)
		}
	}
	checkAnswer(t, r, sink.wait(1))

	begun, finish := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	go func() {
		result <- e.Do(ctx, func() error { close(begun); <-finish; return nil })
	}()
	<-begun
	if now := e.Heartbeat(); now.Phase != PhaseCall {
		t.Errorf("heartbeat %+v during a call", now)
	}
	queued, giveUp := context.WithCancel(context.Background())
	giveUp()
	if err := e.Do(queued, func() error { t.Error("ran although its caller gave up"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("queued call: %v", err)
	}
	cancel() // too late: it has begun
	close(finish)
	if err := <-result; err != nil {
		t.Errorf("begun call: %v", err)
	}
}

// A request that came in just before Detach is waited for, although no step has seen it yet.
func TestDetachWaitsForWhatWasJustSubmitted(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	r := sink.request(1, longAnswerPrompt, 50)
	gone := make(chan error)
	err := e.Do(context.Background(), func() error { // after the inbox was read, before bases are let go
		if err := e.Submit(r); err != nil {
			return err
		}
		go func() { gone <- e.Detach(context.Background(), "b") }()
		for leaving := false; !leaving; {
			runtime.Gosched()
			e.mu.Lock()
			leaving = e.bases["b"].detaching != nil
			e.mu.Unlock()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	checkAnswer(t, r, sink.wait(1))
}

func TestOneOfManyEqualRequestsIsTaken(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	f.stepTime = func(int) time.Duration { return 100 * time.Microsecond }
	e := startExecutor(t, f, Options{})
	r := sink.request(1, longAnswerPrompt, 300)
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			err := e.Submit(r)
			if err == nil {
				taken.Add(1)
			} else if !errors.Is(err, ErrDuplicate) {
				t.Errorf("submit: %v", err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 {
		t.Errorf("%d were taken", taken.Load())
	}
	e.Cancel(1, 0)
	sink.wait(1)
}
