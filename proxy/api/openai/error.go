package openai

import (
	"fmt"
	"strings"

	"tandem/proxy/api"
)

// form is how an error looks to OpenAI's clients.
type form struct {
	kind string // error.type
	code string // error.code; "" for null
}

// Types of errors of OpenAI's API.
const (
	invalidRequest = "invalid_request_error"
	authentication = "authentication_error"
	permission     = "permission_error"
	rateLimit      = "rate_limit_error"
	serverError    = "server_error"
)

// forms has every type of error. Codes are OpenAI's where it has one for the case, and otherwise our own types.
var forms = map[api.Type]form{
	api.TypeInvalidRequest:    {invalidRequest, ""},
	api.TypeContextExceeded:   {invalidRequest, "context_length_exceeded"},
	api.TypeGrammarTooComplex: {invalidRequest, "grammar_too_complex"},
	api.TypeUnauthorized:      {authentication, "invalid_api_key"},
	api.TypeForbidden:         {permission, "forbidden"},
	api.TypeModelNotFound:     {invalidRequest, "model_not_found"},
	api.TypeVersionNotFound:   {invalidRequest, "model_not_found"},
	api.TypeModelBroken:       {invalidRequest, "model_broken"},
	api.TypeRateLimited:       {rateLimit, "rate_limit_exceeded"},
	api.TypeQuarantined:       {invalidRequest, "request_quarantined"},

	api.TypeBodyTooLarge:         {invalidRequest, "body_too_large"},
	api.TypeUnsupportedMediaType: {invalidRequest, "unsupported_media_type"},
	api.TypeNotFound:             {invalidRequest, "unknown_url"},
	api.TypeMethodNotAllowed:     {invalidRequest, "method_not_allowed"},
	api.TypeRequestTimeout:       {invalidRequest, "request_timeout"},
	api.TypeUpgradeRequired:      {invalidRequest, "upgrade_required"},
	api.TypeHeaderTooLarge:       {invalidRequest, "header_too_large"},

	api.TypeQueueFull:         {serverError, "queue_full"},
	api.TypeQueueTimeout:      {serverError, "queue_timeout"},
	api.TypeDeadlineExceeded:  {serverError, "deadline_exceeded"},
	api.TypeEngineUnavailable: {serverError, "engine_unavailable"},
	api.TypeEngineCrashed:     {serverError, "engine_crashed"},
	api.TypeModelLoadFailed:   {serverError, "model_load_failed"},
	api.TypeModelBusy:         {serverError, "model_busy"},
	api.TypeModelChanged:      {serverError, "model_changed"},
	api.TypeOutOfMemory:       {serverError, "out_of_memory"},
	api.TypeDraining:          {serverError, "draining"},
	api.TypeDecodeFailed:      {serverError, "decode_failed"},
	api.TypeInternal:          {serverError, "internal"},
	api.TypeCancelled:         {serverError, "cancelled"}, // nobody reads it
}

func formOf(t api.Type) form {
	if f, ok := forms[t]; ok {
		return f
	}
	return forms[api.TypeInternal]
}

// Names of this dialect for the fields that errors made elsewhere blame.
var (
	chatParams = map[string]string{
		"base_model": "model", "adapter_version": "model", "max_new_tokens": "max_tokens",
		"prompt": "messages", "system": "messages",
	}
	completionParams = map[string]string{
		"base_model": "model", "adapter_version": "model", "max_new_tokens": "max_tokens",
		"system": "prompt",
	}
	embeddingParams = map[string]string{"base_model": "model", "adapter_version": "model", "prompt": "input", "system": "input"}
	rerankParams    = map[string]string{"base_model": "model", "adapter_version": "model", "prompt": "documents", "messages": "documents", "system": "documents"}
)

// AppendError appends the body of an error reply. params are a dialect's names for the fields that errors made
// elsewhere blame.
func AppendError(dst []byte, e *api.Error, params map[string]string, requestID string) []byte {
	f := formOf(e.Type)
	dst = api.AppendMember(dst, `{"error":{"message":`, Message(e, params, requestID))
	dst = api.AppendMember(dst, `,"type":`, f.kind)
	dst = appendNullable(dst, `,"param":`, param(e, params))
	dst = appendNullable(dst, `,"code":`, f.code)
	return append(dst, "}}"...)
}

// appendErrorEvent appends the last event of a stream that failed. No [DONE] follows it.
func appendErrorEvent(dst []byte, e *api.Error, params map[string]string, requestID string) []byte {
	return append(AppendError(append(dst, "data: "...), e, params, requestID), "\n\n"...)
}

func appendNullable(dst []byte, name, v string) []byte {
	if v == "" {
		return append(append(dst, name...), "null"...)
	}
	return api.AppendMember(dst, name, v)
}

func param(e *api.Error, params map[string]string) string {
	if own, ok := params[e.Param]; ok && !e.OwnParam {
		return own
	}
	return e.Param
}

// Message is an error's text in the words of a dialect.
func Message(e *api.Error, params map[string]string, requestID string) string {
	if e.OwnParam {
		return e.Message
	}
	switch e.Type {
	case api.TypeContextExceeded:
		// Clients look for one text or the other, and some see nothing of an error but its message.
		if e.ContextTokens > 0 {
			return fmt.Sprintf("This model's maximum context length is %d tokens: %s (context_length_exceeded)", e.ContextTokens, e.Message)
		}
		return "This model's maximum context length is exceeded: " + e.Message + " (context_length_exceeded)"
	case api.TypeInternal:
		return strings.Replace(e.Message, "this request id", "the request id "+requestID, 1)
	case api.TypeModelNotFound:
		return strings.Replace(renameWord(e.Message, e.Param, params), "GET /models", "GET /v1/models", 1)
	}
	return renameWord(e.Message, e.Param, params)
}

// renameWord renames the first mention of the field that the error is about. Prompts are called prompts in every
// dialect, except where a message begins with the field's name.
func renameWord(text, name string, params map[string]string) string {
	own, ok := params[name]
	if !ok || (name == "prompt" || name == "system") && !strings.HasPrefix(text, name+" ") {
		return text
	}
	return api.RenameWord(text, name, own)
}
