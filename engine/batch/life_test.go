package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCancel(t *testing.T) {
	f, c := newFake(roomy), newCollector(t)
	f.cost = func(int) time.Duration { return 50 * time.Microsecond }
	e := start(t, f, Options{})
	third := make(chan struct{})
	c.onToken = func(s StepToken) {
		if s.Index == 2 {
			close(third)
		}
	}
	r := c.request(1, endless, 400)
	submit(t, e, r)
	<-third
	e.Cancel(1, 7) // another attempt
	e.Cancel(1, 0)
	e.Cancel(1, 0)
	a := c.wait(1)
	if a.summary.Reason != FinishCancelled || len(a.tokens) < 3 || a.summary.OutputTokens != len(a.tokens) {
		t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
	}
	e.Cancel(1, 0)
	e.Cancel(99, 0)
}

// endless is a prompt whose answer doesn't end by itself for 400 tokens.
var endless = func() []Token {
	for seed := range 100_000 {
		r := &Request{Prompt: prompt(seed, 10), MaxNewTokens: 400}
		if _, _, reason := expect(r); reason == FinishLength {
			return r.Prompt
		}
	}
	panic("no prompt has a long answer")
}()

// Half of 10,000 requests are cancelled at any point of their life; nothing is left of any.
func TestTenThousandRequestsLeaveNothing(t *testing.T) {
	f, c := newFake(Limits{Cells: 2000, Sequences: 32, SequenceMax: 128, StepTokens: 256, Prefix: true}), newCollector(t)
	e := start(t, f, Options{MaxRequests: 500, Workers: 2})
	const senders, each = 8, 1250
	var wg sync.WaitGroup
	var requests [senders * each]*Request
	room := make(chan struct{}, 400)
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				id := s*each + i
				room <- struct{}{}
				r := c.request(uint64(id), prompt(id, 1+id%40), 1+id%20)
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
		a := c.wait(uint64(id))
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
	if len(e.live) != 0 || len(e.inbox) != 0 || e.outgoing != 0 {
		t.Errorf("left over: %d live, %d messages, %d jobs", len(e.live), len(e.inbox), e.outgoing)
	}
	e.mu.Unlock()
	if s := e.Stats()[0]; s.Sequences != 32 || s.Waiting != 0 || s.FreeCells != s.Cells || s.FreeSequences != 32 {
		t.Errorf("stats %+v", s)
	}
}

func TestTinyCacheFinishesEverythingWithTheRightText(t *testing.T) {
	for _, prefix := range []bool{false, true} {
		t.Run(fmt.Sprint("prefix ", prefix), func(t *testing.T) {
			f, c := newFake(Limits{Cells: 120, Sequences: 8, SequenceMax: 100, StepTokens: 64, Prefix: prefix}), newCollector(t)
			seen := &counts{}
			e := start(t, f, Options{Observe: seen})
			var requests []*Request
			for id := range uint64(60) {
				r := c.request(id, prompt(int(id/2), 5+int(id)%20), 20+int(id)%50)
				r.Owner = fmt.Sprint(id % 3)
				requests = append(requests, r)
				submit(t, e, r)
			}
			for _, r := range requests {
				checkAnswer(t, r, c.wait(r.ID))
			}
			if seen.preempted.Load() == 0 {
				t.Error("nothing was preempted: the cache is too large for this test")
			}
		})
	}
}

func TestOutOfMemoryAlone(t *testing.T) {
	f, c := newFake(Limits{Cells: 20, Sequences: 2, SequenceMax: 100, StepTokens: 64}), newCollector(t)
	e := start(t, f, Options{})
	submit(t, e, c.request(1, endless, 50))
	if a := c.wait(1); a.summary.Failure.Code != FailOutOfMemory || len(a.tokens) != 11 {
		t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
	}
}

func TestFullContextEndsWithLength(t *testing.T) {
	f, c := newFake(Limits{Cells: 100, Sequences: 2, SequenceMax: 20, StepTokens: 64}), newCollector(t)
	e := start(t, f, Options{})
	submit(t, e, c.request(1, endless, 50))
	if a := c.wait(1); a.summary.Reason != FinishLength || len(a.tokens) != 11 {
		t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
	}
}

