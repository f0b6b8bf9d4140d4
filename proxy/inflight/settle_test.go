package inflight

import (
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
)

// A client is told which field to change and how, whatever the words of the engine.
func TestGrammarThatIsTooComplexIsBlamedOnTheSchema(t *testing.T) {
	en := &entry{model: "demo", version: "v1.0"}
	err := en.failure(&Summary{Reason: FinishError, Failure: Failure{Code: "grammar_too_complex", Text: "grammar is too complex"}}, time.Now())
	if err.Status() != 400 || err.Param != "json_schema" || !strings.Contains(err.Message, "simplify") {
		t.Errorf("status %d, %+v", err.Status(), err)
	}
}

// Waiting doesn't mend broken files.
func TestRetryAfterIsOnlyForWhatMayPass(t *testing.T) {
	for code, retryable := range map[string]bool{"model_load_failed": false, "out_of_memory": true, "model_busy": true} {
		en := &entry{model: "demo", version: "v1.0"}
		err := en.failure(&Summary{Reason: FinishError, Failure: Failure{Code: code, Text: "why", Retryable: retryable}}, time.Now())
		if err.Status() != 503 || (err.RetryAfterSeconds() > 0) != retryable || err.Message != "why" {
			t.Errorf("%s: status %d, %+v", code, err.Status(), err)
		}
	}
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
