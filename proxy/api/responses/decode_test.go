package responses

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// bodyStart is a body up to its last member, without the brace.
const bodyStart = `{"input":"Hi"`

// defaultRequest is what a body without any parameter asks for.
func defaultRequest(messages ...api.Message) api.Request {
	return api.Request{Messages: messages, FitContext: true, PlainSampling: true, SplitOutput: true}
}

func user(text string) api.Message { return api.Message{Role: "user", Content: text} }

func assistant(text string, calls ...api.ToolCall) api.Message {
	return api.Message{Role: "assistant", Content: text, ToolCalls: calls}
}

func call(id, name, arguments string) api.ToolCall {
	return api.ToolCall{ID: id, Name: name, Arguments: arguments}
}

func output(id, name, text string) api.Message {
	return api.Message{Role: "tool", ToolCallID: id, Name: name, Content: text}
}

func TestDecodeParameters(t *testing.T) {
	for fields, change := range map[string]func(*api.Request){
		`"model":"demo"`:                  func(r *api.Request) { r.Model = "demo" },
		`"model":"org/demo:v1.0"`:         func(r *api.Request) { r.Model, r.Version = "org/demo", "v1.0" },
		`"model":null`:                    func(*api.Request) {},
		`"temperature":0,"top_p":0.25`:    func(r *api.Request) { r.Temperature, r.TopP = new(float32(0)), new(float32(0.25)) },
		`"top_p":0`:                       func(r *api.Request) { r.TopP = new(float32(smallestTopP)) },
		`"temperature":null,"top_p":null`: func(*api.Request) {},
		`"max_output_tokens":100.0`:       func(r *api.Request) { r.MaxNewTokens = new(100) },
		`"max_output_tokens":1e30`:        func(r *api.Request) { r.MaxNewTokens = new(api.MaxNewTokens) },
		`"stream":true`:                   func(r *api.Request) { r.Stream = true },
		`"stream":null,"stream_options":{"include_obfuscation":false}`: func(*api.Request) {},
		`"stream":true,"stream_options":{"resume":60}`: func(r *api.Request) {
			r.Stream, r.ResumeFor = true, time.Minute
		},
		`"stream_options":{"resume":60}`: func(*api.Request) {}, // a whole reply isn't kept
		`"seed":9007199254740991`:        func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"stop":"x"`:                     func(r *api.Request) { r.Stop = []string{"x"} },
		`"stop":["x","yz"]`:              func(r *api.Request) { r.Stop = []string{"x", "yz"} },
		`"top_k":40.0,"min_p":0`:         func(r *api.Request) { r.TopK, r.MinP = new(40), new(float32(0)) },
		`"presence_penalty":-2,"frequency_penalty":2`: func(r *api.Request) {
			r.PresencePenalty, r.FrequencyPenalty = new(float32(-2)), new(float32(2))
		},
		`"text":{"format":{"type":"text"},"verbosity":"low"}`: func(*api.Request) {},
		`"text":null`: func(*api.Request) {},
		`"text":{"format":{"type":"json_object"}}`: func(r *api.Request) { r.JSONSchema = []byte(`{"type":"object"}`) },
		`"text":{"format":{"type":"json_schema","name":"n","strict":false,"schema":{"type":"array"}}}`: func(r *api.Request) {
			r.JSONSchema = []byte(`{"type":"array"}`)
		},
		`"reasoning":{"effort":"high","summary":"auto"}`: func(r *api.Request) { r.TemplateOptions = []byte(`{"reasoning_effort":"high"}`) },
		`"reasoning":{"effort":"none"}`: func(r *api.Request) {
			r.TemplateOptions = []byte(`{"enable_thinking":false,"reasoning_effort":"none"}`)
		},
		`"reasoning":{"effort":null}`:        func(*api.Request) {},
		`"top_logprobs":5`:                   func(*api.Request) {}, // not included
		`"include":null,"top_logprobs":null`: func(*api.Request) {},
		`"include":["reasoning.encrypted_content","message.output_text.logprobs"],"top_logprobs":5`: func(r *api.Request) {
			r.Logprobs, r.TopLogprobs = true, 5
		},
		`"store":true,"truncation":"auto","metadata":{"a":"b"},"user":"u","service_tier":"auto","prompt_cache_key":"k"`: func(*api.Request) {},
		`"safety_identifier":"s","background":false,"conversation":null,"prompt":null,"previous_response_id":null`:      func(*api.Request) {},
		`"max_tool_calls":3,"context_management":[{"type":"compaction"}],"service_tier":[{"a":null}]`:                   func(*api.Request) {},
	} {
		want := defaultRequest(user("Hi"))
		change(&want)
		wantRequest(t, bodyStart+","+fields+"}", &want)
	}
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
		userItem + `,{"role":"developer","content":"Be brief."},` + userItem:                            {user("Hi"), system("Be brief."), user("Hi")},
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

func TestDecodeTools(t *testing.T) {
	f := api.Tool{Name: "f", Description: "does f", Parameters: []byte(`{"type":"object","properties":{"a":true,"b":false}}`)}
	g := api.Tool{Name: "g"}
	const list = `"tools":[{"type":"function","name":"f","description":"does f","parameters":{"type":"object","properties":{"a":true,"b":false}},"strict":true},{"type":"function","name":"g","parameters":null}]`
	const hosted = `"tools":[{"type":"web_search","filters":{}},{"type":"mcp","server_label":"s","allowed_tools":["a"]},{"type":"code_interpreter","container":{"type":"auto"}},
		{"type":"local_shell"},{"type":"apply_patch"},{"type":"image_generation"},{"type":"file_search","vector_store_ids":[]},{"type":"computer_use_preview"}]`
	with := func(choice api.ToolChoice, tools ...api.Tool) func(*api.Request) {
		return func(r *api.Request) {
			r.Tools, r.ToolChoice, r.ParallelToolCalls = tools, choice, len(tools) > 0 && choice.Mode != api.ToolsNamed
		}
	}
	required := api.ToolChoice{Mode: api.ToolsRequired}
	for fields, change := range map[string]func(*api.Request){
		`"tools":null,"tool_choice":null,"parallel_tool_calls":null`: with(api.ToolChoice{}),
		`"tools":[],"tool_choice":"auto","parallel_tool_calls":true`: with(api.ToolChoice{}),
		list:                                  with(api.ToolChoice{}, f, g),
		list + `,"parallel_tool_calls":false`: func(r *api.Request) { r.Tools = []api.Tool{f, g} },
		list + `,"tool_choice":"none"`:        with(api.ToolChoice{Mode: api.ToolsNone}, f, g),
		list + `,"tool_choice":"required"`:    with(required, f, g),
		list + `,"tool_choice":{"type":"function","name":"g"}`: with(api.ToolChoice{Mode: api.ToolsNamed, Name: "g"}, f, g),
		list + `,"tool_choice":{"type":"web_search_preview"}`:  with(api.ToolChoice{}, f, g),
		list + `,"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"},{"type":"mcp","server_label":"s"}]}`: with(required, g),
		list + `,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"image_generation"}]}`:                                          with(api.ToolChoice{}),
		hosted:                               with(api.ToolChoice{}),
		hosted + `,"tool_choice":"required"`: with(api.ToolChoice{}),
		`"tools":[{"type":"custom","name":"p","description":"d"}],"tool_choice":{"type":"custom","name":"p"}`: with(
			api.ToolChoice{Mode: api.ToolsNamed, Name: "p"}, api.Tool{Name: "p", Description: "d", Parameters: []byte(customParameters)}),
		`"tools":[{"type":"custom","name":"p","format":{"type":"grammar","syntax":"regex","definition":"a+"}},{"type":"custom","name":"q","format":{"type":"text"}}]`: with(
			api.ToolChoice{}, api.Tool{Name: "p", Description: "The input must match this grammar (regex):\na+", Parameters: []byte(customParameters)},
			api.Tool{Name: "q", Parameters: []byte(customParameters)}),
		`"tools":[{"type":"function","name":"g"},{"type":"namespace","name":"n","description":"d","tools":[{"type":"function","name":"h"},{"type":"function","name":"g"}]}],
			"tool_choice":{"type":"function","name":"g","namespace":"n"}`: with(api.ToolChoice{Mode: api.ToolsNamed, Name: "n.g"}, g, api.Tool{Name: "h"}, api.Tool{Name: "n.g"}),
	} {
		want := defaultRequest(user("Hi"))
		change(&want)
		wantRequest(t, bodyStart+","+fields+"}", &want)
	}
}

// A body as Codex sends it in the middle of its work.
func TestDecodeCodex(t *testing.T) {
	body, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		t.Fatal(err)
	}
	want := defaultRequest(
		api.Message{Role: "system", Content: "You are a coding agent. Work in the user's repository.\n\n<permissions>The sandbox is read-only.</permissions>"},
		user("<environment_context>cwd: /src</environment_context>"),
		user("Mend the test."),
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

func TestDecodeErrors(t *testing.T) {
	long := strings.Repeat("x", api.MaxNameBytes+1)
	const userItem = `{"role":"user","content":"Hi"}`
	for body, want := range map[string]string{
		``:                          ` the body must be a JSON object`,
		`[]`:                        ` the body must be a JSON object`,
		`{"input":"Hi"`:             ` the body is not valid JSON`,
		`{"input":"a","input":"b"}`: ` the body has the field "input" twice`,
		strings.Repeat(`{"a":`, 65): ` the body is nested more than 64 levels deep`,

		`{}`:             `input input is required and must be a string or a list`,
		`{"input":null}`: `input input is required`,
		`{"input":[]}`:   `input input is required`,
		`{"input":7}`:    `input input must be a string or a list`,
		`{"input":[7]}`:  `input input must be a string or a list`,
		`{"input":[{}]}`: `input[0] input[0] refers to an item by its id`,
		`{"input":[{"type":"item_reference","id":"msg_1"}]}`:                                                              `input[0] input[0] refers to an item by its id, but items are not stored`,
		`{"input":[{"type":"web_search_call"}]}`:                                                                          `input input has nothing in it`,
		`{"instructions":"a","input":[{"type":"compaction"}]}`:                                                            `input input has nothing in it`,
		`{"input":[` + userItem + `,{"role":"user"}]}`:                                                                    `input[1].content input[1].content must be a string or a list of parts`,
		`{"input":[{"role":"user","content":7}]}`:                                                                         `input[0].content input[0].content must be a string or a list of parts`,
		`{"input":[{"role":"user","content":[7]}]}`:                                                                       `input[0].content input[0].content must be`,
		`{"input":[{"role":"user","content":[{}]}]}`:                                                                      `input[0].content[0].type input[0].content[0].type is required`,
		`{"input":[{"role":"user","content":[{"type":"input_text"}]}]}`:                                                   `input[0].content[0] input[0].content[0] has no text`,
		`{"input":[{"role":"user","content":[{"type":"input_text","text":7}]}]}`:                                          `input[0].content[0].text input[0].content[0].text must be a string`,
		`{"input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"x"}]}]}`: `input[0].content[1].type content of the type "input_image" is not supported`,
		`{"input":[{"role":"user","content":[{"type":"input_file","file_id":"x"}]}]}`:                                     `input[0].content[0].type content of the type "input_file" is not supported`,
		`{"input":[{"role":"tool","content":"a"}]}`:                                                                       `input[0].role input[0].role is "tool", but must be user, assistant, system or developer`,
		`{"input":[{"type":"message","content":"a"}]}`:                                                                    `input[0].role input[0].role is required`,
		`{"input":[{"type":"function_call","name":"f"}]}`:                                                                 `input[0].call_id input[0].call_id must be a string that is not empty`,
		`{"input":[{"type":"function_call","call_id":"c"}]}`:                                                              `input[0].name input[0].name must be a name of`,
		`{"input":[{"type":"function_call","call_id":7}]}`:                                                                `input[0].call_id input[0].call_id must be`,
		`{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":[]}]}`:                                    `input[0].arguments input[0].arguments must be a string`,
		`{"input":[{"type":"function_call_output","output":"a"}]}`:                                                        `input[0].call_id input[0].call_id must be`,
		`{"input":[{"type":"function_call_output","call_id":"c"}]}`:                                                       `input[0].output input[0].output must be`,
		`{"input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image"}]}]}`:                     `input[0].output[0].type content of the type "input_image"`,
		`{"input":[{"type":"custom_tool_call","call_id":"c","name":"p"}]}`:                                                `input[0].input input[0].input must be a string`,
		`{"input":[{"type":"shell_call","call_id":"c","action":"ls"}]}`:                                                   `input[0].action input[0].action must be an object`,
		`{"input":[{"type":"reasoning","content":[{"type":"image"}]}]}`:                                                   `input[0].content[0].type content of the type "image"`,
		`{"input":[` + strings.Repeat(`{"role":"assistant","content":""},`, maxItems) + userItem + `]}`:                   `input`,
		`{"input":[` + strings.Repeat(userItem+`,`, api.MaxMessages) + userItem + `]}`:                                    `input input has 1025 messages, more than the limit of 1024`,
		`{"input":[` + strings.Repeat(`{"type":"function_call","call_id":"c","name":"f"},`, api.MaxToolCalls) + `{"type":"function_call","call_id":"c","name":"f"}]}`: `input[128] input[128] is one of more than 128 calls`,

		bodyStart + `,"model":7}`:                                           `model model must be`,
		bodyStart + `,"model":"` + long + `"}`:                              `model model must be`,
		bodyStart + `,"instructions":["a"]}`:                                `instructions instructions must be a string`,
		bodyStart + `,"max_output_tokens":0}`:                               `max_output_tokens max_output_tokens must be a whole number of 1 or more`,
		bodyStart + `,"temperature":2.5}`:                                   `temperature temperature must be`,
		bodyStart + `,"temperature":"hot"}`:                                 `temperature temperature must be`,
		bodyStart + `,"top_p":-1}`:                                          `top_p top_p must be`,
		bodyStart + `,"stream_options":{"resume":601}}`:                     `stream_options.resume stream_options.resume must be a whole number of seconds from 0 to 600`,
		bodyStart + `,"stream_options":{"resume":"60"}}`:                    `stream_options.resume stream_options.resume must be`,
		bodyStart + `,"stream_options":true}`:                               `stream_options stream_options must be an object`,
		bodyStart + `,"top_k":1001}`:                                        `top_k top_k must be`,
		bodyStart + `,"min_p":2}`:                                           `min_p min_p must be`,
		bodyStart + `,"presence_penalty":3}`:                                `presence_penalty presence_penalty must be`,
		bodyStart + `,"frequency_penalty":-3}`:                              `frequency_penalty frequency_penalty must be`,
		bodyStart + `,"seed":-1}`:                                           `seed seed must be`,
		bodyStart + `,"seed":9007199254740992}`:                             `seed seed must be a whole number from 0 to 9007199254740991`,
		bodyStart + `,"stop":""}`:                                           `stop stop must be`,
		bodyStart + `,"top_logprobs":21}`:                                   `top_logprobs top_logprobs must be`,
		bodyStart + `,"include":"all"}`:                                     `include include must be`,
		bodyStart + `,"include":[7]}`:                                       `include include must be`,
		bodyStart + `,"stream":"yes"}`:                                      `stream stream must be true or false`,
		bodyStart + `,"truncation":"middle"}`:                               `truncation truncation must be auto or disabled`,
		bodyStart + `,"reasoning":{"effort":7}}`:                            `reasoning.effort reasoning.effort must be`,
		bodyStart + `,"reasoning":{"effort":"` + long + `"}}`:               `reasoning.effort reasoning.effort must be`,
		bodyStart + `,"metadata":{"a":1}}`:                                  `metadata metadata must be an object of at most 16 strings`,
		bodyStart + `,"metadata":{"a":null}}`:                               `metadata metadata must be`,
		bodyStart + `,"metadata":"a"}`:                                      `metadata metadata must be`,
		bodyStart + `,"metadata":{"a":"` + strings.Repeat("ä", 513) + `"}}`: `metadata metadata must be`,
		bodyStart + `,"user":"` + strings.Repeat("u", 1025) + `"}`:          `user user must be a string of at most 1024 bytes`,
		bodyStart + `,"text":"plain"}`:                                      `text text must be an object`,
		bodyStart + `,"text":{"format":{"type":"xml"}}}`:                    `text.format.type text.format.type must be text, json_object or json_schema`,
		bodyStart + `,"text":{"format":{"type":"json_schema","name":"n"}}}`: `text.format.schema text.format.schema must be a JSON schema`,
		bodyStart + `,"text":{"format":{"type":"json_schema","schema":{"title":"` + strings.Repeat("x", api.MaxSchemaBytes) + `"}}}}`: `text.format.schema text.format.schema and its description have`,

		bodyStart + `,"previous_response_id":"resp_1"}`: `previous_response_id responses are not stored`,
		bodyStart + `,"conversation":"conv_1"}`:         `conversation conversations are not stored`,
		bodyStart + `,"conversation":{"id":"conv_1"}}`:  `conversation conversations are not stored`,
		bodyStart + `,"prompt":{"id":"pmpt_1"}}`:        `prompt prompt templates are not stored`,
		bodyStart + `,"background":true}`:               `background responses are not made in the background`,

		bodyStart + `,"tools":{}}`:                                                                                    `tools tools must be a list`,
		bodyStart + `,"tools":[7]}`:                                                                                   `tools`,
		bodyStart + `,"tools":[{}]}`:                                                                                  `tools[0].type tools[0].type is required`,
		bodyStart + `,"tools":[{"type":"function"}]}`:                                                                 `tools[0].name tools[0].name must be a name`,
		bodyStart + `,"tools":[{"type":"function","name":"a b"}]}`:                                                    `tools[0].name tools[0].name must be a name`,
		bodyStart + `,"tools":[{"type":"function","name":"f","parameters":[]}]}`:                                      `tools[0].parameters tools[0].parameters must be a JSON schema`,
		bodyStart + `,"tools":[{"type":"custom","name":"f","format":7}]}`:                                             `tools[0].format tools[0].format must be`,
		bodyStart + `,"tools":[{"type":"function","name":"f"},{"type":"function","name":"f"}]}`:                       `tools[1].name tools has "f" twice`,
		bodyStart + `,"tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"a b"}]}]}`:          `tools[0].tools[0].name tools[0].tools[0].name must be`,
		bodyStart + `,"tools":[` + manyTools(api.MaxTools+1) + `]}`:                                                   `tools tools has more than 256 functions`,
		bodyStart + `,"tools":[` + strings.Repeat(`{"type":"mcp"},`, maxListedTools) + `{"type":"mcp"}]}`:             `tools`,
		bodyStart + `,"tool_choice":"maybe"}`:                                                                         `tool_choice tool_choice must be none, auto, required`,
		bodyStart + `,"tool_choice":7}`:                                                                               `tool_choice tool_choice must be`,
		bodyStart + `,"tool_choice":{}}`:                                                                              `tool_choice tool_choice must be`,
		bodyStart + `,"tool_choice":"required"}`:                                                                      `tool_choice tool_choice asks for a tool, but tools is empty`,
		bodyStart + `,"tool_choice":{"type":"function","name":"f"}}`:                                                  `tool_choice.name tool_choice names "f", which is not among tools`,
		bodyStart + `,"tool_choice":{"type":"allowed_tools","mode":"none","tools":[]}}`:                               `tool_choice.mode tool_choice.mode must be auto or required`,
		bodyStart + `,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}}`: `tool_choice.tools tool_choice allows "f"`,
		bodyStart + `,"parallel_tool_calls":1}`:                                                                       `parallel_tool_calls parallel_tool_calls must be true or false`,
	} {
		r, err := Dialect.Decode([]byte(body), api.Limits{})
		if err == nil {
			t.Errorf("%.100s was taken: %+v", body, r)
			continue
		}
		if got := err.Param + " " + err.Message; err.Status() != 400 || !strings.HasPrefix(got, want) {
			t.Errorf("%.100s\ngot  %d %s\nwant %s", body, err.Status(), got, want)
		}
	}
}

// Lists in lists must not take many times the size of the body in memory.
func TestNestedListsAreBounded(t *testing.T) {
	const n = 1 << 20
	for _, field := range []string{"tools", "tool_choice"} {
		entries := strings.Repeat("{},", n) + "{}"
		for _, body := range []string{
			`{"input":"Hi","` + field + `":{"type":"allowed_tools","tools":[` + entries + `]}}`,
			`{"input":"Hi","` + field + `":[{"type":"namespace","name":"n","tools":[` + entries + `]}]}`,
			`{"input":"Hi","` + field + `":[{"type":"namespace","name":"n","tools":[{"tools":[` + entries + `]}]}]}`,
			`{"input":[` + entries + `]}`,
			`{"input":[{"role":"user","content":[` + entries + `]}]}`,
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Dialect.Decode([]byte(body), api.Limits{})
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 16*n {
				t.Errorf("%.60s: %v, %d bytes", body, err, took)
			}
		}
	}
}

func manyTools(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`{"type":"function","name":"f%d"}`, i))
	}
	return strings.Join(list, ",")
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

