package anthropic

import (
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// signature stands where Anthropic signs what its models think. Nothing here is signed or checked; it isn't empty since
// clients take an empty one for a missing one.
const signature = "unsigned"

// encoder implements api.Encoder. A request of this dialect has one choice.
type encoder struct {
	requestID    string
	model        string // with its version
	promptTokens int    // 0: not known
	open         blockKind
	index        int // of the open block, or of the next one
	timings      bool
	untold       api.UntoldTokens
}

func newEncoder(start *api.ReplyStart) *encoder {
	return &encoder{requestID: start.RequestID, model: start.ModelID, promptTokens: start.PromptTokens, timings: start.Request.Timings}
}

// appendHead appends a message up to its content.
func (e *encoder) appendHead(dst []byte) []byte {
	dst = api.AppendMember(dst, `{"id":`, "msg_"+e.requestID)
	dst = append(dst, `,"type":"message","role":"assistant","model":`...)
	return append(api.AppendString(dst, e.model), `,"content":[`...)
}

func (e *encoder) AppendReply(dst []byte, r *api.Reply) []byte {
	result := &r.Results[0]
	dst = append(appendContent(e.appendHead(dst), result), "],"...)
	dst = append(appendStop(dst, result), ',')
	return append(e.appendTimings(appendUsage(dst, &r.Usage), &r.Usage), '}')
}

// appendTimings appends the member timings of a whole answer if it was asked for.
func (e *encoder) appendTimings(dst []byte, m *api.Metadata) []byte {
	if !e.timings {
		return dst
	}
	return api.AppendTimings(dst, m)
}

// appendContent appends the blocks of an answer.
func appendContent(dst []byte, r *api.Result) []byte {
	blocks := 0
	if r.Reasoning != "" {
		dst = api.AppendMember(dst, `{"type":"thinking","thinking":`, r.Reasoning)
		dst = append(api.AppendMember(dst, `,"signature":`, signature), '}')
		blocks++
	}
	if r.Text != "" {
		dst = append(api.AppendMember(api.AppendComma(dst, blocks), `{"type":"text","text":`, r.Text), '}')
		blocks++
	}
	for i := range r.ToolCalls {
		call := &r.ToolCalls[i]
		dst = appendToolUse(api.AppendComma(dst, blocks), call)
		dst = append(append(dst, inputOf(call.Arguments)...), '}')
		blocks++
	}
	return dst
}

// appendToolUse appends a tool_use block up to its input.
func appendToolUse(dst []byte, call *api.ToolCall) []byte {
	dst = api.AppendMember(dst, `{"type":"tool_use","id":`, call.ID)
	return append(api.AppendMember(dst, `,"name":`, call.Name), `,"input":`...)
}

// inputOf is the input of a tool_use block, which is always an object: arguments that are none, since the answer was
// cut within them, are left out.
func inputOf(arguments string) string {
	v := jsontext.Value(arguments)
	if v.Kind() != '{' || !v.IsValid(jsontext.AllowDuplicateNames(true)) {
		return "{}"
	}
	return arguments
}

// appendStop appends the members stop_reason and stop_sequence.
func appendStop(dst []byte, r *api.Result) []byte {
	dst = append(dst, `"stop_reason":"`...)
	dst = append(append(dst, stopReason(r)...), `","stop_sequence":`...)
	if r.Metadata.Stop == "" {
		return append(dst, "null"...)
	}
	return api.AppendString(dst, r.Metadata.Stop)
}

func stopReason(r *api.Result) string {
	switch {
	case r.Metadata.FinishReason == api.FinishLength:
		return "max_tokens"
	case r.Metadata.Stop != "":
		return "stop_sequence"
	case len(r.ToolCalls) > 0:
		return "tool_use"
	}
	return "end_turn"
}

// appendUsage appends the member usage. Tokens from the KV cache aren't among input_tokens.
func appendUsage(dst []byte, m *api.Metadata) []byte {
	dst = api.AppendInt(dst, `"usage":{"input_tokens":`, m.PromptTokens-m.CachedTokens)
	dst = api.AppendInt(dst, `,"cache_creation_input_tokens":0,"cache_read_input_tokens":`, m.CachedTokens)
	dst = api.AppendInt(dst, `,"output_tokens":`, m.TokensGenerated)
	if m.ReasoningTokens > 0 {
		dst = append(api.AppendInt(dst, `,"output_tokens_details":{"thinking_tokens":`, m.ReasoningTokens), '}')
	}
	return append(dst, '}')
}
