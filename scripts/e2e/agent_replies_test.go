package e2e

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
)

// messageReader puts a message together from the events of /v1/messages, and fails where they aren't in their order.
type messageReader struct {
	message  map[string]any
	content  []any
	open     map[string]any // block
	text     string         // of its deltas
	complete bool
}

// blockDeltas are the kinds of deltas that a kind of block may have, with the member that has the text.
var blockDeltas = map[string]map[string]string{
	"text":     {"text_delta": "text"},
	"thinking": {"thinking_delta": "thinking", "signature_delta": ""},
	"tool_use": {"input_json_delta": "partial_json"},
}

func assembleMessage(t *testing.T, events []event) agentReply {
	t.Helper()
	r := &messageReader{}
	for i, e := range events {
		data := decodeNumbers(t, e.data)
		if data["type"] != e.name || r.complete || !r.take(e.name, data) {
			t.Fatalf("event %d, %s: %s\nbefore it %v, then %v", i, e.name, e.data, r.content, r.open)
		}
	}
	if !r.complete {
		t.Fatalf("%d events without an end", len(events))
	}
	r.message["content"] = r.content
	return readMessage(t, r.message)
}

// take takes an event; false: it can't be there.
func (r *messageReader) take(name string, data map[string]any) bool {
	inBlock := r.open != nil && whole(data["index"]) == int64(len(r.content))
	switch name {
	case "message_start":
		begun := r.message != nil
		r.message = object(data["message"])
		return !begun && len(list(r.message["content"])) == 0 && r.message["stop_reason"] == nil
	case "content_block_start":
		begun := r.open != nil
		r.open, r.text = object(data["content_block"]), ""
		return r.message != nil && !begun && whole(data["index"]) == int64(len(r.content))
	case "content_block_delta":
		delta := object(data["delta"])
		member, known := blockDeltas[text(r.open["type"])][text(delta["type"])]
		r.text += text(delta[member])
		return inBlock && known
	case "content_block_stop":
		return inBlock && r.endBlock()
	case "message_delta":
		maps.Copy(r.message, object(data["delta"]))
		maps.Copy(object(r.message["usage"]), object(data["usage"]))
		return r.open == nil && r.message["stop_reason"] != nil
	case "message_stop":
		r.complete = true
		return r.message["stop_reason"] != nil
	}
	return false
}

func (r *messageReader) endBlock() bool {
	kind := text(r.open["type"])
	if kind != "tool_use" {
		r.open[kind] = r.text
	} else if r.text != "" {
		var input map[string]any
		if json.Unmarshal([]byte(r.text), &input) != nil {
			return false
		}
		r.open["input"] = input
	}
	r.content, r.open = append(r.content, r.open), nil
	return r.text != "" || kind == "tool_use"
}

// readMessage reads a message of Anthropic's API.
func readMessage(t *testing.T, m map[string]any) agentReply {
	t.Helper()
	r := agentReply{model: text(m["model"])}
	if m["type"] != "message" || m["role"] != "assistant" || !strings.HasPrefix(text(m["id"]), "msg_") {
		t.Errorf("message %v", m)
	}
	for _, entry := range list(m["content"]) {
		switch b := object(entry); b["type"] {
		case "text":
			r.text += text(b["text"])
		case "thinking":
			r.reasoning += text(b["thinking"])
		case "tool_use":
			input, _ := json.Marshal(b["input"]) // decoded a moment ago
			r.calls = append(r.calls, agentCall{text(b["name"]), string(input)})
			if text(b["id"]) == "" {
				t.Errorf("a call without an id: %v", b)
			}
		default:
			t.Errorf("block %v", b)
		}
	}
	usage := object(m["usage"])
	r.promptTokens, r.answerTokens = whole(usage["input_tokens"])+whole(usage["cache_read_input_tokens"]), whole(usage["output_tokens"])
	if want := map[bool]string{true: "tool_use", false: "end_turn"}[len(r.calls) > 0]; m["stop_reason"] != want {
		t.Errorf("stop_reason %v of %v", m["stop_reason"], m["content"])
	}
	return r
}

// responseReader puts a response together from the events of /v1/responses, and fails where they aren't in their order.
type responseReader struct {
	response map[string]any
	items    []any
	open     map[string]any // item
	text     string         // of its deltas
	events   int64
	complete bool
}

