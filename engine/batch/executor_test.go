package batch

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startExecutor returns an executor with one base under the key b, closed at the end of the test.
func startExecutor(t *testing.T, f *fakeRunner, o Options) *Executor {
	t.Helper()
	e := NewExecutor(o)
	if err := e.Attach(context.Background(), "b", f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		f.checkRules(t)
	})
	return e
}

func submit(t *testing.T, e *Executor, r *Request) {
	t.Helper()
	if err := e.Submit(r); err != nil {
		t.Fatalf("submit %d: %v", r.ID, err)
	}
}

var roomyLimits = Limits{Cells: 4096, Sequences: 8, SequenceMax: 512, StepTokens: 256}

func TestAnswersAreWhatTheModelSays(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	var requests []*Request
	for id := range uint64(40) {
		r := sink.request(id, prompt(int(id), 1+int(id)*5), 1+int(id)*2)
		if id%3 == 0 {
			r.Stops = []string{"b", "cA", "\u00e9"}
		}
		requests = append(requests, r)
		submit(t, e, r)
	}
	for _, r := range requests {
		checkAnswer(t, r, sink.wait(r.ID))
	}
}

func TestSubmitRefuses(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	e := startExecutor(t, f, Options{MaxRequests: 1})
	good := func(change func(*Request)) *Request {
		r := sink.request(1, prompt(1, 3), 5)
		change(r)
		return r
	}
	for name, tc := range map[string]struct {
		change func(*Request)
		want   error
	}{
		"unknown base": {func(r *Request) { r.Base = "x" }, ErrUnknownBase},
		"no prompt":    {func(r *Request) { r.Prompt = nil }, ErrInvalid},
		"no tokens":    {func(r *Request) { r.MaxNewTokens = 0 }, ErrInvalid},
		"no sink":      {func(r *Request) { r.Sink = nil }, ErrInvalid},
		"empty stop":   {func(r *Request) { r.Stops = []string{"a", ""} }, ErrInvalid},
		"bad stop":     {func(r *Request) { r.Stops = []string{"\xff"} }, ErrInvalid},
		"timeout":      {func(r *Request) { r.Timeout = -1 }, ErrInvalid},
		"long prompt":  {func(r *Request) { r.Prompt = prompt(1, 513) }, ErrContextExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			err := e.Submit(good(tc.change))
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if field, _ := errors.AsType[*FieldError](err); name == "no prompt" && (field == nil || field.Field != "prompt") {
				t.Errorf("%v blames no field", err)
			}
		})
	}
	r := good(func(*Request) {})
	submit(t, e, r)
	checkAnswer(t, r, sink.wait(1))
}

// longAnswerPrompt is a prompt whose answer doesn't end by itself for 400 tokens.
var longAnswerPrompt = func() []Token {
	for seed := range 100_000 {
		r := &Request{Prompt: prompt(seed, 10), MaxNewTokens: 400}
		if _, _, reason := expectedAnswer(r); reason == FinishLength {
			return r.Prompt
		}
	}
	panic("no prompt has a long answer")
}()
