package anthropic

import "tandem/proxy/api"

// Messages is the dialect of POST /v1/messages. It has no state.
var Messages api.Dialect = messages{}

type messages struct{}

func (messages) Decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	var b messagesBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	return b.request(limits)
}

func (messages) AppendError(dst []byte, e *api.Error, requestID string) []byte {
	return appendError(dst, e, requestID)
}

func (messages) NewEncoder(start api.ReplyStart) api.Encoder { return newEncoder(&start) }