func assembleResponse(t *testing.T, events []event) agentReply {
	t.Helper()
	r := &responseReader{}
	for _, e := range events {
		data := decodeNumbers(t, e.data)
		if data["type"] != e.name || whole(data["sequence_number"]) != r.events || r.complete || !r.take(e.name, data) {
			t.Fatalf("event %d, %s: %s\nbefore it %v, then %v with %q", r.events, e.name, e.data, r.items, r.open, r.text)
		}
		r.events++
	}
	if !r.complete {
		t.Fatalf("%d events without an end", r.events)
	}
	return readResponse(t, r.response)
}

// take takes an event; false: it can't be there.
func (r *responseReader) take(name string, data map[string]any) bool {
	name = strings.TrimPrefix(name, "response.")
	inItem := r.open != nil && data["item_id"] == r.open["id"] && whole(data["output_index"]) == int64(len(r.items))
	switch name {
	case "created":
		r.response = object(data["response"])
		return r.events == 0 && r.response["status"] == "in_progress"
	case "in_progress":
		return r.events == 1 && reflect.DeepEqual(object(data["response"]), r.response)
	case "output_item.added":
		begun := r.open != nil
		r.open, r.text = object(data["item"]), ""
		return r.events > 1 && !begun && whole(data["output_index"]) == int64(len(r.items)) && text(r.open["id"]) != ""
	case "content_part.added":
		return inItem && r.text == ""
	case "content_part.done":
		return inItem && object(data["part"])["text"] == r.text
	case "output_item.done":
		item := object(data["item"])
		fits := r.open != nil && item["id"] == r.open["id"] && whole(data["output_index"]) == int64(len(r.items)) && textOfItem(item) == r.text
		r.items, r.open = append(r.items, item), nil
		return fits
	case "completed":
		id := r.response["id"]
		r.response, r.complete = object(data["response"]), true
		return r.open == nil && r.response["status"] == name && r.response["id"] == id && reflect.DeepEqual(list(r.response["output"]), r.items)
	}
	kind := itemTexts[text(r.open["type"])]
	switch name {
	case kind.event + ".delta":
		r.text += text(data["delta"])
		return inItem
	case kind.event + ".done":
		return inItem && data[kind.member] == r.text
	}
	return false
}

// itemTexts are what events of an item's text are called, and the member that has all of it.
var itemTexts = map[string]struct{ event, member string }{
	"message":          {"output_text", "text"},
	"reasoning":        {"reasoning_text", "text"},
	"function_call":    {"function_call_arguments", "arguments"},
	"custom_tool_call": {"custom_tool_call_input", "input"},
}

// withoutBlanks leaves the blanks of JSON out.
func withoutBlanks(text string) string {
	var out bytes.Buffer
	if json.Compact(&out, []byte(text)) != nil {
		return text
	}
	return out.String()
}

func textOfItem(item map[string]any) string {
	member := itemTexts[text(item["type"])].member
	if member == "text" {
		item = object(at(item["content"], 0))
	}
	return text(item[member])
}

// readResponse reads a response of OpenAI's API.
func readResponse(t *testing.T, m map[string]any) agentReply {
	t.Helper()
	r := agentReply{model: text(m["model"])}
	if m["object"] != "response" || m["prompt_cache_key"] != "0197a2" || m["store"] != false || !strings.HasPrefix(text(m["id"]), "resp_") {
		t.Errorf("response %v", m)
	}
	for _, entry := range list(m["output"]) {
		switch item := object(entry); item["type"] {
		case "message":
			r.text += textOfItem(item)
		case "reasoning":
			r.reasoning += textOfItem(item)
		case "function_call", "custom_tool_call":
			r.calls = append(r.calls, agentCall{text(item["name"]), withoutBlanks(textOfItem(item))})
			if text(item["call_id"]) == "" {
				t.Errorf("a call without an id: %v", item)
			}
		default:
			t.Errorf("item %v", item)
		}
	}
	usage := object(m["usage"])
	r.promptTokens, r.answerTokens = whole(usage["input_tokens"]), whole(usage["output_tokens"])
	if whole(usage["total_tokens"]) != r.promptTokens+r.answerTokens {
		t.Errorf("usage %v", usage)
	}
	if m["status"] != "completed" || m["parallel_tool_calls"] != true && len(r.calls) > 1 {
		t.Errorf("status %v, parallel calls: %v, calls %v", m["status"], m["parallel_tool_calls"], r.calls)
	}
	return r
}
