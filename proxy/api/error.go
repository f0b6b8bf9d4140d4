package api

import (
	"fmt"
	"strings"
	"time"
)

// Type names a kind of error. Clients see it as error.type and may branch on it.
type Type string

// Every error type. What each one means for status, label and metric is in the table of outcomes (error_outcome.go).
const (
	TypeInvalidRequest    Type = "invalid_request"
	TypeUnauthorized      Type = "unauthorized"
	TypeForbidden         Type = "forbidden"
	TypeModelNotFound     Type = "model_not_found"
	TypeVersionNotFound   Type = "version_not_found"
	TypeContextExceeded   Type = "context_length_exceeded"
	TypeRateLimited       Type = "rate_limited"
	TypeQuarantined       Type = "request_quarantined"
	TypeGrammarTooComplex Type = "grammar_too_complex"

	TypeQueueFull         Type = "queue_full"
	TypeQueueTimeout      Type = "queue_timeout"
	TypeDeadlineExceeded  Type = "deadline_exceeded"
	TypeEngineUnavailable Type = "engine_unavailable"
	TypeEngineCrashed     Type = "engine_crashed"
	TypeModelLoadFailed   Type = "model_load_failed" // for now; a later request may find it loaded
	TypeModelBroken       Type = "model_broken"      // its files are at fault
	TypeModelBusy         Type = "model_busy"
	TypeModelChanged      Type = "model_changed"
	TypeOutOfMemory       Type = "out_of_memory"
	TypeDecodeFailed      Type = "decode_failed"
	TypeDraining          Type = "draining"
	TypeInternal          Type = "internal"
	TypeCancelled         Type = "cancelled" // the client disconnected; nobody reads the answer

	TypeBodyTooLarge         Type = "body_too_large"
	TypeUnsupportedMediaType Type = "unsupported_media_type"
	TypeNotFound             Type = "not_found"
	TypeMethodNotAllowed     Type = "method_not_allowed"
	TypeRequestTimeout       Type = "request_timeout"
	TypeUpgradeRequired      Type = "upgrade_required"
	TypeHeaderTooLarge       Type = "header_too_large"
)

// Error is an error as a client may see it. It is made once, where the failure is understood, and rendered once.
type Error struct {
	Type       Type
	Message    string        // for people: what is wrong and what to do; holds no secret and no path
	Param      string        // request field, "" when no single field is to blame
	OwnParam   bool          // Param is a field of the client's dialect, though /infer has one of this name, too
	RetryAfter time.Duration // 0: no Retry-After header, trying again doesn't help
	// PromptTokens is what the prompt has and ContextTokens what the model's context holds, of a TypeContextExceeded; 0
	// of others, or not known.
	PromptTokens, ContextTokens int
	Cause                       error // for the log only, never rendered; may be nil
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return string(e.Type) + ": " + e.Message + ": " + e.Cause.Error()
	}
	return string(e.Type) + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Outcome returns the HTTP status, label and metrics of the error.
func (e *Error) Outcome() Outcome { return e.Type.Outcome() }

// Status is the HTTP status code.
func (e *Error) Status() int { return e.Type.Outcome().Status }

// RetryAfterSeconds is the value of a Retry-After header: whole seconds, rounded up, at least 1; 0 when there should be
// none.
func (e *Error) RetryAfterSeconds() int {
	if e.RetryAfter <= 0 {
		return 0
	}
	return int((e.RetryAfter + time.Second - 1) / time.Second)
}

// NewError makes an error of any type, for callers that got the type from elsewhere (the engine's failure codes).
func NewError(t Type, format string, args ...any) *Error {
	return &Error{Type: t, Message: fmt.Sprintf(format, args...)}
}

// With returns the error with its cause for the log.
func (e *Error) With(cause error) *Error {
	e.Cause = cause
	return e
}

// After returns the error with the time after which a client should try again: it passes, so it has one, however short.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = max(d, 1)
	return e
}

// Invalid is a 400 about the field param ("" when it is about the whole body).
func Invalid(param, format string, args ...any) *Error {
	return &Error{Type: TypeInvalidRequest, Param: param, Message: fmt.Sprintf(format, args...)}
}

// Unauthorized is the same answer to a missing, unknown, expired or ambiguous key, so that it doesn't reveal which.
func Unauthorized(header string) *Error {
	return NewError(TypeUnauthorized, "missing or invalid API key; send it as %s: <key> or Authorization: Bearer <key>", header)
}

// Forbidden is for a valid key that may not use this model.
func Forbidden(model string) *Error {
	e := NewError(TypeForbidden, "this API key may not use model %s", Quote(model))
	e.Param = "base_model"
	return e
}

// RateLimited is for a key over its limit.
func RateLimited(limit string, retryAfter time.Duration) *Error {
	return NewError(TypeRateLimited, "rate limit of %s reached; try again later", limit).After(retryAfter)
}

// QueueFull is for a request that finds the queue full.
func QueueFull(capacity int, retryAfter time.Duration) *Error {
	return NewError(TypeQueueFull, "all %d waiting places are taken; try again later", capacity).After(retryAfter)
}

// NoTimeLeft is for a request that can't be answered in the time it has. start is how long it would wait, or has
// waited; limit is all its time.
func NoTimeLeft(start, limit, retryAfter time.Duration) *Error {
	return NewError(TypeQueueFull,
		"with what is ahead of it the request would begin after %s and not be complete within %s; try again later, or allow more time",
		roundForMessage(start), roundForMessage(limit)).After(retryAfter)
}

// QueueTimeout is for a deadline that passed before work began.
func QueueTimeout(waited time.Duration) *Error {
	return NewError(TypeQueueTimeout, "the request waited %s and its time ran out before work began", roundForMessage(waited))
}

