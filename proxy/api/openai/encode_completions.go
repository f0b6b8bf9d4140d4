package openai

import "tandem/proxy/api"

// completionEncoder implements api.Encoder for completions.
type completionEncoder struct {
	envelope
	stream chunks
}

// textCompletion is the kind of whole replies and of chunks.
const textCompletion = "text_completion"

func newCompletionEncoder(start *api.ReplyStart) *completionEncoder {
	e := &completionEncoder{envelope: newEnvelope(start, "cmpl-")}
	e.stream = e.chunks(textCompletion)
	return e
}

func (e *completionEncoder) AppendReply(dst []byte, r *api.Result) []byte {
	dst = e.appendHead(dst, textCompletion)
	dst = api.AppendMember(dst, `{"text":`, r.Text)
	dst = api.AppendMember(dst, `,"index":0,"logprobs":null,"finish_reason":`, string(r.Metadata.FinishReason))
	return append(appendUsage(append(dst, "}]"...), &r.Metadata), '}')
}

func (e *completionEncoder) AppendStart(dst []byte) []byte { return dst }

func (e *completionEncoder) AppendText(dst, text []byte) []byte {
	if len(text) == 0 {
		return dst
	}
	return e.stream.append(dst, `{"text":`, text, `,"index":0,"logprobs":null,"finish_reason":null}`)
}

func (e *completionEncoder) AppendEnd(dst []byte, r *api.Result) []byte {
	dst = e.stream.append(dst, `{"text":"","index":0,"logprobs":null,"finish_reason":"`, nil, string(r.Metadata.FinishReason)+`"}`)
	if e.usage {
		dst = e.stream.appendUsage(dst, &r.Metadata)
	}
	return append(dst, doneEvent...)
}

func (e *completionEncoder) AppendErrorEvent(dst []byte, err *api.Error) []byte {
	return appendErrorEvent(dst, err, completionParams, e.requestID)
}
