package responses

import (
	"os"
	"strings"
	"testing"

	"tandem/proxy/api"
)

func assistant(text string, calls ...api.ToolCall) api.Message {
	return api.Message{Role: "assistant", Content: text, ToolCalls: calls}
}

func call(id, name, arguments string) api.ToolCall {
	return api.ToolCall{ID: id, Name: name, Arguments: arguments}
}

func output(id, name, text string) api.Message {
	return api.Message{Role: "tool", ToolCallID: id, Name: name, Content: text}
}

// Messages, calls and reasoning become a conversation as chat templates want it.
func TestDecodeInput(t *testing.T) {
	system := func(text string) api.Message { return api.Message{Role: "system", Content: text} }
	const (
		userItem = `{"role":"user","content":"Hi"}`
		callItem = `{"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{\"a\":1}","status":"completed"}`
		outItem  = `{"type":"function_call_output","call_id":"c1","output":"42"}`
	)
	for items, want := range map[string][]api.Message{
		`{"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":" b"}]}`: {user("a b")},
		`{"role":"user","content":""}`: {user("")},
		`{"role":"user","content":[]}`: {user("")},
		`{"role":"developer","content":"Be brief."},{"role":"system","content":"Be kind."},` + userItem: {system("Be brief.\n\nBe kind."), user("Hi")},
		userItem + `,{"role":"developer","content":"Be brief."},` + userItem:                            {user("Hi\n\nBe brief.\n\nHi")},
		// Templates want user and assistant in turn, and no system message but the first.
		userItem + `,{"role":"user","content":""},{"role":"user","content":"a"},{"role":"assistant","content":"b"},` + userItem: {user("Hi\n\na"), assistant("b"), user("Hi")},
		`{"role":"system","content":"Be kind."},` + userItem + `,{"role":"assistant","content":"a"},{"role":"developer","content":"Be brief."}`: {
			system("Be kind."), user("Hi"), assistant("a"), user("Be brief."),
		},
		callItem + `,` + outItem + `,{"role":"developer","content":"Be brief."},` + userItem: {
			assistant("", call("c1", "f", `{"a":1}`)), output("c1", "f", "42"), user("Be brief.\n\nHi"),
		},
		userItem + `,{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"nobody's"}]},` + userItem + `,{"role":"assistant","content":"a"}`: {
			user("Hi\n\nHi"), assistant("a"),
		},
		`{"role":"system","content":"Be kind."},{"type":"reasoning","summary":[{"type":"summary_text","text":"nobody's"}]},{"role":"system","content":"Be brief."},` + userItem: {
			system("Be kind.\n\nBe brief."), user("Hi"),
		},
		userItem + `,{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]},
			{"type":"refusal","refusal":"b"}]},` + userItem: {user("Hi"), assistant("ab"), user("Hi")},
		userItem + `,{"role":"assistant","content":"a"},` + callItem + `,{"role":"assistant","content":"b"},` + outItem: {
			user("Hi"), assistant("a\n\nb", call("c1", "f", `{"a":1}`)), output("c1", "f", "42"),
		},
		userItem + `,` + callItem + `,{"type":"function_call","call_id":"c2","name":"g","arguments":""},` + outItem + `,{"type":"function_call_output","call_id":"c2","output":[]}`: {
			user("Hi"), assistant("", call("c1", "f", `{"a":1}`), call("c2", "g", "{}")), output("c1", "f", "42"), output("c2", "g", ""),
		},
		callItem + `,` + outItem + `,{"role":"assistant","content":"a"}`: {assistant("", call("c1", "f", `{"a":1}`)), output("c1", "f", "42"), assistant("a")},
		// The arguments were cut off.
		`{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":"}`: {assistant("", call("c1", "f", `"{\"a\":"`))},
		userItem + `,{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}],"encrypted_content":"x"},` + callItem: {
			user("Hi"), {Role: "assistant", Reasoning: "hm", ToolCalls: []api.ToolCall{call("c1", "f", `{"a":1}`)}},
		},
		userItem + `,{"type":"reasoning","summary":[{"type":"summary_text","text":"so"}]},{"type":"reasoning","summary":[{"type":"summary_text","text":"lala"}],"content":[{"type":"text","text":"hm"}]},
			{"role":"assistant","content":"a"},{"type":"reasoning","content":[{"type":"reasoning_text","text":"er"}]},{"role":"assistant","content":"b"}`: {
			user("Hi"), {Role: "assistant", Content: "a\n\nb", Reasoning: "so\n\nhm\n\ner"},
		},
		`{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"nobody's"}]},` + userItem + `,{"role":"assistant","content":"a"}`: {user("Hi"), assistant("a")},
		`{"type":"custom_tool_call","call_id":"c1","name":"p","input":"a\n\"b\""},{"type":"custom_tool_call_output","call_id":"c1","output":"ok"}`: {
			assistant("", call("c1", "p", `{"input":"a\n\"b\""}`)), output("c1", "p", "ok"),
		},
		callItem + `,{"type":"function_call","call_id":"c2","name":"f","arguments":"{}"},{"type":"function_call","call_id":"c3","name":"g","arguments":"{}"},
			{"type":"function_call_output","id":"fco_1","name":"f","output":"a"},{"type":"function_call_output","name":"g","output":"b"}`: {
			assistant("", call("c1", "f", `{"a":1}`), call("c2", "f", "{}"), call("c3", "g", "{}")), output("c2", "f", "a"), output("c3", "g", "b"),
		},
		`{"type":"local_shell_call","id":"lsh_1","call_id":"c1","status":"completed","action":{"type":"exec","command":["ls"],"env":{}}},
			{"type":"local_shell_call_output","id":"c1","output":"a.go"}`: {
			assistant("", call("c1", "local_shell", `{"type":"exec","command":["ls"],"env":{}}`)), output("c1", "local_shell", "a.go"),
		},
		`{"type":"shell_call","call_id":"c1","action":{"commands":["ls"]}},{"type":"shell_call_output","call_id":"c1","output":[{"stdout":"a","outcome":{"type":"exit"}}]}`: {
			assistant("", call("c1", "shell", `{"commands":["ls"]}`)), output("c1", "shell", `[{"stdout":"a","outcome":{"type":"exit"}}]`),
		},
		`{"type":"apply_patch_call","call_id":"c1","status":"completed","operation":{"type":"delete_file","path":"a"}},{"type":"apply_patch_call_output","call_id":"c1","status":"failed"}`: {
			assistant("", call("c1", "apply_patch", `{"type":"delete_file","path":"a"}`)), output("c1", "apply_patch", "failed"),
		},
		`{"type":"mcp_call","id":"mcp_1","server_label":"s","name":"f","arguments":"{}","output":"42"},{"type":"mcp_call","id":"mcp_2","name":"f","arguments":"{}","error":{"code":1}}`: {
			assistant("", call("mcp_1", "f", "{}")), output("mcp_1", "f", "42"), assistant("", call("mcp_2", "f", "{}")), output("mcp_2", "f", `{"code":1}`),
		},
		userItem + `,{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search"}},{"type":"code_interpreter_call","code":"1"},
			{"type":"compaction","encrypted_content":"x"},{"type":"from_the_future","content":{"a":1},"output":7,"summary":"s"}`: {user("Hi")},
	} {
		r := defaultRequest(want...)
		wantRequest(t, `{"input":[`+items+`]}`, &r)
	}
	r := defaultRequest(system("Be brief."), user("Hi"))
	wantRequest(t, `{"instructions":"Be brief.","input":"Hi"}`, &r)
	r = defaultRequest(system("Be brief.\n\nBe kind."), user("Hi"))
	wantRequest(t, `{"instructions":"Be brief.","input":[{"role":"developer","content":"Be kind."},`+userItem+`]}`, &r)
}

