package inflight

import (
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
)

func TestClientLeavesWhileQueued(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		a := table.admit(nil)
		a.Settle(ClientGone) // without Cancel and before the end
		f := table.attach(LastExit{})
		if len(f.infers) != 0 || len(f.cancels) != 0 {
			t.Errorf("the engine heard of it: %d requests, %d cancels", len(f.infers), len(f.cancels))
		}
		table.wantMetric(1, "llm_requests_cancelled_total", "stage=queue")
		table.wantMetric(0, "llm_requests_rejected_total")
		table.wantMetric(0, "failed_inferences_total")
	})
}

func TestClientLeavesInMidAnswer(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		a.Settle(ClientGone)
		if len(f.cancels) != 1 {
			t.Errorf("cancels %v", f.cancels)
		}
		table.wantMetric(1, "llm_requests_cancelled_total", "stage=decode")
		table.wantMetric(1, "failed_inferences_total", "error_type=cancelled")
		table.wantMetric(1, "llm_request_finish_total", "reason=cancelled")
		table.wantMetric(1, "llm_request_output_tokens")
	})
}

func TestEndingOf(t *testing.T) {
	whole := &Result{FinishReason: "length"}
	tests := []struct {
		name    string
		result  *Result
		err     *api.Error
		outcome Outcome
		want    ending
	}{
		{"delivered", whole, nil, Delivered, ending{"length", ""}},
		{"whole, but the client left", whole, nil, ClientGone, ending{"cancelled", "cancelled"}},
		{"whole, but not deliverable", whole, nil, Failed, ending{"error", "internal"}},
		{"client left half-way", nil, api.Cancelled(), ClientGone, ending{"cancelled", "cancelled"}},
		{"broken off by a stopping proxy", nil, api.Draining(), Failed, ending{"error", "engine_unavailable"}},
		{"failed", nil, api.DeadlineExceeded(1), Failed, ending{"error", "deadline_exceeded"}},
		{"failed, and the client left as well", nil, api.DeadlineExceeded(1), ClientGone, ending{"cancelled", "cancelled"}},
		{"settled before anything came", nil, nil, Failed, ending{"error", "internal"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := endingOf(tt.result, tt.err, tt.outcome); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// The client learns which field to change and how, whatever text the engine sent.
func TestTooComplexGrammarIsAnErrorOfItsField(t *testing.T) {
	schema, tools := []byte(`{}`), []api.Tool{{Name: "f"}}
	for _, c := range []struct {
		request    api.Request
		fromEngine string // empty: from a step
		want       string
	}{
		{api.Request{JSONSchema: schema}, "json_schema", "json_schema"},
		{api.Request{JSONSchema: schema}, "", "json_schema"},
		{api.Request{JSONSchema: schema, SchemaField: "response_format"}, "json_schema", "response_format"},
		{api.Request{JSONSchema: schema, Tools: tools, SchemaField: "response_format"}, "", "response_format"},
		{api.Request{Grammar: "root ::= [a-z]"}, "", "grammar"},
		{api.Request{Tools: tools, SchemaField: "response_format"}, "tools", "tools"},
		{api.Request{Tools: tools, SchemaField: "response_format"}, "", "tools"},
	} {
		en := &entry{model: "demo", version: "v1.0", req: Request{Infer: &c.request}}
		failure := Failure{Code: "grammar_too_complex", Text: "grammar is too complex", Param: c.fromEngine}
		err := en.clientError(&Summary{Reason: FinishError, Failure: failure}, time.Now())
		if err.Status() != 400 || err.Param != c.want || !strings.HasPrefix(err.Message, c.want+" ") || !strings.Contains(err.Message, "simplify") {
			t.Errorf("%+v: status %d, %+v", c, err.Status(), err)
		}
	}
}

func TestContextErrorSaysWhatTheContextHolds(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishError, Failure: Failure{Code: "context_length_exceeded", Text: "why", Param: "prompt", PromptTokens: 520}}}})
		err := table.wantAnswer(a, "", api.TypeContextExceeded, true).Err
		if err.ContextTokens != 512 || err.PromptTokens != 520 || err.Param != "prompt" {
			t.Errorf("%+v", err)
		}
		a.Settle(Failed)
	})
}

func TestResultSaysHowMuchOfThePromptWasCached(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, CachedTokens: 2, OutputTokens: 1}}})
		if r := table.wantAnswer(a, "a", "", true).Result; r.CachedTokens != 2 || r.PromptTokens != 3 {
			t.Errorf("%+v", r)
		}
		a.Settle(Delivered)
	})
}

// What engines report with 503 passes, so it has a Retry-After, for requests and for calls, whatever the engine says of
// it. Broken files, which waiting doesn't repair, are 404.
func TestRetryAfterForAllPassingErrors(t *testing.T) {
	unavailable := 0
	for _, code := range api.Types() {
		for _, retryable := range []bool{false, true} {
			failure := Failure{Code: string(code), Text: "why", Retryable: retryable}
			en := &entry{table: &Table{}, model: "demo", version: "v1.0", req: Request{Infer: &api.Request{}}}
			for of, err := range map[string]*api.Error{
				"request": en.clientError(&Summary{Reason: FinishError, Failure: failure}, time.Now()), "call": failureError(&failure, nil),
			} {
				if got := err.RetryAfterSeconds() > 0; got != (err.Status() == 503) {
					t.Errorf("%s of a %s, retryable %v: Retry-After is %d", code, of, retryable, err.RetryAfterSeconds())
				}
				if err.Status() == 503 {
					unavailable++
				}
				if broken := code == api.TypeModelBroken || code == api.TypeModelLoadFailed && !retryable; broken != (err.Type == api.TypeModelBroken) {
					t.Errorf("%s of a %s, retryable %v: %s", code, of, retryable, err.Type)
				}
			}
		}
	}
	if unavailable < 4*8-2 {
		t.Errorf("only %d of them are 503", unavailable)
	}
}

// The pause of an answer that goes on has the queue at the next engine in it; that at the first one is no part of it.
func TestQueueOfAnAnswerThatGoesOnIsThatBeforeItsFirstToken(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		a := table.admit(nil)
		time.Sleep(time.Second)
		f := table.attach(LastExit{})
		s := f.last(t)
		table.sendAccepted(f, s)
		time.Sleep(2*time.Second + time.Millisecond) // a millisecond of it is the prefill
		table.sendToken(f, s, 0)
		table.lose(f)
		f = table.attach(LastExit{})
		s = f.last(t)
		table.sendAccepted(f, s)
		time.Sleep(4 * time.Second)
		table.sendToken(f, s, 1)
		table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, OutputTokens: 2, Queue: 4 * time.Second}}})
		if r := a.Take(nil).Result; r == nil || r.Queue != 3*time.Second {
			t.Errorf("result %+v, want 3 s in the queue", r)
		}
		a.Settle(Delivered)
	})
}