// The runner finds no place although the count says there is one (a sliding window, fragments): others end, then it goes on.
func TestNoCellsWaitsForOthers(t *testing.T) {
	f, c := newFake(roomy), newCollector(t)
	left, both := 3, false
	f.fail = func(_ Adapter, slices []Slice) error {
		both = both || len(slices) == 2 // one that is alone has nobody to wait for
		if both && left > 0 && slices[0].Index > 0 {
			left--
			return ErrNoCells
		}
		return nil
	}
	e := start(t, f, Options{})
	a, b := c.request(1, endless, 30), c.request(2, endless[1:], 30)
	submit(t, e, a)
	submit(t, e, b)
	checkAnswer(t, a, c.wait(1))
	checkAnswer(t, b, c.wait(2))
}

// A connection breaks while one of its requests was cancelled and another just came: the new one ends with the others, once.
func TestSinkThatLeavesWithARequestInTheInbox(t *testing.T) {
	f, c := newFake(roomy), newCollector(t)
	e := start(t, f, Options{})
	late := c.request(2, prompt(2, 8), 30)
	c.onToken = func(s StepToken) {
		if s.Index != 3 {
			return
		}
		e.Cancel(1, 0)
		if err := e.Submit(late); err != nil {
			t.Error(err)
		}
		c.deaf = true
	}
	submit(t, e, c.request(1, endless, 300))
	c.wait(1)
	c.wait(2)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := e.Detach(ctx, "b"); err != nil {
		t.Errorf("something is left: %v", err)
	}
}

