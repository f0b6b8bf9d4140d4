package responses

import (
	"strconv"

	"tandem/proxy/api"
)

// itemKind is what an item of the output is.
type itemKind uint8

const (
	noItem itemKind = iota
	reasoningItem
	messageItem
	callItem
	customCallItem
)

// Statuses of items and responses.
const (
	inProgress = "in_progress"
	completed  = "completed"
	incomplete = "incomplete"
	failed     = "failed"
)

// outputItem is an item of the output.
type outputItem struct {
	kind     itemKind
	index    int    // in the output
	id       string // the same in all events; needs no escape in JSON
	callID   string // of a call
	tool     toolOrigin
	text     []byte // of a call the arguments; of a custom tool its input, once the item is complete
	logprobs []byte // of a message, as entries of a list
}

// itemNames are what an item and its events are called.
type itemNames struct {
	kind, idPrefix, delta, done string
}

var namesOfItems = [...]itemNames{
	reasoningItem:  {"reasoning", "rs_", "response.reasoning_text.delta", "response.reasoning_text.done"},
	messageItem:    {"message", "msg_", "response.output_text.delta", "response.output_text.done"},
	callItem:       {"function_call", "fc_", "response.function_call_arguments.delta", "response.function_call_arguments.done"},
	customCallItem: {"custom_tool_call", "ctc_", "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done"},
}

func (it *outputItem) names() *itemNames { return &namesOfItems[it.kind] }

// newItem makes an item. Its id comes from that of the request and from its place.
func (e *encoder) newItem(kind itemKind, index int) outputItem {
	return outputItem{kind: kind, index: index, id: namesOfItems[kind].idPrefix + e.requestID + "_" + strconv.Itoa(index)}
}

// newCall makes the item of a call, under the name that the client gave the tool.
func (e *encoder) newCall(call *api.ToolCall, index int) outputItem {
	origin, kind := e.originOf(call.Name), callItem
	if origin.custom {
		kind = customCallItem
	}
	it := e.newItem(kind, index)
	it.callID, it.tool = call.ID, origin
	return it
}

// hasPart reports whether the item has a content. It then has one part.
func (it *outputItem) hasPart() bool { return it.kind == reasoningItem || it.kind == messageItem }

// complete makes of the text what the client gets, and returns what no delta has had yet: a complete call has at least
// an empty object of arguments, and the input of a custom tool is there only now.
func (it *outputItem) complete(status string) (added string) {
	switch {
	case it.kind == customCallItem:
		added = customInput(it.text)
		it.text = []byte(added)
	case it.kind == callItem && len(it.text) == 0 && status == completed:
		added = "{}"
		it.text = []byte(added)
	}
	return added
}

// appendAdded appends the item as it begins: without text and parts.
func (it *outputItem) appendAdded(dst []byte) []byte {
	dst = it.appendHead(dst, inProgress)
	switch it.kind {
	case reasoningItem, messageItem:
		return append(dst, "[]}"...)
	}
	return append(dst, `""}`...)
}

// appendObject appends the whole item.
func (it *outputItem) appendObject(dst []byte, status string) []byte {
	dst = it.appendHead(dst, status)
	switch it.kind {
	case reasoningItem, messageItem:
		return append(it.appendPart(append(dst, '[')), "]}"...)
	}
	return append(api.AppendString(dst, it.text), '}')
}

// appendHead appends the item up to its content, arguments or input.
func (it *outputItem) appendHead(dst []byte, status string) []byte {
	dst = append(append(append(dst, `{"id":"`...), it.id...), `","type":"`...)
	dst = append(append(append(dst, it.names().kind...), `","status":"`...), status...)
	switch it.kind {
	case reasoningItem:
		return append(dst, `","summary":[],"content":`...)
	case messageItem:
		return append(dst, `","role":"assistant","content":`...)
	}
	dst = api.AppendMember(dst, `","call_id":`, it.callID)
	dst = api.AppendMember(dst, `,"name":`, it.tool.name)
	if it.tool.namespace != "" {
		dst = api.AppendMember(dst, `,"namespace":`, it.tool.namespace)
	}
	if it.kind == customCallItem {
		return append(dst, `,"input":`...)
	}
	return append(dst, `,"arguments":`...)
}

// appendPart appends the part of the item's content.
func (it *outputItem) appendPart(dst []byte) []byte {
	if it.kind == reasoningItem {
		return append(api.AppendString(append(dst, `{"type":"reasoning_text","text":`...), it.text), '}')
	}
	dst = api.AppendString(append(dst, `{"type":"output_text","text":`...), it.text)
	return append(append(append(dst, `,"annotations":[],"logprobs":[`...), it.logprobs...), "]}"...)
}

// appendResult appends the members with which the event that ends the item's text says all of it.
func (it *outputItem) appendResult(dst []byte) []byte {
	switch it.kind {
	case reasoningItem:
		return api.AppendString(append(dst, `,"text":`...), it.text)
	case messageItem:
		dst = api.AppendString(append(dst, `,"text":`...), it.text)
		return append(append(append(dst, `,"logprobs":[`...), it.logprobs...), ']')
	case customCallItem:
		return api.AppendString(append(dst, `,"input":`...), it.text)
	}
	dst = api.AppendMember(dst, `,"name":`, it.tool.name)
	return api.AppendString(append(dst, `,"arguments":`...), it.text)
}
