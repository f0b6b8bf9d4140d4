package openai

import "tandem/proxy/api"

// The dialects of the two endpoints. They have no state.
var (
	Chat        api.Dialect = chat{}
	Completions api.Dialect = completions{}
)

type chat struct{}

func (chat) Decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	var b chatBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	return b.request(limits)
}

func (chat) AppendError(dst []byte, e *api.Error, requestID string) []byte {
	return appendError(dst, e, chatParams, requestID)
}

func (chat) NewEncoder(start api.ReplyStart) api.Encoder { return newChatEncoder(&start) }

type completions struct{}

func (completions) Decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	var b completionBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	return b.request(limits)
}

func (completions) AppendError(dst []byte, e *api.Error, requestID string) []byte {
	return appendError(dst, e, completionParams, requestID)
}

func (completions) NewEncoder(start api.ReplyStart) api.Encoder { return newCompletionEncoder(&start) }
