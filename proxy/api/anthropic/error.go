package anthropic

import (
	"fmt"
	"strings"

	"tandem/proxy/api"
)

// Types of errors of Anthropic's API.
const (
	invalidRequest  = "invalid_request_error"
	authentication  = "authentication_error"
	permission      = "permission_error"
	notFound        = "not_found_error"
	requestTooLarge = "request_too_large"
	rateLimit       = "rate_limit_error"
	timeout         = "timeout_error"
	overloaded      = "overloaded_error"
	apiError        = "api_error"
)

// kinds has every type of error. overloaded are those that pass when the client waits.
var kinds = map[api.Type]string{
	api.TypeInvalidRequest:    invalidRequest,
	api.TypeContextExceeded:   invalidRequest,
	api.TypeGrammarTooComplex: invalidRequest,
	api.TypeUnauthorized:      authentication,
	api.TypeForbidden:         permission,
	api.TypeModelNotFound:     notFound,
	api.TypeVersionNotFound:   notFound,
	api.TypeModelBroken:       notFound,
	api.TypeRateLimited:       rateLimit,
	api.TypeQuarantined:       invalidRequest,

	api.TypeBodyTooLarge:         requestTooLarge,
	api.TypeUnsupportedMediaType: invalidRequest,
	api.TypeNotFound:             notFound,
	api.TypeMethodNotAllowed:     invalidRequest,
	api.TypeRequestTimeout:       invalidRequest,
	api.TypeUpgradeRequired:      invalidRequest,
	api.TypeHeaderTooLarge:       invalidRequest,

	api.TypeQueueFull:         overloaded,
	api.TypeQueueTimeout:      timeout,
	api.TypeDeadlineExceeded:  timeout,
	api.TypeEngineUnavailable: overloaded,
	api.TypeEngineCrashed:     apiError,
	api.TypeModelLoadFailed:   apiError,
	api.TypeModelBusy:         overloaded,
	api.TypeModelChanged:      apiError,
	api.TypeOutOfMemory:       overloaded,
	api.TypeDraining:          overloaded,
	api.TypeDecodeFailed:      apiError,
	api.TypeInternal:          apiError,
	api.TypeCancelled:         apiError, // nobody reads it
}

func kindOf(t api.Type) string {
	if kind, ok := kinds[t]; ok {
		return kind
	}
	return apiError
}

// params are the names of this dialect for the fields that errors made elsewhere blame. Prompts are called prompts in
// every dialect.
var params = map[string]string{
	"base_model": "model", "adapter_version": "model", "max_new_tokens": "max_tokens", "json_schema": "output_config.format",
}

// appendError appends the body of an error reply.
func appendError(dst []byte, e *api.Error, requestID string) []byte {
	dst = appendErrorObject(dst, e, requestID)
	return append(api.AppendMember(dst, `,"request_id":`, requestID), '}')
}

// appendErrorObject appends an error without the end of its object.
func appendErrorObject(dst []byte, e *api.Error, requestID string) []byte {
	dst = api.AppendMember(dst, `{"type":"error","error":{"type":`, kindOf(e.Type))
	return append(api.AppendMember(dst, `,"message":`, messageOf(e, requestID)), '}')
}

// messageOf is an error's text in the words of this dialect.
func messageOf(e *api.Error, requestID string) string {
	switch e.Type {
	case api.TypeContextExceeded:
		return promptTooLong(e)
	case api.TypeInternal:
		return strings.Replace(e.Message, "this request id", "the request id "+requestID, 1)
	case api.TypeModelNotFound:
		return strings.Replace(renameField(e.Message, e.Param), "GET /models", "GET /v1/models", 1)
	}
	return renameField(e.Message, e.Param)
}

// promptTooLong begins as in Anthropic's API, by which clients know when to shorten a conversation.
func promptTooLong(e *api.Error) string {
	if e.PromptTokens > 0 && e.ContextTokens > 0 {
		return fmt.Sprintf("prompt is too long: %d tokens > %d maximum", e.PromptTokens, e.ContextTokens)
	}
	return "prompt is too long: " + e.Message
}

// renameField renames the first mention of the field that an error is about.
func renameField(text, field string) string {
	own, ok := params[field]
	if !ok {
		return text
	}
	return api.RenameWord(text, field, own)
}
