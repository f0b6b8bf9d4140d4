//go:build llama

package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tandem/scripts/gguf"
	"tandem/scripts/models/fixedanswer"
)

// startToolServer serves SmolLM2 with a chat template that has a form for tools and reasoning.
func startToolServer(t *testing.T, settings ...string) *testServer {
	t.Helper()
	file := os.Getenv("SMOLLM2")
	if file == "" {
		skipUnlessCI(t, "SMOLLM2 names no model; scripts/models/fetch.sh smollm2 prints the path of one")
	}
	models := t.TempDir()
	if err := os.Mkdir(filepath.Join(models, "smollm2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := gguf.WithTemplate(file, filepath.Join(models, "smollm2", "model.gguf"), fixedanswer.ChatTemplate); err != nil {
		t.Fatal(err)
	}
	s := startDebugServer(t, append([]string{"MODELS_DIR=" + models, "DEFAULT_MODEL=smollm2", "CONTEXT=2048", "DETERMINISTIC=true", "DEVICE=cpu"}, settings...)...)
	s.client.Timeout = realModelTimeout
	return s
}

// weatherTools are tools whose arguments a test can check.
var weatherTools = []any{
	map[string]any{"type": "function", "function": map[string]any{"name": "get_weather", "description": "The weather in a city", "parameters": map[string]any{
		"type": "object", "required": []string{"city", "days"}, "additionalProperties": false,
		"properties": map[string]any{"city": map[string]any{"enum": []string{"Paris", "Rome"}}, "days": map[string]any{"type": "integer", "minimum": 1, "maximum": 7}}}}},
	map[string]any{"type": "function", "function": map[string]any{"name": "get_time", "parameters": map[string]any{
		"type": "object", "properties": map[string]any{"zone": map[string]any{"enum": []string{"UTC", "CET"}}}, "required": []string{"zone"}, "additionalProperties": false}}},
}

// checkCall checks the name and arguments of a call of weatherTools.
func checkCall(call map[string]any) error {
	function := object(call["function"])
	d := json.NewDecoder(strings.NewReader(text(function["arguments"])))
	d.DisallowUnknownFields()
	switch text(function["name"]) {
	case "get_weather":
		var a struct {
			City string
			Days int
		}
		if err := d.Decode(&a); err != nil || a.City != "Paris" && a.City != "Rome" || a.Days < 1 || a.Days > 7 {
			return fmt.Errorf("%v: %w", call, err)
		}
	case "get_time":
		var a struct{ Zone string }
		if err := d.Decode(&a); err != nil || a.Zone != "UTC" && a.Zone != "CET" {
			return fmt.Errorf("%v: %w", call, err)
		}
	default:
		return fmt.Errorf("no such tool: %v", call)
	}
	if id := text(call["id"]); len(id) != 9 || call["type"] != "function" {
		return fmt.Errorf("id or type of %v", call)
	}
	return nil
}

// TestToolCallsOfSmolLM2 asks a real model for calls in every way. Each answer is asked for whole and as a stream.
func TestToolCallsOfSmolLM2(t *testing.T) {
	s := startToolServer(t)
	named := map[string]any{"type": "function", "function": map[string]any{"name": "get_time"}}
	for _, c := range []struct {
		name       string
		choice     any
		parallel   bool
		temp       float64
		least      int // calls
		most       int
		everything bool // every call is of the named tool
	}{
		{"required", "required", true, 0, 1, 64, false},
		{"required, sampled", "required", true, 1, 1, 64, false},
		{"required, one", "required", false, 1, 1, 1, false},
		{"named", named, false, 1, 1, 1, true},
		{"auto", "auto", true, 0, 0, 64, false},
		{"none", "none", true, 0, 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := map[string]any{"messages": []any{map[string]any{"role": "user", "content": "What is the weather in Paris, and what time is it?"}},
				"tools": weatherTools, "tool_choice": c.choice, "parallel_tool_calls": c.parallel, "temperature": c.temp, "seed": 5, "max_tokens": 200}
			message, finish := s.askChat(t, body)
			calls := list(message["tool_calls"])
			t.Logf("%s: %d calls, content %.80q", finish, len(calls), text(message["content"]))
			if len(calls) < c.least || len(calls) > c.most || (finish == "tool_calls") != (len(calls) > 0) && finish != "length" {
				t.Errorf("%d calls, finish_reason %s: %v", len(calls), finish, message)
			}
			ids := map[string]bool{}
			for i, entry := range calls {
				err := checkCall(object(entry))
				if err != nil && (finish != "length" || i < len(calls)-1) { // the last one may be cut off
					t.Error(err)
				}
				ids[text(object(entry)["id"])] = true
				if c.everything && text(object(object(entry)["function"])["name"]) != "get_time" {
					t.Errorf("another tool: %v", entry)
				}
			}
			if len(ids) != len(calls) {
				t.Errorf("%d ids of %d calls", len(ids), len(calls))
			}
		})
	}
	checkInvariants(t, s.waitIdle())
}