// A body is the connection's buffer, which is used again while the request waits.
func TestDecodeKeepsNothing(t *testing.T) {
	source, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		t.Fatal(err)
	}
	source = []byte(strings.Replace(string(source), `"text": {`, `"metadata":{"a":"b"},"text": {"format":{"type":"json_schema","name":"n","schema":{"type":"array"}},`, 1))
	body := slices.Clone(source)
	got, failure := Dialect.Decode(body, api.Limits{})
	if failure != nil {
		t.Fatal(failure)
	}
	for i := range body {
		body[i] = '#'
	}
	wantRequest(t, string(source), got)
	again, _ := Dialect.Decode(source, api.Limits{})
	if !reflect.DeepEqual(got.Extra, again.Extra) {
		t.Errorf("the echo is %s", got.Extra.(*echo).members)
	}
}

func TestCount(t *testing.T) {
	r, err := DecodeCount([]byte(`{"model":"demo","instructions":"Be brief.","input":"Hi","stream":true}`), api.Limits{})
	if err != nil || r.Stream || r.Model != "demo" || len(r.Messages) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := DecodeCount([]byte(`{}`), api.Limits{}); err == nil || err.Param != "input" {
		t.Error(err)
	}
	if got := string(AppendCount([]byte("x"), 7)); got != `x{"object":"response.input_tokens","input_tokens":7}` {
		t.Error(got)
	}
}