// A body as Codex sends it in the middle of its work.
func TestDecodeCodex(t *testing.T) {
	body, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		t.Fatal(err)
	}
	want := defaultRequest(
		api.Message{Role: "system", Content: "You are a coding agent. Work in the user's repository.\n\n<permissions>The sandbox is read-only.</permissions>"},
		user("<environment_context>cwd: /src</environment_context>\n\nMend the test."),
		api.Message{Role: "assistant", Content: "I look at it.", Reasoning: "Look first.", ToolCalls: []api.ToolCall{call("call_1", "shell", `{"command":["cat","a_test.go"]}`)}},
		output("call_1", "shell", "package a"),
		assistant("", call("call_2", "apply_patch", `{"input":"*** Begin Patch\n*** End Patch\n"}`)),
		output("call_2", "apply_patch", "Done!"),
		assistant("", call("call_3", "local_shell", `{"type": "exec", "command": ["ls"], "env": {}}`)),
		output("call_3", "local_shell", "a.go\na_test.go\n"),
		assistant("", call("call_4", "read_page", "{}")),
		output("call_4", "read_page", ""),
	)
	want.Model, want.Version, want.Stream = "org/coder", "v2", true
	want.TemplateOptions = []byte(`{"reasoning_effort":"medium"}`)
	want.Tools = []api.Tool{
		{Name: "shell", Description: "Runs a command.", Parameters: []byte(`{"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}, "required": ["command"]}`)},
		{Name: "apply_patch", Description: "Edits files.\n\nThe input must match this grammar (lark):\nstart: /.+/", Parameters: []byte(customParameters)},
		{Name: "read_page", Description: "Reads a page.", Parameters: []byte(`{"type": "object", "properties": {}}`)},
		{Name: "mcp__browser.shell", Parameters: []byte(`{"type": "object"}`)},
	}
	wantRequest(t, string(body), &want)
}

// All texts together are bounded, whichever field they are in.
func TestTextLimit(t *testing.T) {
	limits := api.Limits{PromptBytes: 100}
	text := strings.Repeat("x", 90)
	for _, body := range []string{
		`{"input":"` + text + text + `"}`,
		`{"input":"a","instructions":"` + text + text + `"}`,
		`{"input":"` + text + `","instructions":"` + text + `"}`,
		`{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":\"` + text + `\"}"}]}`,
		`{"input":[{"type":"reasoning","content":[{"type":"reasoning_text","text":"` + text + `"}]},{"role":"assistant","content":"` + text + `"}]}`,
		`{"input":"a","tools":[{"type":"function","name":"f","description":"` + text + text + `"}]}`,
		`{"input":"` + text + `","tools":[{"type":"custom","name":"f","format":{"type":"grammar","definition":"` + text + `"}}]}`,
	} {
		if _, err := Dialect.Decode([]byte(body), limits); err == nil || err.Param != "input" || !strings.Contains(err.Message, "more than the limit of 100") {
			t.Errorf("%s: %v", body, err)
		}
	}
	if _, err := Dialect.Decode([]byte(`{"input":"`+text+`"}`), limits); err != nil {
		t.Error(err)
	}
}