// A long prompt is read in chunks; the others get their next token after one step each.
func TestOnlyTheGuiltySequenceFails(t *testing.T) {
	guilty := prompt(5, 9)
	whole := func(_ Adapter, slices []Slice) error {
		for _, s := range slices {
			if len(s.Tokens) == len(guilty) && s.Tokens[0] == guilty[0] && s.Tokens[8] == guilty[8] {
				return errBroken
			}
		}
		return nil
	}
	for name, set := range map[string]func(*fakeRunner){
		"the step fails": func(f *fakeRunner) { f.fail = whole },
		"the slice fails": func(f *fakeRunner) {
			f.failed = func(_ int, tokens []Token) error { return whole(nil, []Slice{{Tokens: tokens}}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newFake(roomy), newCollector(t)
			set(f)
			seen := &counts{}
			e := start(t, f, Options{Observe: seen})
			var good []*Request
			for id := range uint64(7) {
				p := prompt(int(id)+20, 12)
				if id == 3 {
					submit(t, e, c.request(id, guilty, 10))
					continue
				}
				good = append(good, c.request(id, p, 30))
				submit(t, e, good[len(good)-1])
			}
			if a := c.wait(3); a.summary.Failure.Code != FailDecode || !strings.Contains(a.summary.Failure.Message, "broken") {
				t.Errorf("guilty: %+v", a.summary)
			}
			for _, r := range good {
				checkAnswer(t, r, c.wait(r.ID))
			}
			if seen.errors.Load() == 0 {
				t.Error("no decode error was counted")
			}
		})
	}
}

func TestSinkThatLeft(t *testing.T) {
	f, stays, leaves := newFake(roomy), newCollector(t), newCollector(t)
	e := start(t, f, Options{})
	r := stays.request(1, endless, 200)
	leaves.deaf = true
	for id := uint64(2); id < 5; id++ {
		submit(t, e, leaves.request(id, endless, 300))
	}
	submit(t, e, r)
	for id := uint64(2); id < 5; id++ {
		if a := leaves.wait(id); a.summary.Reason != 0 {
			t.Errorf("%d got a summary", id)
		}
	}
	checkAnswer(t, r, stays.wait(1))
	if leaves.emits > 3 { // once for those in hand, once more for each that came in later
		t.Errorf("the sink that left was called %d times", leaves.emits)
	}
}

func TestCancelSink(t *testing.T) {
	f, c, other := newFake(roomy), newCollector(t), newCollector(t)
	f.cost = func(int) time.Duration { return 20 * time.Microsecond }
	e := start(t, f, Options{})
	for id := range uint64(20) { // some of them wait for a slot
		submit(t, e, c.request(id, endless, 300))
	}
	r := other.request(100, endless, 20)
	submit(t, e, r)
	e.CancelSink(c)
	for id := range uint64(20) {
		if a := c.wait(id); a.summary.Reason != 0 {
			t.Errorf("%d got a summary: %+v", id, a.summary)
		}
	}
	checkAnswer(t, r, other.wait(100))
}

func TestDetachWaits(t *testing.T) {
	f, c := newFake(roomy), newCollector(t)
	f.cost = func(int) time.Duration { return 50 * time.Microsecond }
	e := start(t, f, Options{})
	r := c.request(1, endless, 300)
	submit(t, e, r)

	soon, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := e.Detach(soon, "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("detach of a busy base: %v", err)
	}
	again := c.request(2, prompt(2, 5), 3)
	submit(t, e, again) // it takes requests again

	gone := make(chan error)
	go func() { gone <- e.Detach(context.Background(), "b") }()
	for id := uint64(3); ; id++ { // until Detach is under way
		err := e.Submit(c.request(id, prompt(2, 5), 1))
		if errors.Is(err, ErrUnknownBase) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		c.wait(id)
	}
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.get(1).released:
	default:
		t.Error("detached while a request was in hand")
	}
	checkAnswer(t, r, c.wait(1))
	checkAnswer(t, again, c.wait(2))
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
	f, c := newFake(roomy), newCollector(t)
	f.cost = func(int) time.Duration { return 50 * time.Microsecond }
	e := NewExecutor(Options{})
	if err := e.Attach(context.Background(), "b", f); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(20) {
		submit(t, e, c.request(id, endless, 300))
	}
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(20) {
		if a := c.wait(id); a.summary.Reason != FinishCancelled {
			t.Errorf("%d: %+v", id, a.summary)
		}
	}
	if err := e.Submit(c.request(30, prompt(1, 1), 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("submit: %v", err)
	}
	if err := e.Do(context.Background(), func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("do: %v", err)
	}
	if err := e.Detach(context.Background(), "b"); err != nil {
		t.Errorf("detach: %v", err)
	}
	e.CancelSink(c)
	if err := e.Close(context.Background()); err != nil {
		t.Errorf("second close: %v", err)
	}
	f.check(t)
}

func TestDoRunsBetweenSteps(t *testing.T) {
	f, c := newFake(roomy), newCollector(t)
	e := start(t, f, Options{})
	inside := false
	f.trace = func(Adapter, []Slice, map[int]int) {
		if inside {
			t.Error("a step during a call")
		}
	}
	r := c.request(1, endless, 200)
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
	checkAnswer(t, r, c.wait(1))

	begun, finish := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	go func() {
		result <- e.Do(ctx, func() error { close(begun); <-finish; return nil })
	}()
	<-begun
	if beat := e.Heartbeat(); beat.Phase != PhaseCall {
		t.Errorf("beat %+v during a call", beat)
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
	f, c := newFake(roomy), newCollector(t)
	e := start(t, f, Options{})
	r := c.request(1, endless, 50)
	gone := make(chan error)
	err := e.Do(context.Background(), func() error { // after the inbox was read, before bases are let go
		if err := e.Submit(r); err != nil {
			return err
		}
		go func() { gone <- e.Detach(context.Background(), "b") }()
		for leaving := false; !leaving; {
			runtime.Gosched()
			e.mu.Lock()
			leaving = e.bases["b"].leaving != nil
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
	checkAnswer(t, r, c.wait(1))
}

func TestOneOfManyEqualRequestsIsTaken(t *testing.T) {
	f, c := newFake(roomy), newCollector(t)
	f.cost = func(int) time.Duration { return 100 * time.Microsecond }
	e := start(t, f, Options{})
	r := c.request(1, endless, 300)
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
	c.wait(1)
}

// counts is an observer.
type counts struct {
	preempted, errors, prompt, cached, generated, decodes atomic.Int64
}

func (c *counts) Decode(string, string, float64, int, int) { c.decodes.Add(1) }
func (c *counts) Sampling(string, float64)                 {}
func (c *counts) Preempted(string)                         { c.preempted.Add(1) }
func (c *counts) DecodeError(string, string)               { c.errors.Add(1) }
func (c *counts) Tokens(_, kind string, n int) {
	switch kind {
	case "prompt":
		c.prompt.Add(int64(n))
	case "cached":
		c.cached.Add(int64(n))
	case "generated":
		c.generated.Add(int64(n))
	}
}
