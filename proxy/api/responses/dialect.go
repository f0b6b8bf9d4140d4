package responses

import (
	"tandem/proxy/api"
	"tandem/proxy/api/openai"
)

// Dialect is that of POST /v1/responses. It has no state.
var Dialect api.Dialect = dialect{}

type dialect struct{}

func (dialect) Decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	return decode(body, limits)
}

func (dialect) AppendError(dst []byte, e *api.Error, requestID string) []byte {
	return openai.AppendError(dst, e, params, requestID)
}

func (dialect) NewEncoder(start api.ReplyStart) api.Encoder { return newEncoder(&start) }

// DecodeCount reads the body of POST /v1/responses/input_tokens, which has the fields of a request that make up the
// prompt. Nothing is to be generated for it.
func DecodeCount(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	r, err := decode(body, limits)
	if err != nil {
		return nil, err
	}
	r.Stream = false
	return r, nil
}

// AppendCount appends the reply to DecodeCount's request: how many tokens its prompt has.
func AppendCount(dst []byte, inputTokens int) []byte {
	return append(api.AppendInt(dst, `{"object":"response.input_tokens","input_tokens":`, inputTokens), '}')
}

// ErrStored is the answer to everything that asks for a response of an earlier request, such as GET /v1/responses/{id}.
func ErrStored() *api.Error {
	return api.Invalid("", "responses are not stored, so none can be read, deleted, cancelled or listed; keep what POST /v1/responses replies")
}
