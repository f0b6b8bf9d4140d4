package anthropic

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

const (
	bodyStart  = `{"max_tokens":100,"messages":[{"role":"user","content":"Hi"}]`
	noThinking = `{"enable_thinking":false}`
)

// defaultRequest is what a body without any further parameter asks for.
func defaultRequest() api.Request {
	return api.Request{
		Messages: []api.Message{user("Hi")}, MaxNewTokens: new(100), FitContext: true, PlainSampling: true, SplitOutput: true, TemplateOptions: []byte(noThinking),
	}
}

func user(text string) api.Message { return api.Message{Role: "user", Content: text} }

func assistant(text string) api.Message { return api.Message{Role: "assistant", Content: text} }

func TestDecodeParameters(t *testing.T) {
	for fields, change := range map[string]func(*api.Request){
		`"model":"demo"`:                    func(r *api.Request) { r.Model = "demo" },
		`"model":"org/demo:v1.0"`:           func(r *api.Request) { r.Model, r.Version = "org/demo", "v1.0" },
		`"model":null`:                      func(*api.Request) {},
		`"max_tokens":7.0`:                  func(r *api.Request) { r.MaxNewTokens = new(7) },
		`"max_tokens":1e30`:                 func(r *api.Request) { r.MaxNewTokens = new(api.MaxNewTokens) },
		`"temperature":0`:                   func(r *api.Request) { r.Temperature = new(float32(0)) },
		`"temperature":1.0`:                 func(r *api.Request) { r.Temperature = new(float32(1)) },
		`"temperature":null,"top_p":null`:   func(*api.Request) {},
		`"top_p":0.25,"top_k":40`:           func(r *api.Request) { r.TopP, r.TopK = new(float32(0.25)), new(40) },
		`"top_p":0,"top_k":0`:               func(r *api.Request) { r.TopP, r.TopK = new(float32(smallestTopP)), new(0) },
		`"stop_sequences":["x","yz"]`:       func(r *api.Request) { r.Stop = []string{"x", "yz"} },
		`"stop_sequences":[],"stream":null`: func(*api.Request) {},
		`"stream":true`:                     func(r *api.Request) { r.Stream = true },
		`"timings_per_token":true`:          func(r *api.Request) { r.Timings = true },
		`"timings_per_token":null`:          func(*api.Request) {},
		`"stream":true,"stream_options":{"resume":60}`: func(r *api.Request) {
			r.Stream, r.ResumeFor = true, time.Minute
		},
		`"stream_options":{"resume":60}`:         func(*api.Request) {}, // a whole reply isn't kept
		`"thinking":null`:                        func(*api.Request) {},
		`"thinking":{"type":"disabled"}`:         func(*api.Request) {},
		`"thinking":{"type":"adaptive"}`:         func(r *api.Request) { r.TemplateOptions = []byte(`{"enable_thinking":true}`) },
		`"output_config":{"effort":"low"}`:       func(*api.Request) {},
		`"output_config":{"format":null}`:        func(*api.Request) {},
		`"system":null`:                          func(*api.Request) {},
		`"system":""`:                            func(*api.Request) {},
		`"system":[]`:                            func(*api.Request) {},
		`"metadata":{"user_id":"u"}`:             func(*api.Request) {},
		`"service_tier":"auto","container":[{}]`: func(*api.Request) {},
		`"system":"Be brief."`: func(r *api.Request) {
			r.Messages = []api.Message{{Role: "system", Content: "Be brief."}, user("Hi")}
		},
		`"system":[{"type":"text","text":"a"},{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}]`: func(r *api.Request) {
			r.Messages = []api.Message{{Role: "system", Content: "a\nb"}, user("Hi")}
		},
		`"thinking":{"type":"enabled","budget_tokens":1024}`: func(r *api.Request) {
			r.TemplateOptions = []byte(`{"enable_thinking":true}`)
		},
		`"output_config":{"format":{"type":"json_schema","schema":{"type":"array"}}},"output_format":{"type":"?"}`: func(r *api.Request) {
			r.JSONSchema = []byte(`{"type":"array"}`)
		},
		`"output_format":{"type":"json_schema","schema":{"type":"array"}}`: func(r *api.Request) {
			r.JSONSchema = []byte(`{"type":"array"}`)
		},
	} {
		want := defaultRequest()
		change(&want)
		body := bodyStart + "," + fields + "}"
		if strings.HasPrefix(fields, `"max_tokens"`) {
			body = strings.Replace(body, `"max_tokens":100,`, "", 1)
		}
		wantRequest(t, body, &want)
	}
}

