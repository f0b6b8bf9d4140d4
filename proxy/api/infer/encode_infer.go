package infer

import "tandem/proxy/api"

// encoder writes one reply.
type encoder struct{ requestID string }

// AppendReply appends the body of a whole reply, which is also the data of the last event of a stream.
func (encoder) AppendReply(dst []byte, r *api.Reply) []byte {
	dst = api.AppendMember(dst, `{"result":`, r.Results[0].Text)
	dst = append(dst, `,"metadata":`...)
	return append(appendMetadata(dst, &r.Usage), '}')
}

// AppendStart appends nothing: a stream begins with its first text.
func (encoder) AppendStart(dst []byte) []byte { return dst }

// AppendDelta appends one event with a piece of the answer, and nothing for what the model thinks before it.
func (encoder) AppendDelta(dst []byte, d *api.Delta) []byte {
	if d.Kind != api.DeltaContent {
		return dst
	}
	dst = api.AppendString(append(dst, `data: {"text":`...), d.Text)
	return append(dst, "}\n\n"...)
}

// AppendChoiceEnd appends nothing: there is one choice.
func (encoder) AppendChoiceEnd(dst []byte, _ int, _ *api.Result) []byte { return dst }

// AppendEnd appends the last event of a stream that went well.
func (e encoder) AppendEnd(dst []byte, r *api.Reply) []byte {
	return append(e.AppendReply(append(dst, "data: "...), r), "\n\n"...)
}

// AppendErrorEvent appends the last event of a stream that failed.
func (e encoder) AppendErrorEvent(dst []byte, err *api.Error) []byte {
	return append(appendError(append(dst, "event: error\ndata: "...), err, e.requestID), "\n\n"...)
}

func appendMetadata(dst []byte, m *api.Metadata) []byte {
	dst = api.AppendMember(dst, `{"model":`, m.Model)
	dst = api.AppendMember(dst, `,"version":`, m.Version)
	dst = api.AppendInt(dst, `,"tokens_generated":`, m.TokensGenerated)
	dst = api.AppendSeconds(append(dst, `,"response_time":`...), m.ResponseTime)
	dst = api.AppendSeconds(append(dst, `,"generation_time":`...), m.GenerationTime)
	dst = api.AppendMember(dst, `,"finish_reason":`, string(m.FinishReason))
	dst = api.AppendInt(dst, `,"prompt_tokens":`, m.PromptTokens)
	dst = api.AppendInt(dst, `,"cached_tokens":`, m.CachedTokens)
	return append(api.AppendUint(dst, `,"seed":`, m.Seed), '}')
}

func appendError(dst []byte, e *api.Error, requestID string) []byte {
	dst = api.AppendMember(dst, `{"error":{"type":`, string(e.Type))
	dst = api.AppendMember(dst, `,"message":`, e.Message)
	if e.Param == "" {
		dst = append(dst, `,"param":null`...)
	} else {
		dst = api.AppendMember(dst, `,"param":`, e.Param)
	}
	return append(api.AppendMember(dst, `,"request_id":`, requestID), "}}"...)
}