// DeadlineExceeded is for a deadline that passed while the answer was being generated.
func DeadlineExceeded(limit time.Duration) *Error {
	return NewError(TypeDeadlineExceeded, "the answer was not complete within %s; ask for fewer tokens or allow more time", roundForMessage(limit))
}

// EngineUnavailable is for a wait for an engine that took too long.
func EngineUnavailable(retryAfter time.Duration) *Error {
	return NewError(TypeEngineUnavailable, "no inference engine is ready; try again later").After(retryAfter)
}

// EngineCrashed is for a request whose engine died and that could not be continued.
func EngineCrashed(retryAfter time.Duration) *Error {
	return NewError(TypeEngineCrashed, "the inference engine stopped while it worked on this request; try again").After(retryAfter)
}

// ContextExceeded is for a prompt that alone doesn't fit. promptTokens 0: it was rejected before its tokens were
// counted.
func ContextExceeded(promptTokens, contextTokens int) *Error {
	e := &Error{Type: TypeContextExceeded, Param: "prompt", PromptTokens: promptTokens, ContextTokens: contextTokens}
	if promptTokens > 0 {
		e.Message = fmt.Sprintf("the prompt has %d tokens, but the model's context holds %d; shorten it", promptTokens, contextTokens)
	} else {
		e.Message = fmt.Sprintf("the prompt is longer than the model's context of %d tokens; shorten it", contextTokens)
	}
	return e
}

// ModelLoadFailed is for a model that can't be loaded for now; reason is one of the closed set of load failures.
func ModelLoadFailed(model, version, reason string, retryAfter time.Duration) *Error {
	e := NewError(TypeModelLoadFailed, "model %s version %s could not be loaded (%s)", Quote(model), Quote(version), reason)
	e.Param = "base_model"
	return e.After(retryAfter)
}

// ModelBusy is for a model that can't be loaded since all loaded ones are in use.
func ModelBusy(model string, retryAfter time.Duration) *Error {
	return NewError(TypeModelBusy, "model %s has to wait for a place in memory; try again later", Quote(model)).After(retryAfter)
}

// ModelChanged is for an answer that can't be continued since the model's files were replaced meanwhile.
func ModelChanged(model, version string) *Error {
	return NewError(TypeModelChanged, "model %s version %s was replaced while the answer was being generated; send the request again",
		Quote(model), Quote(version)).After(time.Second)
}

// Quarantined is for a request that is rejected because it crashed the engine repeatedly.
func Quarantined() *Error {
	return NewError(TypeQuarantined, "this request stopped the inference engine repeatedly and is refused for a while; change it before sending it again")
}

// GrammarTooComplex is for an answer's grammar that takes too long for each token. field is what it is made of:
// json_schema, grammar or tools.
func GrammarTooComplex(field string) *Error {
	e := NewError(TypeGrammarTooComplex, "%s is too complex to be followed in time; simplify it", field)
	if field == "tools" {
		e.Message = "tools are too complex to be followed in time; simplify their parameters"
	}
	e.Param = field
	return e
}

// RenameField has the error blame the field to where it blames from, in its first mention as well.
func (e *Error) RenameField(from, to string) {
	if e.Param == from {
		e.Param, e.Message = to, RenameWord(e.Message, from, to)
	}
}

// RenameWord renames the first mention of a field in a message.
func RenameWord(text, from, to string) string {
	words := strings.SplitAfter(text, " ")
	for i, word := range words {
		if rest, found := strings.CutPrefix(word, from); found && strings.Trim(rest, " ,;:") == "" {
			words[i] = to + rest
			break
		}
	}
	return strings.Join(words, "")
}

// Draining is for a request that comes while the server is stopping.
func Draining() *Error {
	return NewError(TypeDraining, "the server is shutting down; send the request again").After(time.Second)
}

// Cancelled is for a client that disconnected.
func Cancelled() *Error { return NewError(TypeCancelled, "the client closed the connection") }

// Internal is for a fault in the server; the cause goes to the log with the request id.
func Internal(cause error) *Error {
	return NewError(TypeInternal, "internal error; the log has details under this request id").With(cause)
}

// BodyTooLarge is for a body over limitBytes.
func BodyTooLarge(limitBytes int) *Error {
	return NewError(TypeBodyTooLarge, "the body is larger than %d bytes", limitBytes)
}

// UnsupportedMediaType is for a body that isn't JSON.
func UnsupportedMediaType(got string) *Error {
	if got == "" {
		return NewError(TypeUnsupportedMediaType, "send Content-Type: application/json")
	}
	return NewError(TypeUnsupportedMediaType, "Content-Type %s is not supported; send application/json", Quote(got))
}

// NotFound is for a path without a route.
func NotFound(path string) *Error { return NewError(TypeNotFound, "no endpoint %s", Quote(path)) }

// MethodNotAllowed is for a route that has other methods; allow is the value of the Allow header.
func MethodNotAllowed(method, allow string) *Error {
	return NewError(TypeMethodNotAllowed, "method %s is not allowed here; use %s", Quote(method), allow)
}

// UpgradeRequired is for a stream that is requested over HTTP/1.0.
func UpgradeRequired() *Error {
	return NewError(TypeUpgradeRequired, "streams need HTTP/1.1")
}

// RequestTimeout is for a client that sends its request too slowly.
func RequestTimeout() *Error {
	return NewError(TypeRequestTimeout, "the request did not arrive in time")
}

// HeaderTooLarge is for headers over the read buffer.
func HeaderTooLarge(limitBytes int) *Error {
	return NewError(TypeHeaderTooLarge, "the request headers are larger than %d bytes", limitBytes)
}

func roundForMessage(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}