// wantRequest compares all but what is echoed.
func wantRequest(t *testing.T, body string, want *api.Request) {
	t.Helper()
	got, err := Dialect.Decode([]byte(body), api.Limits{})
	if err != nil {
		t.Errorf("%s: %v", body, err)
		return
	}
	if e, ok := got.Extra.(*echo); !ok || len(e.tools) != len(got.Tools) {
		t.Errorf("%s: extra is %+v", body, got.Extra)
	}
	got.Extra = want.Extra
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s", body, describe(got), describe(want))
	}
}

// describe prints the fields of a request that are set, with what pointers point to.
func describe(r *api.Request) string {
	var b strings.Builder
	v := reflect.ValueOf(*r)
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() {
			continue
		}
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		if text, ok := f.Interface().([]byte); ok {
			fmt.Fprintf(&b, "%s=%s ", v.Type().Field(i).Name, text)
			continue
		}
		fmt.Fprintf(&b, "%s=%+v ", v.Type().Field(i).Name, f)
	}
	return b.String()
}

func FuzzDecode(f *testing.F) {
	codex, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(codex)
	for _, body := range []string{
		bodyStart + `,"max_output_tokens":7,"tools":[],"stop":["a"],"seed":1,"model":"a:b","metadata":{"a":"b"}}`,
		bodyStart + `,"text":{"format":{"type":"json_schema","schema":{}}},"include":["message.output_text.logprobs"],"top_logprobs":3}`,
		bodyStart + `,"tools":[{"type":"namespace","name":"n","tools":[{"type":"custom","name":"p"}]}],"tool_choice":{"type":"allowed_tools","tools":[{"type":"custom","name":"p","namespace":"n"}]}}`,
		`{"input":[{"type":"mcp_call","id":"a","name":"f"},{"type":"shell_call_output","call_id":"a","output":[{}]},{"role":"user","content":[{"type":"te`,
	} {
		f.Add([]byte(body))
	}
	limits := api.Limits{PromptBytes: 4000, SchemaBytes: 500}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Dialect.Decode(body, limits)
		if err != nil {
			if r != nil || err.Status() != 400 || err.Message == "" || len(err.Message) > 1000 || len(err.Param) > 200 {
				t.Fatalf("%+v, %+v", r, err)
			}
			checkJSON(t, Dialect.AppendError(nil, err, "id"))
			return
		}
		checkInvariants(t, r, limits)
		e := newEncoder(&api.ReplyStart{Request: r, RequestID: "r"})
		checkJSON(t, e.AppendReply(nil, &api.Reply{Results: []api.Result{{Text: "a"}}}))
	})
}

