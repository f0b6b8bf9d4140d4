package link

import (
	"errors"
	"fmt"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

func TestContextFailureSaysHowLongThePromptIs(t *testing.T) {
	_, err := maxAnswerTokens(0, true, &models.Defaults{}, 520, 512)
	if f := endingFor(err).failure; f.code != "context_length_exceeded" || f.param != "prompt" || f.promptTokens != 520 {
		t.Errorf("%+v", f)
	}
}

func TestEndings(t *testing.T) {
	for _, test := range []struct {
		err    error
		reason schema.FinishReason
		code   string
	}{
		{errCancelled, schema.FinishReason_cancelled, ""},
		{errLost, schema.FinishReason_cancelled, ""},
		{errDeadline, schema.FinishReason_deadline, ""},
		{errMoved, schema.FinishReason_movedAway, ""},
		{models.ErrClosed, schema.FinishReason_movedAway, ""},
		{batch.ErrClosed, schema.FinishReason_movedAway, ""},
		{models.ErrModelBusy, schema.FinishReason_error, "model_busy"},
		{batch.ErrTooMany, schema.FinishReason_error, "queue_full"},
		{batch.ErrContextExceeded, schema.FinishReason_error, "context_length_exceeded"},
		{batch.ErrGrammarTooComplex, schema.FinishReason_error, "grammar_too_complex"},
		{batch.ErrUnknownBase, schema.FinishReason_error, "internal"},
		{errModelChanged, schema.FinishReason_error, "model_changed"},
		{&renderError{errors.New("template"), "", "prompt"}, schema.FinishReason_error, "internal"},
		{&renderError{fmt.Errorf("%w: no system role", models.ErrMessages), "json_schema", "system"}, schema.FinishReason_error, "invalid_request"},
		{&renderError{fmt.Errorf("%w: $ref x", models.ErrTools), "tools", "prompt"}, schema.FinishReason_error, "invalid_request"},
		{&renderError{models.ErrPromptTooLong, "json_schema", "prompt"}, schema.FinishReason_error, "context_length_exceeded"},
	} {
		got := endingFor(fmt.Errorf("wrapped: %w", test.err))
		if got.reason != test.reason || got.failure.code != test.code {
			t.Errorf("%v: got %v %q, want %v %q", test.err, got.reason, got.failure.code, test.reason, test.code)
		}
	}
}

// What passes by itself is told so: a client then sends the request again.
func TestWhatPassesIsRetryable(t *testing.T) {
	for err, code := range map[error]string{
		models.ErrModelBusy: "model_busy", errTooManyRequests: "queue_full", batch.ErrTooMany: "queue_full", models.ErrEmbeddingsFull: "queue_full",
		models.ErrEmbeddingMemory: "out_of_memory", errModelChanged: "model_changed", errSmallerContext: "engine_crashed",
	} {
		if f := endingFor(fmt.Errorf("wrapped: %w", err)).failure; f.code != code || !f.retryable {
			t.Errorf("%v: %s, retryable %v", err, f.code, f.retryable)
		}
	}
	if f := stepFailure(batch.Failure{Code: batch.FailOutOfMemory}); !f.retryable {
		t.Error("a step without memory isn't retryable")
	}
}

func TestClientsAreToldWhatIsWrongWithAModel(t *testing.T) {
	broken := errors.New("open /srv/models/m/model.gguf: bad")
	for _, test := range []struct {
		err       models.LoadError
		text      string
		retryable bool
	}{
		{models.LoadError{Reason: models.ReasonBadFormat, What: "m@v1", Err: broken, Public: "model.gguf: bad"}, "m@v1 can't be loaded: bad_format: model.gguf: bad", false},
		{models.LoadError{Reason: models.ReasonBadFormat, What: "m@v1", Err: broken}, "m@v1 can't be loaded: bad_format", false},
		// a disk, say
		{models.LoadError{Reason: models.ReasonOther, What: "m@v1", Err: broken, Public: "open model.gguf: bad"}, "m@v1 can't be loaded: other", true},
		{models.LoadError{Reason: models.ReasonAdapterMismatch, What: "m@v1", Err: broken, Public: "bad"}, "m@v1 can't be loaded: adapter_mismatch: bad", false},
		{models.LoadError{Reason: models.ReasonTimeout, What: "m@v1", Err: broken}, "m@v1 can't be loaded: timeout", true},
		{models.LoadError{Reason: models.ReasonOutOfMemory, What: "m@v1", Err: broken}, "m@v1 can't be loaded: out_of_memory", true},
	} {
		if got := endingFor(&test.err).failure; got.text != test.text || got.retryable != test.retryable {
			t.Errorf("%s: %+v", test.text, got)
		}
	}
}