func TestDecodeMessages(t *testing.T) {
	tool := func(id, name, text string) api.Message {
		return api.Message{Role: "tool", ToolCallID: id, Name: name, Content: text}
	}
	call := func(id, name, arguments string) api.ToolCall {
		return api.ToolCall{ID: id, Name: name, Arguments: arguments}
	}
	for list, want := range map[string][]api.Message{
		`{"role":"user","content":""}`: {user("")},
		`{"role":"user","content":[]}`: {user("")},
		`{"role":"user","content":""},{"role":"user","content":[{"type":"text","text":""},{"type":"text","text":"a"}]}`: {user("a")},
		// Blocks and messages of one side that follow each other are one message.
		`{"role":"user","content":"a"},{"content":[{"type":"text","text":"b"},{"text":"c","type":"text"}],"role":"user"}`: {user("a\nb\nc")},
		`{"role":"user","content":"a"},
		 {"role":"assistant","content":[{"type":"text","text":"Par"},{"type":"text","text":"is"}]},{"role":"assistant","content":"Rome"},
		 {"role":"user","content":"b"}`: {user("a"), assistant("Paris\nRome"), user("b")},
		`{"role":"assistant","content":"Hello!"},{"role":"user","content":"a"}`: {assistant("Hello!"), user("a")},
		// Results come before the text, wherever the client has them.
		`{"role":"user","content":"a"},
		 {"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{"a": [1]}},{"type":"tool_use","id":"2","name":"g"}]},
		 {"role":"user","content":[{"type":"text","text":"b"},{"type":"tool_result","tool_use_id":"2","content":"two"},
		  {"type":"tool_result","tool_use_id":"1","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]}]},
		 {"role":"user","content":"c"}`: {
			user("a"), {Role: "assistant", ToolCalls: []api.ToolCall{call("1", "f", `{"a": [1]}`), call("2", "g", "{}")}},
			tool("2", "g", "two"), tool("1", "f", "x\ny"), user("b\nc"),
		},
		// Coding clients add what is new as a message of the system behind the user's.
		`{"role":"system","content":"a"},{"role":"system","content":[{"type":"text","text":"b"}]},{"role":"user","content":"c"}`: {
			{Role: "system", Content: "a\nb"}, user("c"),
		},
		`{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}]},
		 {"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f"}]},
		 {"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"x"}]},{"role":"system","content":"c"}`: {
			user("a\nb"), {Role: "assistant", ToolCalls: []api.ToolCall{call("1", "f", "{}")}}, tool("1", "f", "x"), user("c"),
		},
		`{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"system","content":"c"}`: {user("a"), assistant("b"), user("c")},
		`{"role":"user","content":[{"type":"tool_result","tool_use_id":"9"},{"type":"tool_result","tool_use_id":"9","content":null}]}`: {
			tool("9", "", ""), tool("9", "", ""), // of a call that isn't here any more
		},
		`{"role":"user","content":"a"},
		 {"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"s"},{"type":"redacted_thinking","data":"x"},
		  {"type":"text","text":"b"},{"type":"thinking","thinking":"So.","signature":""}]},
		 {"role":"user","content":"c"}`: {user("a"), {Role: "assistant", Content: "b", Reasoning: "Hm.\nSo."}, user("c")},
	} {
		r := defaultRequest()
		r.Messages = want
		wantRequest(t, `{"max_tokens":100,"messages":[`+list+`]}`, &r)
	}
}

