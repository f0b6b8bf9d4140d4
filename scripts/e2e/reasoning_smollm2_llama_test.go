//go:build llama

package e2e

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// dayWeather is one turn of a conversation in which the model thinks, calls two tools at once and gets their results.
type dayWeather struct{ city, zone string }

func (d dayWeather) asks() string {
	return fmt.Sprintf("Weather in %s and time in %s?", d.city, d.zone)
}
func (d dayWeather) thinks() string {
	return fmt.Sprintf("I need the weather in %s and the time in %s.", d.city, d.zone)
}

func (d dayWeather) calls() []agentCall {
	return []agentCall{{"get_weather", `{"city":"` + d.city + `"}`}, {"get_time", `{"zone":"` + d.zone + `"}`}}
}

// The model writes on what it has seen twice: so a small one can be made to think and to call in parallel.
var (
	daysBefore = []dayWeather{{"Rome", "CET"}, {"Oslo", "UTC"}}
	thisDay    = dayWeather{"Paris", "CET"}
)

var dayTools = []struct{ name, schema string }{
	{"get_weather", `{"type":"object","properties":{"city":{"enum":["Paris","Rome","Oslo"]}},"required":["city"],"additionalProperties":false}`},
	{"get_time", `{"type":"object","properties":{"zone":{"enum":["UTC","CET"]}},"required":["zone"],"additionalProperties":false}`},
}

// dayDialect is how the conversation is written in a dialect.
type dayDialect struct {
	agent
	tool     func(name string, schema json.RawMessage) any
	asks     func(d dayWeather) any
	answers  func(at int, d dayWeather) []any // what the model said, and the results of its calls
	required any                              // tool_choice
	more     []any                            // fields
}

var dayDialects = []dayDialect{
	{
		agent: agent{name: "chat", path: "/v1/chat/completions", conversation: "messages", assemble: assembleChat, read: readChatReply},
		tool: func(name string, schema json.RawMessage) any {
			return map[string]any{"type": "function", "function": map[string]any{"name": name, "parameters": schema}}
		},
		asks: func(d dayWeather) any { return map[string]any{"role": "user", "content": d.asks()} },
		answers: func(at int, d dayWeather) []any {
			said := map[string]any{"role": "assistant", "content": nil, "reasoning_content": d.thinks()}
			list := []any{said}
			var calls []any
			for i, c := range d.calls() {
				id := fmt.Sprintf("call_%d_%d", at, i)
				calls = append(calls, map[string]any{"id": id, "type": "function", "function": map[string]any{"name": c.name, "arguments": c.input}})
				list = append(list, map[string]any{"role": "tool", "tool_call_id": id, "content": "12"})
			}
			said["tool_calls"] = calls
			return list
		},
		required: "required", more: []any{"max_tokens", 150, "stream_options", map[string]any{"include_usage": true}},
	},
	{
		agent: agent{name: "responses", path: "/v1/responses", conversation: "input", assemble: assembleResponse, read: readResponse},
		tool: func(name string, schema json.RawMessage) any {
			return map[string]any{"type": "function", "name": name, "parameters": schema}
		},
		asks: func(d dayWeather) any { return map[string]any{"role": "user", "content": d.asks()} },
		answers: func(at int, d dayWeather) []any {
			list := []any{map[string]any{"type": "reasoning", "summary": []any{}, "content": []any{map[string]any{"type": "reasoning_text", "text": d.thinks()}}}}
			var results []any
			for i, c := range d.calls() {
				id := fmt.Sprintf("call_%d_%d", at, i)
				list = append(list, map[string]any{"type": "function_call", "call_id": id, "name": c.name, "arguments": c.input})
				results = append(results, map[string]any{"type": "function_call_output", "call_id": id, "output": "12"})
			}
			return append(list, results...)
		},
		required: "required", more: []any{"max_output_tokens", 150, "prompt_cache_key", "0197a2"},
	},
	{
		agent: agent{name: "messages", path: "/v1/messages", conversation: "messages", assemble: assembleMessage, read: readMessage},
		tool: func(name string, schema json.RawMessage) any {
			return map[string]any{"name": name, "input_schema": schema}
		},
		asks: func(d dayWeather) any { return map[string]any{"role": "user", "content": d.asks()} },
		answers: func(at int, d dayWeather) []any {
			said := []any{map[string]any{"type": "thinking", "thinking": d.thinks(), "signature": "unsigned"}}
			var results []any
			for i, c := range d.calls() {
				id := fmt.Sprintf("call_%d_%d", at, i)
				said = append(said, map[string]any{"type": "tool_use", "id": id, "name": c.name, "input": json.RawMessage(c.input)})
				results = append(results, map[string]any{"type": "tool_result", "tool_use_id": id, "content": "12"})
			}
			return []any{map[string]any{"role": "assistant", "content": said}, map[string]any{"role": "user", "content": results}}
		},
		required: map[string]any{"type": "any"}, more: []any{"max_tokens", 150, "thinking", map[string]any{"type": "enabled", "budget_tokens": 1024}},
	},
}