// TestArgumentsOfSmolLM2FitTheirSchema asks for arguments with keywords that a grammar in GBNF can't have.
func TestArgumentsOfSmolLM2FitTheirSchema(t *testing.T) {
	s := startToolServer(t)
	for name, property := range map[string]string{
		"pattern":           `{"type":"string","pattern":"[A-Z]{3}-[0-9]{2}","maxLength":12}`,
		"pattern and bound": `{"type":"string","pattern":"^[a-z ]+$","minLength":5,"maxLength":12}`,
		"numbers":           `{"type":"number","minimum":1.5,"maximum":2.5}`,
		"multipleOf":        `{"type":"integer","multipleOf":25,"minimum":50,"maximum":500}`,
		"tuple":             `{"type":"array","prefixItems":[{"enum":["N","S"]},{"type":"integer","minimum":0,"maximum":90}],"items":false,"minItems":2}`,
		"names":             `{"type":"object","patternProperties":{"^n_[a-z]{1,4}$":{"type":"boolean"}},"additionalProperties":false,"maxProperties":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := `{"type":"object","properties":{"note":{"type":"string","maxLength":8},"value":` + property + `},"required":["value"],"additionalProperties":false}`
			tools := []any{map[string]any{"type": "function", "function": map[string]any{"name": "set", "description": "Sets a value", "parameters": json.RawMessage(schema)}}}
			for seed := range 2 {
				message, finish := s.askChat(t, map[string]any{"messages": []any{map[string]any{"role": "user", "content": "Set the value."}},
					"tools": tools, "tool_choice": "required", "parallel_tool_calls": false, "temperature": 1, "seed": seed, "max_tokens": 200})
				calls := list(message["tool_calls"])
				if len(calls) != 1 || finish == "length" {
					t.Errorf("%s: %v", finish, message)
					continue
				}
				arguments := text(object(object(calls[0])["function"])["arguments"])
				if err := validateAnswer(schema, arguments); err != nil {
					t.Errorf("%s: %v", arguments, err)
				}
			}
		})
	}
}

// TestSmolLM2GoesOnWithAMessage has an answer begun in Anthropic's way, and in chats when they ask for it.
func TestSmolLM2GoesOnWithAMessage(t *testing.T) {
	s := startToolServer(t)
	ask := map[string]any{"role": "user", "content": "What is the capital of France?"}
	begun := []any{ask, map[string]any{"role": "assistant", "content": "The capital of France is"}}
	body := map[string]any{"max_tokens": 8, "temperature": 0, "messages": begun}
	content := list(s.mustReply("/v1/messages", body)["content"])
	if len(content) != 1 || !strings.HasPrefix(text(object(content[0])["text"]), " Paris") {
		t.Errorf("/v1/messages: %v", content)
	}
	streamed := s.streamedText(t, "/v1/messages", with(body, "stream", true), func(d map[string]any) string { return text(object(d["delta"])["text"]) })
	if want := text(object(content[0])["text"]); streamed != want {
		t.Errorf("streamed %q, whole %q", streamed, want)
	}
	chat := func(goesOn bool) string {
		message, _ := s.askChat(t, with(body, "continue_final_message", goesOn))
		return text(message["content"])
	}
	if got := chat(true); !strings.HasPrefix(got, " Paris") {
		t.Errorf("a chat that goes on: %q", got)
	}
	if got := chat(false); strings.HasPrefix(got, " Paris") {
		t.Errorf("the next message begins with %q", got)
	}
	_, err := s.reply("/v1/chat/completions", map[string]any{"messages": []any{ask}, "continue_final_message": true})
	if err == nil || !strings.Contains(err.Error(), "status 400") || !strings.Contains(err.Error(), `"param":"messages"`) {
		t.Errorf("a message of the user: %v", err)
	}
}

// TestManyToolsAndLongNames is a client with the tools of several MCP servers, whose names are put together.
func TestManyToolsAndLongNames(t *testing.T) {
	s := startToolServer(t, "CONTEXT=8192")
	longName := "mcp__" + strings.Repeat("n", 123) // 128 bytes, the most that Anthropic's API takes
	tools := []any{map[string]any{"name": longName, "input_schema": map[string]any{"type": "object", "additionalProperties": false}}}
	for i := range 139 { // more than 128, and few enough for the context
		tools = append(tools, map[string]any{"name": fmt.Sprintf("t%d", i), "input_schema": map[string]any{"type": "object"}})
	}
	reply := s.mustReply("/v1/messages", map[string]any{"max_tokens": 150, "temperature": 0, "tools": tools,
		"messages": []any{map[string]any{"role": "user", "content": "Go."}}, "tool_choice": map[string]any{"type": "tool", "name": longName}})
	content := list(reply["content"])
	if call := object(content[len(content)-1]); reply["stop_reason"] != "tool_use" || call["name"] != longName {
		t.Errorf("%v", reply)
	}
}

// askChat asks for a whole reply and at the same time for the same as a stream, whose deltas must add up to the reply's
// message.
func (s *testServer) askChat(t *testing.T, body map[string]any) (message map[string]any, finish string) {
	t.Helper()
	const requestID = "tools" // of both, so that the ids of calls are equal
	var streamed *transcript
	var streamErr error
	var both sync.WaitGroup
	both.Go(func() {
		streamed, streamErr = (&dialectStream{path: "/v1/chat/completions", read: takeChat, body: with(body, "stream", true)}).follow(s, requestID, nil)
	})
	var reply map[string]any
	resp, err := s.openStream(t.Context(), "/v1/chat/completions", body, "X-Request-Id", requestID)
	if err == nil {
		err = json.NewDecoder(resp.Body).Decode(&reply)
		resp.Body.Close()
	}
	both.Wait()
	if err = errors.Join(err, streamErr); err != nil || len(streamed.problems) > 0 {
		t.Fatalf("%v, %+v", err, streamed)
	}
	choice := object(list(reply["choices"])[0])
	message, finish = object(choice["message"]), text(choice["finish_reason"])
	if got, want := streamed.said("choice 0"), saidWhole(message, finish); got != want {
		t.Errorf("streamed\n%s\nwhole\n%s", got, want)
	}
	return message, finish
}

// said is what a choice of a chat said: each kind of text put together, and the calls.
func (t *transcript) said(lane string) string {
	texts := map[string]string{}
	var calls, finish strings.Builder
	for _, x := range t.lanes[lane] {
		switch kind, _, _ := strings.Cut(x.kind, " "); kind {
		case "call":
			var call map[string]any
			_ = json.Unmarshal([]byte(x.text), &call) // encoded by add
			fmt.Fprintf(&calls, "\n%s %s ", call["id"], object(call["function"])["name"])
		case "arguments":
			calls.WriteString(x.text)
		case "finish":
			finish.WriteString(strings.Trim(x.text, `"`))
		default:
			texts[kind] += x.text
		}
	}
	return fmt.Sprintf("%q %q %s%s", texts["reasoning_content"], texts["content"], finish.String(), calls.String())
}

