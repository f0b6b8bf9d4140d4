package batch

import (
	"fmt"
	"testing"
)

func TestPrefixesAreReusedWithinAnAdapter(t *testing.T) {
	limits := roomyLimits
	limits.Prefix = true
	f, sink := newFakeRunner(limits), newRecordingSink(t)
	seen := &countingObserver{}
	e := startExecutor(t, f, Options{Observe: seen})
	one, two := &fakeAdapter{"one"}, &fakeAdapter{"two"}
	system := prompt(7, 100)
	ask := func(id uint64, a Adapter, question []Token) *recordedAnswer {
		r := sink.request(id, append(append([]Token(nil), system...), question...), 20)
		r.Adapter = a
		submit(t, e, r)
		got := sink.wait(id)
		checkAnswer(t, r, got)
		return got
	}
	for id, tc := range []struct {
		a        Adapter
		question []Token
		cached   int
	}{
		{one, prompt(1, 10), 0},
		{one, prompt(1, 10), 109}, // all but the last, whose logits are needed
		{one, prompt(2, 10), 100},
		{two, prompt(1, 10), 0},
		{nil, prompt(1, 10), 0},
		{two, prompt(3, 10), 100},
	} {
		if got := ask(uint64(id), tc.a, tc.question); got.summary.CachedTokens != tc.cached {
			t.Errorf("request %d: %d cached tokens, want %d", id, got.summary.CachedTokens, tc.cached)
		}
	}
	if cached, computed := seen.cached.Load(), seen.prompt.Load(); cached != 309 || computed != 6*110-309 {
		t.Errorf("counted %d cached and %d computed prompt tokens", cached, computed)
	}
}

// A conversation goes on: the next prompt holds the answer before it.
func TestConversationReusesTheAnswer(t *testing.T) {
	limits := roomyLimits
	limits.Prefix = true
	f, sink := newFakeRunner(limits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	first := sink.request(1, longAnswerPrompt, 50)
	submit(t, e, first)
	a := sink.wait(1)
	next := append(append(append([]Token(nil), longAnswerPrompt...), a.tokens...), prompt(9, 5)...)
	second := sink.request(2, next, 10)
	submit(t, e, second)
	b := sink.wait(2)
	checkAnswer(t, second, b)
	if b.summary.CachedTokens != len(longAnswerPrompt)+49 { // the last token of the answer was never fed
		t.Errorf("%d cached tokens", b.summary.CachedTokens)
	}
}

// Several adapters at once, in one base, with little room: each answer is its adapter's.
func TestAdaptersDoNotMix(t *testing.T) {
	limits := Limits{Cells: 400, Sequences: 6, SequenceMax: 200, StepTokens: 64, Prefix: true}
	f, sink := newFakeRunner(limits), newRecordingSink(t)
	switches := 0
	var last Adapter
	steps := 0
	f.onStep = func(a Adapter, _ []Slice, _ map[int]int) {
		steps++
		if a != last {
			switches++
			last = a
		}
	}
	e := startExecutor(t, f, Options{})
	adapters := []Adapter{nil, &fakeAdapter{"one"}, &fakeAdapter{"two"}, &fakeAdapter{"x"}}
	var requests []*Request
	for id := range uint64(80) {
		r := sink.request(id, prompt(int(id/8), 30), 10+int(id)%30)
		r.Adapter, r.Owner = adapters[id%4], fmt.Sprint(id%3)
		requests = append(requests, r)
		submit(t, e, r)
	}
	for _, r := range requests {
		checkAnswer(t, r, sink.wait(r.ID))
	}
	if switches > steps/2 {
		t.Errorf("%d switches of the adapter in %d steps", switches, steps)
	}
}

func TestCellsOfAFailedSequenceAreNotReused(t *testing.T) {
	limits := roomyLimits
	limits.Prefix = true
	f, sink := newFakeRunner(limits), newRecordingSink(t)
	broken := false
	f.failSlice = func(int, []Token) error {
		if broken {
			return errBroken
		}
		return nil
	}
	sink.onToken = func(s StepToken) { broken = s.ID == 1 && s.Index == 20 }
	e := startExecutor(t, f, Options{})
	submit(t, e, sink.request(1, longAnswerPrompt, 50))
	if a := sink.wait(1); a.summary.Failure.Code != FailDecode {
		t.Fatalf("%+v", a.summary)
	}
	broken = false
	submit(t, e, sink.request(2, longAnswerPrompt, 5))
	if a := sink.wait(2); a.summary.CachedTokens != 0 {
		t.Errorf("%d cached tokens", a.summary.CachedTokens)
	}
}