// Claude Code begins its system text with a line for the server that is another one in each request. In the prompt it
// would keep all of it from coming from the KV cache.
func TestBillingLine(t *testing.T) {
	const line, other = `x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch=a5145;`, `x-anthropic-billing-header: cc_version=2.1.101.0c7; cch=0f3c1;`
	system := func(text string) api.Message { return api.Message{Role: "system", Content: text} }
	hi := `{"role":"user","content":"Hi"}]`
	for fields, want := range map[string][]api.Message{
		`"system":[{"type":"text","text":"` + line + `"},{"type":"text","text":"You write code."}],"messages":[` + hi:  {system("You write code."), user("Hi")},
		`"system":[{"type":"text","text":"` + other + `"},{"type":"text","text":"You write code."}],"messages":[` + hi: {system("You write code."), user("Hi")},
		`"system":"` + line + `\nYou write code.","messages":[` + hi:                                                   {system("You write code."), user("Hi")},
		`"system":"` + line + `","messages":[` + hi:                                                                    {user("Hi")},
		`"messages":[{"role":"system","content":"` + line + `\nYou write code."},` + hi:                                {system("You write code."), user("Hi")},
		// The same words elsewhere are the client's.
		`"system":"Log ` + line + `","messages":[` + hi:                                                    {system("Log " + line), user("Hi")},
		`"messages":[{"role":"user","content":"` + line + `"},{"role":"system","content":"` + line + `"}]`: {user(line + "\n" + line)},
	} {
		r := defaultRequest()
		r.Messages = want
		wantRequest(t, `{"max_tokens":100,`+fields+`}`, &r)
		counted, err := DecodeCount([]byte(`{`+fields+`}`), api.Limits{})
		if err != nil || !reflect.DeepEqual(counted.Messages, want) {
			t.Errorf("count_tokens of %s: %v", fields, err)
		}
	}
}

func TestDecodeTools(t *testing.T) {
	const f, g = `{"name":"f","description":"d","input_schema":{"type": "object","properties":{"a":true,"b":false}}}`, `{"type":"custom","name":"g"}`
	const search, bash = `{"type":"web_search_20250305","name":"web_search","max_uses":5}`, `{"type":"bash_20250124","name":"bash"}`
	both := []api.Tool{{Name: "f", Description: "d", Parameters: []byte(`{"type": "object","properties":{"a":true,"b":false}}`)}, {Name: "g"}}
	for fields, want := range map[string]struct {
		tools    []api.Tool
		choice   api.ToolChoice
		parallel bool
	}{
		`"tools":null,"tool_choice":null`:                           {},
		`"tools":[]`:                                                {},
		`"tools":[],"tool_choice":{"type":"auto"}`:                  {},
		`"tools":[` + f + `,` + g + `]`:                             {both, api.ToolChoice{}, true},
		`"tools":[` + search + `,` + f + `,` + bash + `,` + g + `]`: {both, api.ToolChoice{}, true},
		`"tools":[` + f + `,` + g + `],"tool_choice":{"type":"any","disable_parallel_tool_use":true}`: {
			both, api.ToolChoice{Mode: api.ToolsRequired}, false,
		},
		`"tools":[` + f + `,` + g + `],"tool_choice":{"type":"tool","name":"g"}`: {both, api.ToolChoice{Mode: api.ToolsNamed, Name: "g"}, false},
		`"tools":[` + f + `,` + g + `],"tool_choice":{"type":"none"}`:            {both, api.ToolChoice{Mode: api.ToolsNone}, true},
		// A tool that is left out never refuses the request.
		`"tools":[` + search + `],"tool_choice":{"type":"any"}`:                                          {},
		`"tools":[` + search + `],"tool_choice":{"type":"tool","name":"web_search"}`:                     {},
		`"tools":[` + f + `,` + g + `,` + bash + `],"tool_choice":{"type":"tool","name":"bash"}`:         {both, api.ToolChoice{}, true},
		`"tools":[{"type":"computer_20250124","name":"computer","display_width_px":1,"input_schema":7}]`: {},
	} {
		r := defaultRequest()
		r.Tools, r.ToolChoice, r.ParallelToolCalls = want.tools, want.choice, want.parallel
		wantRequest(t, bodyStart+","+fields+"}", &r)
	}
}