func checkJSON(t *testing.T, body []byte) {
	t.Helper()
	if !jsontext.Value(body).IsValid() || strings.ContainsAny(string(body), "\n\r\u0085\u2028\u2029") {
		t.Fatalf("not JSON on one line: %q", body)
	}
}

// checkInvariants checks what later code relies on.
func checkInvariants(t *testing.T, r *api.Request, limits api.Limits) {
	t.Helper()
	between := func(v *float32, low, high float32) bool { return v == nil || *v >= low && *v <= high }
	switch {
	case len(r.Messages) == 0, len(r.Messages) > api.MaxMessages, r.Prompt != "", r.Raw, !r.SplitOutput, !r.FitContext, !r.PlainSampling:
		t.Fatalf("not a conversation: %s", describe(r))
	case r.TextBytes()-len(r.JSONSchema) > limits.PromptBytes, len(r.JSONSchema) > limits.SchemaBytes:
		t.Fatalf("too much text: %s", describe(r))
	case len(r.Stop) > api.MaxStops, slices.ContainsFunc(r.Stop, func(s string) bool { return s == "" || len(s) > api.MaxStopBytes }):
		t.Fatalf("stops %q", r.Stop)
	case len(r.Model) > api.MaxNameBytes, len(r.Version) > api.MaxNameBytes:
		t.Fatalf("names %q, %q", r.Model, r.Version)
	case len(r.Tools) > api.MaxTools, r.ToolChoice.Mode >= api.ToolsRequired && len(r.Tools) == 0, r.TopLogprobs > api.MaxTopLogprobs:
		t.Fatalf("tools or log-probabilities: %s", describe(r))
	case !between(r.Temperature, 0, api.MaxTemperature), !between(r.TopP, smallestTopP, 1), !between(r.MinP, 0, 1),
		!between(r.PresencePenalty, -api.MaxPenalty, api.MaxPenalty), !between(r.FrequencyPenalty, -api.MaxPenalty, api.MaxPenalty),
		r.TopK != nil && *r.TopK > api.MaxTopK, r.Seed != nil && *r.Seed > api.MaxSeed,
		r.MaxNewTokens != nil && (*r.MaxNewTokens < 1 || *r.MaxNewTokens > api.MaxNewTokens):
		t.Fatalf("out of range: %s", describe(r))
	}
	names := map[string]bool{}
	for _, f := range r.Tools {
		if !api.IsToolName(f.Name) || names[f.Name] {
			t.Fatalf("tool %q", f.Name)
		}
		names[f.Name] = true
	}
	if r.ToolChoice.Mode == api.ToolsNamed && !names[r.ToolChoice.Name] {
		t.Fatalf("%q is not among the tools", r.ToolChoice.Name)
	}
	for i := range r.Messages {
		checkMessage(t, &r.Messages[i])
	}
}

func checkMessage(t *testing.T, m *api.Message) {
	t.Helper()
	isAssistant := m.Role == "assistant"
	switch {
	case !slices.Contains([]string{"system", "user", "assistant", "tool"}, m.Role),
		!isAssistant && (m.Reasoning != "" || m.ToolCalls != nil), (m.Role == "tool") != (m.ToolCallID != ""), len(m.ToolCalls) > api.MaxToolCalls:
		t.Fatalf("message %+v", m)
	}
	for _, c := range m.ToolCalls {
		if c.ID == "" || !api.IsToolName(c.Name) || !jsontext.Value(c.Arguments).IsValid() {
			t.Fatalf("call %+v", c)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	body, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Dialect.Decode(body, api.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
