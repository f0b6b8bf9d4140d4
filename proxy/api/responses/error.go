package responses

import (
	"tandem/proxy/api"
	"tandem/proxy/api/openai"
)

// params are the names of this dialect for the fields that errors made elsewhere blame.
var params = map[string]string{
	"base_model": "model", "adapter_version": "model", "max_new_tokens": "max_output_tokens", "json_schema": "text.format.schema",
	"prompt": "input", "system": "instructions",
}

// Codes of the error of a response that failed. The first three are documented; the last is what OpenAI's own clients
// look for.
const (
	serverError     = "server_error"
	rateLimited     = "rate_limit_exceeded"
	invalidPrompt   = "invalid_prompt"
	contextExceeded = "context_length_exceeded"
)

// failureCode is the code of an error after the stream has begun.
func failureCode(t api.Type) string {
	switch status := t.Outcome().Status; {
	case t == api.TypeContextExceeded:
		return contextExceeded
	case t == api.TypeRateLimited:
		return rateLimited
	case status >= 400 && status < 499:
		return invalidPrompt
	}
	return serverError
}

// appendFailure appends the member error of a response that failed. type is that of /infer, which says more than code.
func appendFailure(dst []byte, e *api.Error, requestID string) []byte {
	dst = api.AppendMember(dst, `{"code":`, failureCode(e.Type))
	dst = api.AppendMember(dst, `,"message":`, openai.Message(e, params, requestID))
	return append(api.AppendMember(dst, `,"type":`, string(e.Type)), '}')
}
