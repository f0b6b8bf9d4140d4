package batch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func withGrammar(r *Request) *Request {
	r.Sampling.Grammar = "root ::= [a-z]+"
	return r
}

func TestSlowGrammarsDoNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
		f.stepTime = func(int) time.Duration { return time.Millisecond }
		f.onAdvance = func(int) error { time.Sleep(100 * time.Millisecond); return nil }
		e := startExecutor(t, f, Options{Workers: 2})
		fast := sink.request(1, longAnswerPrompt, 300)
		var slow []*Request
		for id := uint64(2); id < 6; id++ { // more of them than workers
			slow = append(slow, withGrammar(sink.request(id, prompt(int(id), 7), 5)))
			submit(t, e, slow[len(slow)-1])
		}
		submit(t, e, fast)
		checkAnswer(t, fast, sink.wait(1))
		for _, s := range sink.get(1).steps[1:] {
			if s.SinceLast > time.Millisecond {
				t.Fatalf("token %d of the fast one took %s", s.Index, s.SinceLast)
			}
		}
		for _, r := range slow {
			a := sink.wait(r.ID)
			checkAnswer(t, r, a)
			if a.took != a.summary.Prefill+a.summary.Decode || a.took < 500*time.Millisecond {
				t.Errorf("tokens took %s, %+v", a.took, a.summary)
			}
		}
	})
}

func TestEndsWhileAGrammarIsAtWork(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(e *Executor)
		want FinishReason
	}{
		"cancel":   {func(e *Executor) { e.Cancel(1, 0) }, FinishCancelled},
		"deadline": {func(*Executor) { time.Sleep(700 * time.Millisecond) }, FinishDeadline},
		"close":    {func(e *Executor) { go e.Close(context.Background()) }, FinishCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
				unblock := make(chan struct{})
				f.onAdvance = func(int) error { <-unblock; return nil }
				e := startExecutor(t, f, Options{})
				r := withGrammar(sink.request(1, prompt(1, 5), 5))
				r.Timeout = 700 * time.Millisecond
				submit(t, e, r)
				synctest.Wait() // the worker is at it
				tc.end(e)
				synctest.Wait()
				a := sink.get(1)
				select {
				case <-a.done:
				default:
					t.Fatal("the summary waits for the worker")
				}
				select {
				case <-a.released:
					t.Fatal("released while a worker uses the sampler")
				default:
				}
				close(unblock)
				if sink.wait(1).summary.Reason != tc.want {
					t.Errorf("%+v", a.summary)
				}
			})
		})
	}
}

func TestSamplerErrors(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	f.onAdvance = func(index int) error {
		if index == 2 {
			return ErrGrammarTooComplex
		}
		return nil
	}
	e := startExecutor(t, f, Options{})
	submit(t, e, withGrammar(sink.request(1, longAnswerPrompt, 5)))
	if a := sink.wait(1); a.summary.Failure.Code != FailGrammarTooHard || len(a.tokens) != 2 {
		t.Errorf("draw: %d tokens, %+v", len(a.tokens), a.summary)
	}
	if err := e.Do(context.Background(), func() error { f.samplerError = errBroken; return nil }); err != nil {
		t.Fatal(err)
	}
	submit(t, e, withGrammar(sink.request(2, longAnswerPrompt, 5)))
	if a := sink.wait(2); a.summary.Failure.Code != FailInternal {
		t.Errorf("build of a grammar: %+v", a.summary)
	}
	if err := e.Submit(sink.request(3, longAnswerPrompt, 5)); !errors.Is(err, errBroken) {
		t.Errorf("build of a plain sampler: %v", err)
	}
}

// One slot, and the sequence in it is with a worker most of the time.
func TestGrammarsTakeTurnsInOneSlot(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	f.limits.Sequences = 1
	e := startExecutor(t, f, Options{})
	var requests []*Request
	for id := range uint64(5) {
		requests = append(requests, withGrammar(sink.request(id, prompt(int(id), 7), 5)))
		submit(t, e, requests[id])
	}
	for _, r := range requests {
		checkAnswer(t, r, sink.wait(r.ID))
	}
}

// A sequence that is with a worker keeps its cells, however few there are.
func TestGrammarsInATinyCache(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	f.limits = Limits{Cells: 60, Sequences: 8, SequenceMax: 50, StepTokens: 64}
	e := startExecutor(t, f, Options{Workers: 3})
	var requests []*Request
	for id := range uint64(60) {
		r := sink.request(id, prompt(int(id), 5+int(id)%10), 5+int(id)%30)
		if id%3 != 0 {
			withGrammar(r)
		}
		requests = append(requests, r)
		submit(t, e, r)
	}
	for _, r := range requests {
		checkAnswer(t, r, sink.wait(r.ID))
	}
}

// Forced tokens are the ones that would have been drawn, arrive in order, and take fewer steps.
func TestForcedTokens(t *testing.T) {
	for name, force := range map[string]func(int) int{
		"none":      func(int) int { return 0 },
		"one":       func(int) int { return 1 },
		"at first":  func(index int) int { return 5 * max(0, 1-index) },
		"now again": func(index int) int { return index % 4 },
		"long runs": func(int) int { return 3 * maxForcedTokens },
	} {
		t.Run(name, func(t *testing.T) {
			f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
			f.forcedCount = force
			var steps atomic.Int64
			f.onStep = func(Adapter, []Slice, map[int]int) { steps.Add(1) }
			e := startExecutor(t, f, Options{})
			var requests []*Request
			for id := range uint64(6) {
				requests = append(requests, withGrammar(sink.request(id, prompt(int(id), 7), 60)))
				submit(t, e, requests[id])
			}
			tokens := 0
			for _, r := range requests {
				checkAnswer(t, r, sink.wait(r.ID))
				tokens += len(sink.get(r.ID).tokens)
			}
			if name == "long runs" && int(steps.Load()) >= tokens/4 {
				t.Errorf("%d steps for %d tokens", steps.Load(), tokens)
			}
		})
	}
}

// A replay may begin after any token that was drawn.
func TestForcedTokensAfterAReplay(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	f.forcedCount = func(index int) int { return index % 3 }
	e := startExecutor(t, f, Options{})
	whole := sink.request(1, longAnswerPrompt, 30)
	tokens, _, _ := expectedAnswer(whole)
	for cut := range len(tokens) {
		r := withGrammar(sink.request(uint64(100+cut), longAnswerPrompt, 30))
		r.Generated = tokens[:cut]
		submit(t, e, r)
		if got := sink.wait(r.ID).tokens; fmt.Sprint(got) != fmt.Sprint(tokens[cut:]) {
			t.Errorf("after %d tokens %v, want %v", cut, got, tokens[cut:])
		}
	}
}
