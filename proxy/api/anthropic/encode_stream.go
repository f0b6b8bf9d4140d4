package anthropic

import (
	"strconv"

	"tandem/proxy/api"
)

// blockKind is what a block of a stream holds.
type blockKind uint8

const (
	noBlock blockKind = iota
	textBlock
	thinkingBlock
	toolUseBlock
)

const eventEnd = "}\n\n"

func (e *encoder) AppendStart(dst []byte) []byte {
	dst = append(dst, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":"...)
	dst = append(e.appendHead(dst), `],"stop_reason":null,"stop_sequence":null,`...)
	// What of the prompt comes from the KV cache isn't known yet. The last numbers are in message_delta.
	dst = appendUsage(dst, &api.Metadata{PromptTokens: e.promptTokens})
	return append(dst, "}"+eventEnd...)
}

// AppendDelta opens a new block whenever the kind changes: blocks follow one another, and none is opened again.
func (e *encoder) AppendDelta(dst []byte, d *api.Delta) []byte {
	e.untold.Add(d)
	switch d.Kind {
	case api.DeltaToolCall:
		return e.beginToolUse(e.endBlock(dst), d.ToolCall)
	case api.DeltaToolArguments:
		return e.appendPart(dst, `{"type":"input_json_delta","partial_json":`, d.Text)
	case api.DeltaReasoning:
		if e.open != thinkingBlock && len(d.Text) > 0 {
			dst = e.begin(e.endBlock(dst), thinkingBlock, `{"type":"thinking","thinking":"","signature":""}`)
		}
		return e.appendPart(dst, `{"type":"thinking_delta","thinking":`, d.Text)
	}
	if e.open != textBlock && len(d.Text) > 0 {
		dst = e.begin(e.endBlock(dst), textBlock, `{"type":"text","text":""}`)
	}
	return e.appendPart(dst, `{"type":"text_delta","text":`, d.Text)
}

func (e *encoder) begin(dst []byte, kind blockKind, content string) []byte {
	e.open = kind
	return append(append(e.appendBlockStart(dst), content...), eventEnd...)
}

func (e *encoder) beginToolUse(dst []byte, call *api.ToolCall) []byte {
	e.open = toolUseBlock
	return append(appendToolUse(e.appendBlockStart(dst), call), "{}}"+eventEnd...)
}

func (e *encoder) appendBlockStart(dst []byte) []byte {
	dst = append(dst, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":"...)
	return append(strconv.AppendInt(dst, int64(e.index), 10), `,"content_block":`...)
}

// appendPart appends a delta of the open block; delta is its object up to the text.
func (e *encoder) appendPart(dst []byte, delta string, text []byte) []byte {
	if len(text) == 0 {
		return dst
	}
	dst = append(dst, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":"...)
	dst = append(strconv.AppendInt(dst, int64(e.index), 10), `,"delta":`...)
	dst = append(api.AppendString(append(dst, delta...), text), '}')
	if e.timings {
		dst = e.untold.AppendTimings(dst)
	}
	return append(dst, eventEnd...)
}

// endBlock closes the open block, if there is one.
func (e *encoder) endBlock(dst []byte) []byte {
	if e.open == noBlock {
		return dst
	}
	if e.open == thinkingBlock {
		dst = e.appendPart(dst, `{"type":"signature_delta","signature":`, []byte(signature))
	}
	dst = append(dst, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":"...)
	dst = append(strconv.AppendInt(dst, int64(e.index), 10), eventEnd...)
	e.open = noBlock
	e.index++
	return dst
}

func (e *encoder) AppendChoiceEnd(dst []byte, _ int, _ *api.Result) []byte { return e.endBlock(dst) }

// AppendEnd says why the answer ended. Its usage goes over that of message_start.
func (e *encoder) AppendEnd(dst []byte, r *api.Reply) []byte {
	dst = append(dst, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{"...)
	dst = append(appendStop(dst, &r.Results[0]), "},"...)
	dst = append(e.appendTimings(appendUsage(dst, &r.Usage), &r.Usage), eventEnd...)
	return append(dst, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"...)
}

// AppendErrorEvent leaves the open block open: nothing that the client has is complete.
func (e *encoder) AppendErrorEvent(dst []byte, err *api.Error) []byte {
	dst = append(dst, "event: error\ndata: "...)
	return append(appendErrorObject(dst, err, e.requestID), eventEnd...)
}