// The body of a client that writes code: every field that it has is taken or harmless.
func TestDecodeClaudeCode(t *testing.T) {
	body, err := os.ReadFile("testdata/claude_code.json")
	if err != nil {
		t.Fatal(err)
	}
	r, failure := Messages.Decode(body, api.Limits{})
	if failure != nil {
		t.Fatal(failure)
	}
	if len(r.Tools) != 3 || r.Tools[0].Name != "Bash" || r.Tools[2].Name != "mcp__issues__search" || !r.ParallelToolCalls {
		t.Errorf("tools %+v", r.Tools)
	}
	if !strings.Contains(string(r.Tools[0].Parameters), `"required": ["command"]`) {
		t.Errorf("schema %s", r.Tools[0].Parameters)
	}
	if !r.Stream || *r.MaxNewTokens != 32000 || string(r.TemplateOptions) != `{"enable_thinking":true}` {
		t.Errorf("%s", describe(r))
	}
	want := []api.Message{
		{Role: "system", Content: "You help with the code in this folder.\nPlatform: linux"},
		user("<system-reminder>\nThe list of tasks is empty.\n</system-reminder>\nWhy does the build fail?"),
		{Role: "assistant", Content: "I'll look at the log and the makefile.", Reasoning: "The log will tell.", ToolCalls: []api.ToolCall{
			{ID: "call_1", Name: "Bash", Arguments: `{"command": "make 2>&1 | tail"}`}, {ID: "call_2", Name: "Read", Arguments: `{"file_path": "/src/Makefile"}`},
		}},
		{Role: "tool", Name: "Bash", ToolCallID: "call_1", Content: "cc: not found"},
		{Role: "tool", Name: "Read", ToolCallID: "call_2", Content: "all:\n\tcc main.c"},
		user("<system-reminder>Be brief.</system-reminder>"),
	}
	if !reflect.DeepEqual(r.Messages, want) {
		t.Errorf("got\n%+v\nwant\n%+v", r.Messages, want)
	}
}

