package link

import (
	"context"
	"errors"
	"fmt"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

// failure is why a request or a call failed; its code is one of the proxy's error types.
type failure struct {
	code, text, param string
	retryable         bool
	promptTokens      int // of context_length_exceeded; 0: not counted
}

// earlyEnding is how a request ended that the executor never had.
type earlyEnding struct {
	reason  schema.FinishReason
	failure failure
}

var (
	errModelChanged    = errors.New("the model's files changed while the answer was under way")
	errTooManyRequests = errors.New("too many requests in hand")
)

// renderError is an error of the template or the tokeniser.
type renderError struct {
	error
	constraint string // the field that the answer's grammar is made of, which then caused the error; empty: none
	param      string // otherwise: the field with the text that the template refused
}

func (e *renderError) Unwrap() error { return e.error }

// endingFor maps an error of the preparation to a finish reason and, for an error, its failure.
func endingFor(err error) earlyEnding {
	switch {
	case errors.Is(err, errCancelled), errors.Is(err, errLost):
		return earlyEnding{reason: schema.FinishReason_cancelled}
	case errors.Is(err, errDeadline), errors.Is(err, context.DeadlineExceeded):
		return earlyEnding{reason: schema.FinishReason_deadline}
	case errors.Is(err, errMoved), errors.Is(err, models.ErrClosed), errors.Is(err, batch.ErrClosed):
		return earlyEnding{reason: schema.FinishReason_movedAway} // this engine ends; another one can do it
	}
	return earlyEnding{reason: schema.FinishReason_error, failure: failureOf(err)}
}

func failureOf(err error) failure {
	if load, ok := errors.AsType[*models.LoadError](err); ok {
		return loadFailure(load)
	}
	if field, ok := errors.AsType[*invalidFieldError](err); ok {
		return failure{code: "invalid_request", text: field.Error(), param: field.param}
	}
	if task, ok := errors.AsType[*taskError](err); ok {
		return failure{code: "invalid_request", text: task.Error(), param: "base_model"}
	}
	if tight, ok := errors.AsType[*contextLengthError](err); ok {
		return failure{code: "context_length_exceeded", text: tight.Error(), param: tight.param, promptTokens: tight.promptTokens}
	}
	if field, ok := errors.AsType[*batch.FieldError](err); ok {
		return failure{code: "invalid_request", text: field.Error(), param: field.Field}
	}
	switch {
	case errors.Is(err, models.ErrModelBusy):
		return failure{code: "model_busy", text: err.Error(), retryable: true}
	case errors.Is(err, errTooManyRequests), errors.Is(err, batch.ErrTooMany), errors.Is(err, models.ErrEmbeddingsFull):
		return failure{code: "queue_full", text: err.Error(), retryable: true}
	case errors.Is(err, models.ErrPromptTooLong), errors.Is(err, batch.ErrContextExceeded):
		return failure{code: "context_length_exceeded", text: err.Error(), param: "prompt"}
	case errors.Is(err, models.ErrEmbeddingMemory):
		return failure{code: "out_of_memory", text: err.Error(), retryable: true}
	case errors.Is(err, errSmallerContext):
		return failure{code: "engine_crashed", text: err.Error(), retryable: true}
	case errors.Is(err, errModelChanged):
		return failure{code: "model_changed", text: err.Error(), retryable: true}
	case errors.Is(err, batch.ErrGrammarTooComplex):
		param := "json_schema"
		if render, ok := errors.AsType[*renderError](err); ok && render.constraint != "" {
			param = render.constraint
		}
		return failure{code: "grammar_too_complex", text: err.Error(), param: param}
	case errors.Is(err, batch.ErrInvalid):
		return failure{code: "invalid_request", text: err.Error()}
	}
	if render, ok := errors.AsType[*renderError](err); ok {
		switch {
		case errors.Is(err, models.ErrTools):
			return failure{code: "invalid_request", text: shorten(err.Error()), param: "tools"}
		case errors.Is(err, models.ErrMessages): // the template renders other messages, as the load has checked
			return failure{code: "invalid_request", text: shorten(err.Error()), param: render.param}
		case render.constraint != "":
			return failure{code: "invalid_request", text: err.Error(), param: render.constraint}
		}
	}
	return failure{code: "internal", text: err.Error()}
}

// loadFailure describes a failed load to clients: the reason and, for broken files, what is wrong with them, without a
// path of the host. It is retryable if the cause may be temporary.
func loadFailure(e *models.LoadError) failure {
	what := string(e.Reason)
	if e.Public != "" && (e.Reason == models.ReasonBadFormat || e.Reason == models.ReasonAdapterMismatch) {
		what += ": " + e.Public
	}
	f := failure{text: fmt.Sprintf("%s can't be loaded: %s", e.What, what), param: "base_model"}
	switch e.Reason {
	case models.ReasonNotFound:
		f.code = "model_not_found"
	case models.ReasonOutOfMemory:
		f.code, f.param, f.retryable = "out_of_memory", "", true
	default:
		f.code, f.retryable = "model_load_failed", e.Reason != models.ReasonBadFormat && e.Reason != models.ReasonAdapterMismatch
	}
	return f
}

// stepFailure converts the executor's failure, whose code is one of the proxy's error types already.
func stepFailure(f batch.Failure) failure {
	return failure{code: string(f.Code), text: f.Message, retryable: f.Code == batch.FailOutOfMemory}
}

func (f *failure) write(to schema.Failure) error {
	to.SetRetryable(f.retryable)
	to.SetPromptTokens(uint32(f.promptTokens))
	w := fieldWriter{}
	w.text(to.SetCode, f.code)
	w.text(to.SetText, f.text)
	w.text(to.SetParam, f.param)
	return w.err
}