// saidWhole is the same of a whole message.
func saidWhole(message map[string]any, finish string) string {
	var calls strings.Builder
	for _, entry := range list(message["tool_calls"]) {
		call := object(entry)
		function := object(call["function"])
		fmt.Fprintf(&calls, "\n%s %s %s", call["id"], function["name"], function["arguments"])
	}
	return fmt.Sprintf("%q %q %s%s", text(message["reasoning_content"]), text(message["content"]), finish, calls.String())
}

// TestStreamsOfSmolLM2GoOnWhenTheEngineIsKilled kills in the middle of a real model's calls and texts.
func TestStreamsOfSmolLM2GoOnWhenTheEngineIsKilled(t *testing.T) {
	s := startToolServer(t, "REPLAY="+cmp.Or(os.Getenv("CHAOS_REPLAY"), "prefill"))
	base := map[string]any{"model": "smollm2", "temperature": 1, "seed": 5, "stream": true}
	ask := []any{map[string]any{"role": "user", "content": "What is the weather in Paris, and what time is it?"}}
	usage := map[string]any{"include_usage": true}
	for _, d := range []dialectStream{
		{name: "smollm2 calls", path: "/v1/chat/completions", read: takeChat, says: []string{"call", "call"},
			body: with(base, "messages", ask, "tools", weatherTools, "tool_choice", "required", "n", 2, "max_tokens", 80, "stream_options", usage)},
		{name: "smollm2 text", path: "/v1/chat/completions", read: takeChat, says: []string{"content", "content", "logprob"},
			body: with(base, "messages", ask, "n", 2, "logprobs", true, "top_logprobs", 5, "max_tokens", 40, "stream_options", usage)},
	} {
		t.Run(d.name, func(t *testing.T) {
			inner := *s
			inner.t = t
			d.checkKills(&inner, os.Getenv("CHAOS_KILLS") != "")
		})
	}
	checkInvariants(t, s.waitIdle())
}