func wantRequest(t *testing.T, body string, want *api.Request) {
	t.Helper()
	got, err := Messages.Decode([]byte(body), api.Limits{})
	if err != nil {
		t.Errorf("%s: %v", body, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s", body, describe(got), describe(want))
	}
}

// describe prints a request with what its pointers point to.
func describe(r *api.Request) string {
	var b strings.Builder
	v := reflect.ValueOf(*r)
	for i := range v.NumField() {
		field := v.Field(i)
		if field.IsZero() {
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		fmt.Fprintf(&b, "%s=%+v ", v.Type().Field(i).Name, field.Interface())
	}
	return b.String()
}

// refusals are bodies, and the field that their error blames.
type refusals map[string]string

// smallLimits are those of the tests of refusals.
var smallLimits = api.Limits{PromptBytes: 200, SchemaBytes: 100}

func wantRefusals(t *testing.T, list refusals) {
	t.Helper()
	for body, param := range list {
		r, err := Messages.Decode([]byte(body), smallLimits)
		if err == nil {
			t.Errorf("%.300s: taken as %s", body, describe(r))
			continue
		}
		if err.Type != api.TypeInvalidRequest || err.Param != param || len(err.Message) > 600 {
			t.Errorf("%.300s: param %q, want %q: %v", body, err.Param, param, err)
		}
		if param != "" && !strings.Contains(err.Message, strings.Split(param, ".")[0]) && !strings.Contains(err.Message, "not valid JSON") {
			t.Errorf("%.300s: the message doesn't name the field: %s", body, err.Message)
		}
		if strings.HasSuffix(strings.TrimSpace(err.Message), "must be") {
			t.Errorf("%.300s: the message doesn't say what %s must be: %s", body, param, err.Message)
		}
	}
}

func TestRefusedParameters(t *testing.T) {
	for field, bad := range map[string][]string{
		"model":             {"7", "[]", `"` + long(api.MaxNameBytes+1) + `"`, `"a:` + long(api.MaxNameBytes+1) + `"`},
		"temperature":       {"-0.1", "1.1", "1e400", `"hot"`, "true"},
		"top_p":             {"-0.1", "1.01", "{}"},
		"top_k":             {"-1", "1001", "0.5", `"1"`},
		"stop_sequences":    {`[""]`, `["a",""]`, "7", `[null]`, `["1","2","3","4","5","6","7","8","9"]`, `["` + long(api.MaxStopBytes+1) + `"]`},
		"stream":            {`"true"`, "1"},
		"timings_per_token": {"1"},
		"tools":             {"7", "{}", `"f"`},
		"tool_choice":       {`"auto"`, "[]", `{"type":"any"}`},
		"thinking":          {"true", `"enabled"`},
		"output_config":     {"7", `"json"`},
		"output_format":     {"7"},
		"system":            {"7", "{}"},
	} {
		for _, value := range bad {
			wantRefusals(t, refusals{bodyStart + `,"` + field + `":` + value + `}`: field})
		}
	}
	for _, value := range []string{"null", "0", "-1", "1.5", `"7"`} {
		wantRefusals(t, refusals{`{"messages":[{"role":"user","content":"Hi"}],"max_tokens":` + value + `}`: "max_tokens"})
	}
	wantRefusals(t, refusals{
		`{"messages":[{"role":"user","content":"Hi"}]}`:                                               "max_tokens",
		bodyStart + `,"stream_options":{"resume":601}}`:                                               "stream_options.resume",
		bodyStart + `,"stream_options":{"resume":-1}}`:                                                "stream_options.resume",
		bodyStart + `,"stream_options":true}`:                                                         "stream_options",
		bodyStart + `,"thinking":{}}`:                                                                 "thinking.type",
		bodyStart + `,"thinking":{"type":"often"}}`:                                                   "thinking.type",
		bodyStart + `,"output_config":{"format":"json"}}`:                                             "output_config.format",
		bodyStart + `,"output_config":{"format":{}}}`:                                                 "output_config.format.type",
		bodyStart + `,"output_config":{"format":{"type":"json_object"}}}`:                             "output_config.format.type",
		bodyStart + `,"output_config":{"format":{"type":"json_schema"}}}`:                             "output_config.format.schema",
		bodyStart + `,"output_config":{"format":{"type":"json_schema","schema":true}}}`:               "output_config.format.schema",
		bodyStart + `,"output_format":{"type":"json_schema","schema":{"title":"` + long(200) + `"}}}`: "output_format.schema",
		bodyStart + `,"system":[{"type":"text"}]}`:                                                    "system.0.text",
		bodyStart + `,"system":[{"type":"text","text":"a"},{"type":"image"}]}`:                        "system.1.type",
		bodyStart + `,"system":[{"text":"a"}]}`:                                                       "system.0.type",
		bodyStart + `,"system":[null]}`:                                                               "system.0.type",
		bodyStart + `,"system":["a"]}`:                                                                "system.0",
		bodyStart + `,"system":[{"type":"text","text":7}]}`:                                           "system.0.text",
		bodyStart + `,"system":"` + long(200) + `"}`:                                                  "messages",
	})
}

func TestRefusedMessages(t *testing.T) {
	with := func(content string) string {
		return `{"max_tokens":1,"messages":[{"role":"user","content":` + content + `}]}`
	}
	by := func(content string) string {
		return `{"max_tokens":1,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":` + content + `},{"role":"user","content":"b"}]}`
	}
	result := `{"type":"tool_result","tool_use_id":"1"},`
	wantRefusals(t, refusals{
		`{"max_tokens":1}`:                                                             "messages",
		`{"max_tokens":1,"messages":null}`:                                             "messages",
		`{"max_tokens":1,"messages":[]}`:                                               "messages",
		`{"max_tokens":1,"messages":"Hi"}`:                                             "messages",
		`{"max_tokens":1,"messages":{}}`:                                               "messages",
		`{"max_tokens":1,"messages":["Hi"]}`:                                           "messages.0",
		`{"max_tokens":1,"messages":[null]}`:                                           "messages.0.role",
		`{"max_tokens":1,"messages":[{"content":"Hi"}]}`:                               "messages.0.role",
		`{"max_tokens":1,"messages":[{"role":7}]}`:                                     "messages.0.role",
		`{"max_tokens":1,"messages":[{"role":"tool"}]}`:                                "messages.0.role",
		`{"max_tokens":1,"messages":[{"role":"system"}]}`:                              "messages.0.content",
		`{"max_tokens":1,"messages":[{"role":"system","content":"a"}]}`:                "messages",
		`{"max_tokens":1,"messages":[{"role":"system","content":[{"type":"image"}]}]}`: "messages.0.content.0.type",
		`{"max_tokens":1,"messages":[{"role":"system","content":7}]}`:                  "messages.0.content",
		`{"max_tokens":1,"messages":[{"role":"user"}]}`:                                "messages.0.content",
		with(`null`):                          "messages.0.content",
		with(`7`):                             "messages.0.content",
		with(`{"type":"text","text":"a"}`):    "messages.0.content",
		with(`["a"]`):                         "messages.0.content.0",
		with(`[{}]`):                          "messages.0.content.0.type",
		with(`[null]`):                        "messages.0.content.0.type",
		with(`[{"type":"text"}]`):             "messages.0.content.0.text",
		with(`[{"type":"text","text":null}]`): "messages.0.content.0.text",
		with(`[{"type":"text","text":"a"},{"type":"text","text":7}]`):                                "messages.0.content.1.text",
		with(`[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"eA=="}}]`): "messages.0.content.0.type",
		with(`[{"type":"document","source":{"type":"text","data":"x"}}]`):                            "messages.0.content.0.type",
		with(`[{"type":"search_result"}]`):                                                           "messages.0.content.0.type",
		with(`[{"type":"tool_use","id":"1","name":"f","input":{}}]`):                                 "messages.0.content.0.type",
		with(`[{"type":"thinking","thinking":"a"}]`):                                                 "messages.0.content.0.type",
		with(`[{"type":"tool_result"}]`):                                                             "messages.0.content.0.tool_use_id",
		with(`[{"type":"tool_result","tool_use_id":7}]`):                                             "messages.0.content.0.tool_use_id",
		with(`[{"type":"tool_result","tool_use_id":"1","content":7}]`):                               "messages.0.content.0.content",
		with(`[{"type":"tool_result","tool_use_id":"1","content":[{"type":"image"}]}]`):              "messages.0.content.0.content.0.type",
		with(`[{"type":"tool_result","tool_use_id":"1","content":[{"type":"text"}]}]`):               "messages.0.content.0.content.0.text",
		with(`[{"type":"tool_result","tool_use_id":"1","content":["a"]}]`):                           "messages.0.content.0.content.0",
		by(`[{"type":"tool_result","tool_use_id":"1"}]`):                                             "messages.1.content.0.type",
		by(`[{"type":"server_tool_use","id":"1","name":"web_search","input":{}}]`):                   "messages.1.content.0.type",
		by(`[{"type":"tool_use","name":"f"}]`):                                                       "messages.1.content.0.id",
		by(`[{"type":"tool_use","id":"1"}]`):                                                         "messages.1.content.0.name",
		by(`[{"type":"tool_use","id":"1","name":"a b"}]`):                                            "messages.1.content.0.name",
		by(`[{"type":"tool_use","id":"1","name":"f","input":"{}"}]`):                                 "messages.1.content.0.input",
		by(`[{"type":"thinking"}]`):                                                                  "messages.1.content.0.thinking",
		// The answer would go on with the last message.
		begun(``, `,"tools":[{"name":"f"}],"tool_choice":{"type":"any"}`):                           "messages",
		begun(`b`, `,"tools":[{"name":"f"}],"tool_choice":{"type":"any"}`):                          "messages",
		begun(`b`, `,"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}`): "messages",
		begun(``, ``): "messages",
		`{"max_tokens":1,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"},{"type":"tool_use","id":"1","name":"f"}]}]}`: "messages",
		// limits
		`{"max_tokens":1,"messages":[{"role":"user","content":"` + long(150) + `"},{"role":"assistant","content":"` + long(51) + `"},{"role":"user","content":""}]}`: "messages",
		with(`[{"type":"tool_result","tool_use_id":"1","content":"` + long(200) + `"}]`):                                                                             "messages",
		by(`[{"type":"thinking","thinking":"` + long(200) + `"}]`):                                                                                                   "messages",
		by(`[{"type":"tool_use","id":"1","name":"f","input":{"a":"` + long(200) + `"}}]`):                                                                            "messages",
	})
	turn := `{"role":"user","content":""},`
	wantRefusalOfLarge(t, `{"max_tokens":1,"messages":[`+strings.Repeat(turn, api.MaxMessages)+strings.TrimSuffix(turn, ",")+`]}`, "messages")
	wantRefusalOfLarge(t, with(`[`+strings.Repeat(result, api.MaxMessages)+strings.TrimSuffix(result, ",")+`]`), "messages")
	calls := strings.TrimSuffix(strings.Repeat(`{"type":"tool_use","id":"1","name":"f"},`, api.MaxToolCalls+1), ",")
	wantRefusalOfLarge(t, by("["+calls+"]"), fmt.Sprintf("messages.1.content.%d", api.MaxToolCalls))
}

// wantRefusalOfLarge is for bodies that are refused for another reason than their length.
func wantRefusalOfLarge(t *testing.T, body, param string) {
	t.Helper()
	if _, err := Messages.Decode([]byte(body), api.Limits{}); err == nil || err.Param != param {
		t.Errorf("%.80s: %v", body, err)
	}
}

func TestRefusedTools(t *testing.T) {
	tools := func(list string) string { return bodyStart + `,"tools":[` + list + `]}` }
	many := strings.Repeat(`{"type":"bash_20250124","name":"bash"},`, api.MaxTools)
	wantRefusals(t, refusals{
		tools(`7`):                                                                  "tools.0",
		tools(`{}`):                                                                 "tools.0.name",
		tools(`{"name":"a b"}`):                                                     "tools.0.name",
		tools(`{"name":"` + long(129) + `"}`):                                       "tools.0.name",
		tools(`{"name":"f"},{"name":"f"}`):                                          "tools.1.name",
		tools(`{"name":"f","description":7}`):                                       "tools.0.description",
		tools(`{"name":"f","input_schema":true}`):                                   "tools.0.input_schema",
		tools(`{"name":"f","input_schema":"object"}`):                               "tools.0.input_schema",
		tools(many + `{"name":"f"}`):                                                "tools",
		tools(`{"name":"f","description":"` + long(200) + `"}`):                     "messages",
		bodyStart + `,"tool_choice":{"type":"any"}}`:                                "tool_choice",
		bodyStart + `,"tool_choice":{}}`:                                            "tool_choice.type",
		bodyStart + `,"tool_choice":{"type":"required"}}`:                           "tool_choice.type",
		bodyStart + `,"tool_choice":{"type":"tool","name":"f"}}`:                    "tool_choice.name",
		bodyStart + `,"tools":[{"name":"g"}],"tool_choice":{"type":"tool"}}`:        "tool_choice.name",
		bodyStart + `,"tool_choice":{"type":"auto","disable_parallel_tool_use":1}}`: "tool_choice.disable_parallel_tool_use",
	})
}

func TestRefusedBodies(t *testing.T) {
	wantRefusals(t, refusals{
		``:                                     "",
		`null`:                                 "",
		`[]`:                                   "",
		`{`:                                    "",
		bodyStart:                              "",
		bodyStart + `}}`:                       "",
		bodyStart + `,"top_k":1,"top_k":2}`:    "",
		bodyStart + `,"future":{"a":1,"a":2}}`: "",
		bodyStart + `,"future":"` + "\xff" + `"}`:                                                         "",
		bodyStart + `,"future":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`:                "",
		`{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}]}`: "",
		`{"max_tokens":1,"messages":[{"role":"user","content":"\ud800"}]}`:                                "messages.0.content",
	})
}

// begun is a body that ends with a text of the assistant.
func begun(text, fields string) string {
	return `{"max_tokens":100,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"` + text + `"}]` + fields + `}`
}

// The answer goes on with a last text of the assistant.
func TestDecodeBegunAnswers(t *testing.T) {
	for body, options := range map[string]string{
		begun("b ", ""): `{"enable_thinking":false,"continue_final_message":true}`,
		begun("b ", `,"thinking":{"type":"adaptive"}`): `{"enable_thinking":true,"continue_final_message":true}`,
	} {
		r := defaultRequest()
		r.Messages, r.TemplateOptions = []api.Message{user("a"), assistant("b ")}, []byte(options)
		wantRequest(t, body, &r)
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestDecodeCount(t *testing.T) {
	// What the prompt is made of, also where it ends with the assistant. Anything else is ignored.
	body := `{"model":"demo:v1","system":"s","max_tokens":0,"temperature":9,"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}],
		"tools":[{"name":"f"}],"thinking":{"type":"enabled","budget_tokens":1024}}`
	got, err := DecodeCount([]byte(body), api.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := &api.Request{
		Model: "demo", Version: "v1", Messages: []api.Message{{Role: "system", Content: "s"}, user("Hi"), assistant("Hello")}, SplitOutput: true,
		Tools: []api.Tool{{Name: "f"}}, ParallelToolCalls: true, TemplateOptions: []byte(`{"enable_thinking":true,"continue_final_message":true}`),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", describe(got), describe(want))
	}
	if _, err := DecodeCount([]byte(`{"messages":[]}`), api.Limits{}); err == nil || err.Param != "messages" {
		t.Errorf("no messages: %v", err)
	}
	if got := string(AppendCount(nil, 2095)); got != `{"input_tokens":2095}` {
		t.Error(got)
	}
}

func FuzzDecode(f *testing.F) {
	fixture, err := os.ReadFile("testdata/claude_code.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fixture)
	f.Add([]byte(bodyStart + `}`))
	f.Add([]byte(bodyStart + `,"system":[{"type":"text","text":"a"}],"stop_sequences":["x"],"tool_choice":{"type":"any"}}`))
	f.Add([]byte(`{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":[{"type":"image"}]}]}]}`))
	limits := api.Limits{PromptBytes: 4096, SchemaBytes: 1024}
	f.Fuzz(func(t *testing.T, body []byte) {
		if counted, err := DecodeCount(body, limits); (counted == nil) == (err == nil) {
			t.Fatalf("%+v, %+v", counted, err)
		}
		r, e := Messages.Decode(body, limits)
		if e != nil {
			if r != nil || e.Status() != 400 || e.Message == "" || len(e.Message) > 1000 {
				t.Fatalf("%+v, %+v", r, e)
			}
			checkJSON(t, Messages.AppendError(nil, e, "id"))
			return
		}
		checkInvariants(t, r, limits)
	})
}

// checkInvariants checks what later code relies on.
func checkInvariants(t *testing.T, r *api.Request, limits api.Limits) {
	t.Helper()
	n := len(r.Messages)
	if n == 0 || n > api.MaxMessages || r.Messages[n-1].Role == "assistant" && !isBegun(r) || r.Prompt != "" || len(r.Stop) > api.MaxStops || len(r.Tools) > api.MaxTools {
		t.Fatalf("%s", describe(r))
	}
	if r.TextBytes()-len(r.JSONSchema)-len(r.TemplateOptions) > limits.PromptBytes || len(r.JSONSchema) > limits.SchemaBytes {
		t.Fatalf("too long: %s", describe(r))
	}
	if *r.MaxNewTokens < 1 || *r.MaxNewTokens > api.MaxNewTokens || !r.FitContext || !r.PlainSampling || !r.SplitOutput {
		t.Fatalf("%s", describe(r))
	}
	for i, m := range r.Messages {
		for _, call := range m.ToolCalls {
			if m.Role != "assistant" || !api.IsToolName(call.Name) || jsontext.Value(call.Arguments).Kind() != '{' || !jsontext.Value(call.Arguments).IsValid() {
				t.Fatalf("%+v", m)
			}
		}
		if (m.Role == "tool") != (m.ToolCallID != "") || m.Role == "system" && i > 0 {
			t.Fatalf("%+v", m)
		}
		// Two tool messages may follow each other, two of one speaker never.
		if i > 0 && m.Role != "tool" && m.Role == r.Messages[i-1].Role {
			t.Fatalf("%s twice: %s", m.Role, describe(r))
		}
	}
	for _, tool := range r.Tools {
		if !api.IsToolName(tool.Name) || len(tool.Parameters) > 0 && jsontext.Value(tool.Parameters).Kind() != '{' {
			t.Fatalf("%+v", tool)
		}
	}
}
