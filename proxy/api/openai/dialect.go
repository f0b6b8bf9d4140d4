package openai

import "tandem/proxy/api"

// The dialects of the endpoints. They have no state.
var (
	Chat        api.Dialect = chat{}
	Completions api.Dialect = completions{}
	Embeddings  api.Dialect = embeddings{}
	Rerank      api.Dialect = rerank{}
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

type embeddings struct{}

func (embeddings) Decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	var b embeddingBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	return b.request(limits)
}

func (embeddings) AppendError(dst []byte, e *api.Error, requestID string) []byte {
	return appendError(dst, e, embeddingParams, requestID)
}

func (embeddings) NewEncoder(start api.ReplyStart) api.Encoder {
	return &embeddingEncoder{envelope: newEnvelope(&start, ""), request: start.Request}
}

type rerank struct{}

func (rerank) Decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	var b rerankBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	return b.request(limits)
}

func (rerank) AppendError(dst []byte, e *api.Error, requestID string) []byte {
	return appendError(dst, e, rerankParams, requestID)
}

func (rerank) NewEncoder(start api.ReplyStart) api.Encoder {
	return &rerankEncoder{envelope: newEnvelope(&start, ""), request: start.Request}
}

// DecodeChatCount reads a chat whose prompt is to be shown or counted and not answered.
func DecodeChatCount(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	return Chat.Decode(body, limits)
}

// AppendInputTokens appends the number of tokens of a chat.
func AppendInputTokens(dst []byte, tokens int) []byte {
	return append(api.AppendInt(dst, `{"input_tokens":`, tokens), '}')
}
