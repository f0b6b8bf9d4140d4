package openai

import "tandem/proxy/api"

// chatEncoder implements api.Encoder for chat completions.
type chatEncoder struct {
	envelope
	stream chunks
}

func newChatEncoder(start *api.ReplyStart) *chatEncoder {
	e := &chatEncoder{envelope: newEnvelope(start, "chatcmpl-")}
	e.stream = e.chunks("chat.completion.chunk")
	return e
}

func (e *chatEncoder) AppendReply(dst []byte, r *api.Result) []byte {
	dst = e.appendHead(dst, "chat.completion")
	dst = api.AppendMember(dst, `{"index":0,"message":{"role":"assistant","content":`, r.Text)
	dst = api.AppendMember(dst, `,"refusal":null},"logprobs":null,"finish_reason":`, string(r.Metadata.FinishReason))
	return append(appendUsage(append(dst, "}]"...), &r.Metadata), '}')
}

const (
	chatDeltaHead = `{"index":0,"delta":{"content":`
	chatDeltaTail = `},"logprobs":null,"finish_reason":null}`
)

func (e *chatEncoder) AppendStart(dst []byte) []byte {
	return e.stream.append(dst, `{"index":0,"delta":{"role":"assistant","content":""`, nil, chatDeltaTail)
}

func (e *chatEncoder) AppendText(dst, text []byte) []byte {
	if len(text) == 0 {
		return dst
	}
	return e.stream.append(dst, chatDeltaHead, text, chatDeltaTail)
}

func (e *chatEncoder) AppendEnd(dst []byte, r *api.Result) []byte {
	dst = e.stream.append(dst, `{"index":0,"delta":{},"logprobs":null,"finish_reason":"`, nil, string(r.Metadata.FinishReason)+`"}`)
	if e.usage {
		dst = e.stream.appendUsage(dst, &r.Metadata)
	}
	return append(dst, doneEvent...)
}

func (e *chatEncoder) AppendErrorEvent(dst []byte, err *api.Error) []byte {
	return appendErrorEvent(dst, err, chatParams, e.requestID)
}