func (d *dayDialect) request() map[string]any {
	var tools, conversation []any
	for _, t := range dayTools {
		tools = append(tools, d.tool(t.name, json.RawMessage(t.schema)))
	}
	for i, day := range daysBefore {
		conversation = append(append(conversation, d.asks(day)), d.answers(i, day)...)
	}
	body := map[string]any{"model": "smollm2", "temperature": 0, "stream": true, "tools": tools, d.conversation: append(conversation, d.asks(thisDay))}
	return with(body, d.more...)
}

// TestReasoningAndCallsOfSmolLM2 has a real model think and then call two tools at once, in every dialect, streamed and
// whole, when it must call and, in chats, when it may. The prompts of all dialects are the same, and so are the
// answers.
func TestReasoningAndCallsOfSmolLM2(t *testing.T) {
	s := startToolServer(t)
	prompt := s.dayPrompt(t)
	for _, d := range dayDialects {
		bodies := map[string]map[string]any{"required": with(d.request(), "tool_choice", d.required)}
		if d.name == "chat" {
			bodies["auto"] = d.request()
		}
		for name, body := range bodies {
			t.Run(d.name+" "+name, func(t *testing.T) {
				streamed := d.assemble(t, s.postToStream(t, &d.agent, body))
				reply := s.postToReply(t, &d.agent, without(body, "stream", "stream_options"))
				whole := d.read(t, reply)
				if !reflect.DeepEqual(streamed, whole) {
					t.Errorf("streamed %+v\nwhole    %+v", streamed, whole)
				}
				if strings.TrimSpace(whole.reasoning) != thisDay.thinks() || strings.TrimSpace(whole.text) != "" || !reflect.DeepEqual(whole.calls, thisDay.calls()) {
					t.Errorf("%+v", whole)
				}
				if n := reasoningTokens(reply); n < 5 || n >= whole.answerTokens {
					t.Errorf("%d tokens of reasoning in an answer of %d", n, whole.answerTokens)
				}
				if whole.promptTokens < 300 || whole.promptTokens != prompt {
					t.Errorf("a prompt of %d tokens, that of a chat has %d", whole.promptTokens, prompt)
				}
			})
		}
	}
	checkInvariants(t, s.waitIdle())
}

// dayPrompt is how many tokens the prompt of the conversation has as a chat.
func (s *testServer) dayPrompt(t *testing.T) int64 {
	t.Helper()
	body := without(dayDialects[0].request(), "stream", "stream_options")
	return whole(s.mustReply("/v1/chat/completions/input_tokens", body)["input_tokens"])
}

func without(body map[string]any, names ...string) map[string]any {
	out := with(body)
	for _, name := range names {
		delete(out, name)
	}
	return out
}

func reasoningTokens(reply map[string]any) int64 {
	usage := object(reply["usage"])
	for _, at := range [][2]string{{"completion_tokens_details", "reasoning_tokens"}, {"output_tokens_details", "reasoning_tokens"}, {"output_tokens_details", "thinking_tokens"}} {
		if n := object(usage[at[0]])[at[1]]; n != nil {
			return whole(n)
		}
	}
	return 0
}

// assembleChat puts a message together from the chunks of a chat.
func assembleChat(t *testing.T, events []event) agentReply {
	t.Helper()
	reply, message := map[string]any{"object": "chat.completion"}, map[string]any{"role": "assistant"}
	var calls []any
	var finish any
	for _, e := range events {
		if e.data == "[DONE]" {
			break
		}
		data := decodeNumbers(t, e.data)
		reply["model"] = data["model"]
		if data["usage"] != nil {
			reply["usage"] = data["usage"]
		}
		choice := object(at(data["choices"], 0))
		delta := object(choice["delta"])
		for _, member := range []string{"content", "reasoning_content"} {
			if part := text(delta[member]); part != "" {
				message[member] = text(message[member]) + part
			}
		}
		for _, entry := range list(delta["tool_calls"]) {
			call := object(entry)
			i := whole(call["index"])
			if call["id"] != nil {
				calls = append(calls, call)
			}
			if i != int64(len(calls)-1) {
				t.Fatalf("the index %d after %d calls", i, len(calls))
			}
			if call["id"] == nil {
				function := object(object(calls[i])["function"])
				function["arguments"] = text(function["arguments"]) + text(object(call["function"])["arguments"])
			}
		}
		if choice["finish_reason"] != nil {
			finish = choice["finish_reason"]
		}
	}
	message["tool_calls"] = calls
	reply["choices"] = []any{map[string]any{"message": message, "finish_reason": finish}}
	return readChatReply(t, reply)
}

// readChatReply reads a whole reply of a chat.
func readChatReply(t *testing.T, reply map[string]any) agentReply {
	t.Helper()
	choice, usage := object(at(reply["choices"], 0)), object(reply["usage"])
	message := object(choice["message"])
	r := agentReply{
		model: text(reply["model"]), text: text(message["content"]), reasoning: text(message["reasoning_content"]),
		promptTokens: whole(usage["prompt_tokens"]), answerTokens: whole(usage["completion_tokens"]),
	}
	for _, entry := range list(message["tool_calls"]) {
		function := object(object(entry)["function"])
		r.calls = append(r.calls, agentCall{text(function["name"]), withoutBlanks(text(function["arguments"]))})
	}
	if choice["finish_reason"] != "tool_calls" {
		t.Errorf("finish_reason %v of %v", choice["finish_reason"], message)
	}
	return r
}
