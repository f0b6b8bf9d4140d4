package openai

import (
	"strconv"

	"tandem/proxy/api"
)

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

func (e *chatEncoder) AppendReply(dst []byte, r *api.Reply) []byte {
	dst = e.appendHead(dst, "chat.completion")
	for i := range r.Results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.appendChoice(dst, i, &r.Results[i])
	}
	return append(e.appendTimings(appendUsage(append(dst, ']'), &r.Usage), &r.Usage), '}')
}

func (e *chatEncoder) appendChoice(dst []byte, i int, r *api.Result) []byte {
	dst = appendIndex(dst, i)
	dst = append(dst, `,"message":{"role":"assistant","content":`...)
	if r.Text == "" && len(r.ToolCalls) > 0 {
		dst = append(dst, "null"...)
	} else {
		dst = api.AppendString(dst, r.Text)
	}
	if r.Reasoning != "" {
		dst = api.AppendMember(dst, `,"reasoning_content":`, r.Reasoning)
	}
	if len(r.ToolCalls) > 0 {
		dst = api.AppendToolCalls(append(dst, `,"tool_calls":`...), r.ToolCalls)
	}
	dst = append(dst, `,"refusal":null},"logprobs":`...)
	dst = e.appendLogprobs(dst, r.Logprobs)
	return append(api.AppendMember(dst, `,"finish_reason":`, chatFinishReason(r)), '}')
}

// chatFinishReason is tool_calls for an answer that ended with them.
func chatFinishReason(r *api.Result) string {
	if len(r.ToolCalls) > 0 && r.Metadata.FinishReason == api.FinishStop {
		return "tool_calls"
	}
	return string(r.Metadata.FinishReason)
}

func (e *chatEncoder) AppendStart(dst []byte) []byte {
	for i := range e.choices {
		dst = append(appendIndex(e.stream.begin(dst), i), `,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`...)
		dst = e.stream.end(dst)
	}
	return dst
}

func (e *chatEncoder) AppendDelta(dst []byte, d *api.Delta) []byte {
	if len(d.Text) == 0 && d.ToolCall == nil && len(d.Logprobs) == 0 {
		return dst
	}
	dst = appendIndex(e.stream.begin(dst), d.Choice)
	switch d.Kind {
	case api.DeltaContent:
		dst = api.AppendString(append(dst, `,"delta":{"content":`...), d.Text)
	case api.DeltaReasoning:
		dst = api.AppendString(append(dst, `,"delta":{"reasoning_content":`...), d.Text)
	case api.DeltaToolCall:
		dst = strconv.AppendInt(append(dst, `,"delta":{"tool_calls":[{"index":`...), int64(d.CallAt), 10)
		dst = api.AppendMember(dst, `,"id":`, d.ToolCall.ID)
		dst = append(api.AppendMember(dst, `,"type":"function","function":{"name":`, d.ToolCall.Name), `,"arguments":""}}]`...)
	case api.DeltaToolArguments:
		dst = strconv.AppendInt(append(dst, `,"delta":{"tool_calls":[{"index":`...), int64(d.CallAt), 10)
		dst = append(api.AppendString(append(dst, `,"function":{"arguments":`...), d.Text), "}}]"...)
	}
	if len(d.Logprobs) == 0 {
		return e.stream.endDelta(append(dst, `},"logprobs":null,"finish_reason":null}`...), &e.envelope, d)
	}
	dst = e.appendLogprobs(append(dst, `},"logprobs":`...), d.Logprobs)
	return e.stream.endDelta(append(dst, `,"finish_reason":null}`...), &e.envelope, d)
}

func (e *chatEncoder) AppendChoiceEnd(dst []byte, choice int, r *api.Result) []byte {
	dst = append(appendIndex(e.stream.begin(dst), choice), `,"delta":{},"logprobs":null,"finish_reason":"`...)
	return e.stream.endChoice(append(append(dst, chatFinishReason(r)...), `"}`...), &e.envelope, r)
}

func (e *chatEncoder) AppendEnd(dst []byte, r *api.Reply) []byte {
	if e.usage {
		dst = e.stream.appendUsage(dst, &r.Usage)
	}
	return append(dst, doneEvent...)
}

func (e *chatEncoder) AppendErrorEvent(dst []byte, err *api.Error) []byte {
	return appendErrorEvent(dst, err, chatParams, e.requestID)
}

// appendLogprobs appends the log-probabilities of an answer's tokens, or null if they weren't asked for. The end token
// and others without text are left out.
func (e *chatEncoder) appendLogprobs(dst []byte, list []api.TokenLogprob) []byte {
	if !e.logprobs {
		return append(dst, "null"...)
	}
	dst = append(dst, `{"content":[`...)
	first := true
	for i := range list {
		l := &list[i]
		if len(l.Bytes) == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendLogprob(dst, l.Bytes, l.Logprob)
		dst = append(dst, `,"top_logprobs":[`...)
		for k := range l.Top {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendLogprob(dst, l.Top[k].Bytes, l.Top[k].Logprob), '}')
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, `],"refusal":null}`...)
}

// appendLogprob appends an object of one token, without its end.
func appendLogprob(dst, text []byte, logprob float32) []byte {
	dst = api.AppendString(append(dst, `{"token":`...), text)
	dst = appendFiniteLogprob(append(dst, `,"logprob":`...), logprob)
	dst = append(dst, `,"bytes":[`...)
	for i, b := range text {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(b), 10)
	}
	return append(dst, ']')
}

// lowestLogprob stands for a probability of zero, as in OpenAI's API; JSON has no infinity.
const lowestLogprob = -9999

func appendFiniteLogprob(dst []byte, logprob float32) []byte {
	if !(logprob >= lowestLogprob) { // not a number, too
		logprob = lowestLogprob
	}
	return strconv.AppendFloat(dst, float64(logprob), 'g', -1, 32)
}
