package anthropic

import "tandem/proxy/api"

// DecodeCount reads the body of POST /v1/messages/count_tokens: that of a message without max_tokens, whose last
// message may also be one of the assistant. The request has only what the prompt is made of.
func DecodeCount(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	var b messagesBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	return b.prompt(limits)
}

// AppendCount appends the reply to a count of tokens.
func AppendCount(dst []byte, tokens int) []byte {
	return append(api.AppendInt(dst, `{"input_tokens":`, tokens), '}')
}
