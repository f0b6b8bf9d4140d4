package openai

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tandem/proxy/api"
)

const (
	chatStart       = `{"messages":[{"role":"user","content":"Hi"}]`
	completionStart = `{"prompt":"Hi"`
)

// defaultRequest is what a body without any parameter asks for.
func defaultRequest() api.Request {
	return api.Request{FitContext: true, PlainSampling: true}
}

func user(text string) []api.Message { return []api.Message{{Role: "user", Content: text}} }

func TestDecodeChat(t *testing.T) {
	for body, change := range map[string]func(*api.Request){
		chatStart + `}`: func(*api.Request) {},
		`{"messages":[{"role":"developer","content":"Be brief."},{"role":"system","content":"Be kind."},
		 {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":" b"}],"name":"Ann"},
		 {"role":"assistant","content":null,"tool_calls":null,"function_call":null,"audio":null,"refusal":null},
		 {"role":"assistant"},{"role":"assistant","content":"c","tool_calls":[]},{"role":"user","content":""},{"role":"user","content":[]}]}`: func(r *api.Request) {
			r.Messages = []api.Message{
				{Role: "system", Content: "Be brief."}, {Role: "system", Content: "Be kind."}, {Role: "user", Content: "a b"}, {Role: "assistant"},
				{Role: "assistant"}, {Role: "assistant", Content: "c"}, {Role: "user"}, {Role: "user"},
			}
		},
		chatStart + `,"max_completion_tokens":7,"max_tokens":9}`:               func(r *api.Request) { r.MaxNewTokens = new(7) },
		chatStart + `,"tools":[],"functions":[],"tool_choice":"auto"}`:         func(*api.Request) {},
		chatStart + `,"tools":null,"function_call":"none","tool_choice":null}`: func(*api.Request) {},
		chatStart + `,"logprobs":false,"top_logprobs":0,"audio":null}`:         func(*api.Request) {},
		chatStart + `,"modalities":[ "text" ],"web_search_options":null}`:      func(*api.Request) {},
		chatStart + `,"user":"u","metadata":{"a":"b"},"service_tier":"auto"}`:  func(*api.Request) {},
		chatStart + `,"store":false,"parallel_tool_calls":true,"verbosity":1}`: func(*api.Request) {},
		chatStart + `,"verbosity":"low","prediction":[{"a":null}]}`:            func(*api.Request) {},
	} {
		want := defaultRequest()
		want.Messages, want.SplitOutput = user("Hi"), true
		change(&want)
		wantRequest(t, Chat, body, &want)
	}
}

func TestDecodeTools(t *testing.T) {
	weather := api.Tool{Name: "get_weather", Description: "Now", Parameters: []byte(`{"type":"object","properties":{"a":true,"b":false}}`)}
	other := api.Tool{Name: "f"}
	const tools = `,"tools":[{"type":"function","function":{"name":"get_weather","description":"Now","parameters":{"type":"object","properties":{"a":true,"b":false}},"strict":true}},` + aTool + `]`
	for fields, change := range map[string]func(*api.Request){
		tools:                                  func(*api.Request) {},
		tools + `,"parallel_tool_calls":false`: func(r *api.Request) { r.ParallelToolCalls = false },
		tools + `,"tool_choice":"auto"`:        func(*api.Request) {},
		tools + `,"tool_choice":"none"`:        func(r *api.Request) { r.ToolChoice.Mode = api.ToolsNone },
		tools + `,"tool_choice":"required"`:    func(r *api.Request) { r.ToolChoice.Mode = api.ToolsRequired },
		tools + `,"tool_choice":{"type":"function","function":{"name":"f"}}`: func(r *api.Request) {
			// OpenAI's API calls a named function exactly once, and clients refuse two calls.
			r.ToolChoice, r.ParallelToolCalls = api.ToolChoice{Mode: api.ToolsNamed, Name: "f"}, false
		},
		tools + `,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"f"}}]}}`: func(r *api.Request) {
			r.Tools, r.ToolChoice.Mode = r.Tools[1:], api.ToolsRequired
		},
	} {
		want := defaultRequest()
		want.Messages, want.SplitOutput, want.ParallelToolCalls = user("Hi"), true, true
		want.Tools = []api.Tool{weather, other}
		change(&want)
		wantRequest(t, Chat, chatStart+fields+"}", &want)
	}
}

func TestDecodeMessagesOfTools(t *testing.T) {
	want := defaultRequest()
	want.SplitOutput = true
	want.Messages = []api.Message{
		{Role: "user", Content: "Weather?"},
		{Role: "assistant", Reasoning: "I should look.", ToolCalls: []api.ToolCall{
			{ID: "a", Name: "get_weather", Arguments: `{"city": "Paris"}`}, {ID: "b", Name: "f", Arguments: "{}"}, {Name: "f", Arguments: `{"x":1}`},
			{ID: "c", Name: "f", Arguments: `"{\"cut"`},
		}},
		{Role: "tool", Content: "12 °C", ToolCallID: "a", Name: "get_weather"},
	}
	wantRequest(t, Chat, `{"messages":[{"role":"user","content":"Weather?"},{"role":"assistant","content":null,"reasoning_content":"I should look.","tool_calls":[
		{"id":"a","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Paris\"}"}},
		{"id":"b","type":"function","function":{"name":"f","arguments":""}},{"function":{"name":"f","arguments":{"x":1}}},
		{"id":"c","type":"function","function":{"name":"f","arguments":"{\"cut"}}]},
		{"role":"tool","tool_call_id":"a","name":"get_weather","content":[{"type":"text","text":"12 °C"}]}]}`, &want)
}

func TestDecodeTemplateOptions(t *testing.T) {
	for fields, options := range map[string]string{
		`"reasoning_effort":"low"`:                 `{"reasoning_effort":"low"}`,
		`"reasoning_effort":"none"`:                `{"enable_thinking":false,"reasoning_effort":"none"}`,
		`"enable_thinking":true`:                   `{"enable_thinking":true}`,
		`"chat_template_kwargs":{"b":[1],"a":"x"}`: `{"a":"x","b":[1]}`,
		`"chat_template_kwargs":{"enable_thinking":true},"enable_thinking":false`: `{"enable_thinking":false}`,
		`"chat_template_kwargs":{}`: ``,
	} {
		want := defaultRequest()
		want.Messages, want.SplitOutput = user("Hi"), true
		if options != "" {
			want.TemplateOptions = []byte(options)
		}
		wantRequest(t, Chat, chatStart+","+fields+"}", &want)
	}
}

func TestDecodeLogprobs(t *testing.T) {
	for body, want := range map[string][2]int{ // 1 for wanted, and how many of the most likely
		chatStart + `,"logprobs":true}`:                   {1, 0},
		chatStart + `,"logprobs":true,"top_logprobs":20}`: {1, 20},
		chatStart + `,"logprobs":false}`:                  {0, 0},
	} {
		r, err := Chat.Decode([]byte(body), api.Limits{})
		if err != nil || r.Logprobs != (want[0] == 1) || r.TopLogprobs != want[1] {
			t.Errorf("%s: %+v, %v", body, r, err)
		}
	}
}

func TestDecodePrompts(t *testing.T) {
	for body, change := range map[string]func(*api.Request){
		`{"prompt":[5,0,7]}`:     func(r *api.Request) { r.PromptTokens = []int32{5, 0, 7} },
		`{"prompt":[[5,0],[7]]}`: func(r *api.Request) { r.Inputs = []api.Input{{Tokens: []int32{5, 0}}, {Tokens: []int32{7}}} },
		`{"prompt":["a","b"],"n":2,"best_of":2}`: func(r *api.Request) {
			r.Inputs, r.Choices = []api.Input{{Text: "a"}, {Text: "b"}}, 2
		},
		`{"prompt":["a",[7]]}`:        func(r *api.Request) { r.Inputs = []api.Input{{Text: "a"}, {Tokens: []int32{7}}} },
		`{"prompt":"a","logprobs":5}`: func(r *api.Request) { r.Prompt, r.Logprobs, r.TopLogprobs = "a", true, 5 },
		`{"prompt":"a","echo":true}`:  func(r *api.Request) { r.Prompt, r.Echo = "a", true },
		`{"prompt":"a","echo":true,"logprobs":0,"max_tokens":0}`: func(r *api.Request) {
			r.Prompt, r.Echo, r.Logprobs, r.PromptLogprobs = "a", true, true, true
			r.MaxNewTokens, r.Extra = new(1), completionExtra{promptOnly: true}
		},
		`{"prompt":[7],"echo":true}`: func(r *api.Request) { r.PromptTokens, r.Echo, r.PromptLogprobs = []int32{7}, true, true },
	} {
		want := defaultRequest()
		want.Raw, want.MaxNewTokens, want.Extra = true, new(16), completionExtra{}
		change(&want)
		wantRequest(t, Completions, body, &want)
	}
}

func TestDecodeCompletions(t *testing.T) {
	for body, change := range map[string]func(*api.Request){
		completionStart + `}`:                                      func(*api.Request) {},
		`{"prompt":["Hi"]}`:                                        func(*api.Request) {},
		completionStart + `,"max_tokens":9}`:                       func(r *api.Request) { r.MaxNewTokens = new(9) },
		completionStart + `,"echo":false,"suffix":"","best_of":1}`: func(*api.Request) {},
		completionStart + `,"echo":null,"suffix":null,"best_of":null,"logprobs":null}`: func(*api.Request) {},
	} {
		want := defaultRequest()
		want.Prompt, want.Raw, want.MaxNewTokens, want.Extra = "Hi", true, new(16), completionExtra{}
		change(&want)
		wantRequest(t, Completions, body, &want)
	}
}

// Both endpoints take these alike.
func TestDecodeParameters(t *testing.T) {
	for fields, change := range map[string]func(*api.Request){
		`"model":"demo"`:                  func(r *api.Request) { r.Model = "demo" },
		`"model":"org/demo:v1.0"`:         func(r *api.Request) { r.Model, r.Version = "org/demo", "v1.0" },
		`"model":"demo:base"`:             func(r *api.Request) { r.Model, r.Version = "demo", "base" },
		`"model":"a:b:c"`:                 func(r *api.Request) { r.Model, r.Version = "a", "b:c" }, // 404 later
		`"model":null`:                    func(*api.Request) {},
		`"model":""`:                      func(*api.Request) {},
		`"temperature":0`:                 func(r *api.Request) { r.Temperature = new(float32(0)) },
		`"temperature":2.0`:               func(r *api.Request) { r.Temperature = new(float32(2)) },
		`"temperature":null,"top_p":null`: func(*api.Request) {},
		`"top_p":0.25`:                    func(r *api.Request) { r.TopP = new(float32(0.25)) },
		`"top_p":0`:                       func(r *api.Request) { r.TopP = new(float32(smallestTopP)) },
		`"top_k":40.0,"min_p":0`:          func(r *api.Request) { r.TopK, r.MinP = new(40), new(float32(0)) },
		`"max_tokens":100.0`:              func(r *api.Request) { r.MaxNewTokens = new(100) },
		`"max_tokens":1e30`:               func(r *api.Request) { r.MaxNewTokens = new(api.MaxNewTokens) },
		`"repeat_penalty":1.5`:            func(r *api.Request) { r.RepeatPenalty = new(float32(1.5)) },
		`"repetition_penalty":1.5`:        func(r *api.Request) { r.RepeatPenalty = new(float32(1.5)) },
		`"presence_penalty":-2`:           func(r *api.Request) { r.PresencePenalty = new(float32(-2)) },
		`"frequency_penalty":2`:           func(r *api.Request) { r.FrequencyPenalty = new(float32(2)) },
		`"stop":"x"`:                      func(r *api.Request) { r.Stop = []string{"x"} },
		`"stop":["x","yz"]`:               func(r *api.Request) { r.Stop = []string{"x", "yz"} },
		`"stop":[]`:                       func(*api.Request) {},
		`"stop":null`:                     func(*api.Request) {},
		`"n":1,"logit_bias":{ }`:          func(r *api.Request) { r.Choices = 1 },
		`"n":4.0,"logit_bias":null`:       func(r *api.Request) { r.Choices = 4 },
		`"n":null,"logprobs":null`:        func(*api.Request) {},
		`"ignore_eos":true`:               func(r *api.Request) { r.IgnoreEnd = true },
		`"grammar":"root ::= \"a\""`:      func(r *api.Request) { r.Grammar = `root ::= "a"` },
		`"logit_bias":{"7":-100,"50256":0.5}`: func(r *api.Request) {
			r.LogitBias = []api.TokenBias{{Token: 7, Bias: -100}, {Token: 50256, Bias: 0.5}}
		},
		`"stream":true`:                     func(r *api.Request) { r.Stream = true },
		`"stream":null,"stream_options":{}`: func(*api.Request) {},
		`"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true`: func(r *api.Request) { r.Stream, r.IncludeUsage = true, true },
		`"stream_options":{"include_usage":null}`:                                           func(*api.Request) {},
		`"seed":0`:                          func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"seed":42.0`:                       func(r *api.Request) { r.Seed = new(uint64(42)) },
		`"seed":9007199254740991`:           func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":9007199254740992`:           func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"seed":9223372036854775807`:        func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":-1`:                         func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":-9223372036854775808`:       func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"response_format":null`:            func(*api.Request) {},
		`"response_format":{"type":"text"}`: func(*api.Request) {},
		`"response_format":{"type":"json_object"}`: func(r *api.Request) {
			r.JSONSchema, r.SchemaField = []byte(`{"type":"object"}`), "response_format"
		},
		`"json_schema":{"type":"array"},"response_format":{"type":"text"}`: func(r *api.Request) { r.JSONSchema = []byte(`{"type":"array"}`) },
		`"json_schema":null,"timings_per_token":true`:                      func(r *api.Request) { r.Timings = true },
		`"response_format":{"type":"json_object","schema":{"const":7}}`: func(r *api.Request) {
			r.JSONSchema, r.SchemaField = []byte(`{"const":7}`), "response_format"
		},
		`"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"array"}}}`: func(r *api.Request) {
			r.JSONSchema, r.SchemaField = []byte(`{"type":"array"}`), "response_format"
		},
	} {
		for dialect, start := range map[api.Dialect]string{Chat: chatStart, Completions: completionStart} {
			want := defaultRequest()
			want.Messages, want.SplitOutput = user("Hi"), true
			if dialect == Completions {
				want.Messages, want.SplitOutput, want.Extra = nil, false, completionExtra{}
				want.Prompt, want.Raw, want.MaxNewTokens = "Hi", true, new(16)
			}
			change(&want)
			wantRequest(t, dialect, start+","+fields+"}", &want)
		}
	}
}

func wantRequest(t *testing.T, dialect api.Dialect, body string, want *api.Request) {
	t.Helper()
	got, err := dialect.Decode([]byte(body), api.Limits{})
	if err != nil {
		t.Errorf("%s: %v", body, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %s, want %s", body, describe(got), describe(want))
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
		fmt.Fprintf(&b, "%s=%v ", v.Type().Field(i).Name, field.Interface())
	}
	return b.String()
}

// refusals are bodies, and the field that their error blames.
type refusals map[string]string

const aTool = `{"type":"function","function":{"name":"f"}}`

func TestChatRefusals(t *testing.T) {
	const schemaParam = "response_format.json_schema.schema"
	wantRefusals(t, Chat, refusals{
		`{}`:                "messages",
		`{"messages":null}`: "messages",
		`{"messages":[]}`:   "messages",
		`{"messages":"Hi"}`: "messages",
		`{"messages":{"role":"user","content":"Hi"}}`:                         "messages",
		`{"messages":[null]}`:                                                 "messages[0].role",
		`{"messages":["Hi"]}`:                                                 "messages[0]",
		`{"messages":[{"content":"Hi"}]}`:                                     "messages[0].role",
		`{"messages":[{"role":7,"content":"Hi"}]}`:                            "messages[0].role",
		`{"messages":[{"role":"bot","content":"Hi"}]}`:                        "messages[0].role",
		`{"messages":[{"role":"User","content":"Hi"}]}`:                       "messages[0].role",
		`{"messages":[{"role":"tool","content":"Hi"}]}`:                       "messages[0].tool_call_id",
		`{"messages":[{"role":"function","name":"f","content":"Hi"}]}`:        "messages[0].role",
		`{"messages":[{"role":"user"}]}`:                                      "messages[0].content",
		`{"messages":[{"role":"user","content":null}]}`:                       "messages[0].content",
		`{"messages":[{"role":"user","content":7}]}`:                          "messages[0].content",
		`{"messages":[{"role":"user","content":{}}]}`:                         "messages[0].content",
		`{"messages":[{"role":"user","content":["Hi"]}]}`:                     "messages[0].content[0]",
		`{"messages":[{"role":"user","content":[{}]}]}`:                       "messages[0].content[0].type",
		`{"messages":[{"role":"user","content":[null]}]}`:                     "messages[0].content[0].type",
		`{"messages":[{"role":"user","content":[{"type":"text"}]}]}`:          "messages[0].content[0].text",
		`{"messages":[{"role":"user","content":[{"type":"text","text":7}]}]}`: "messages[0].content[0].text",
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}]}`: "messages[0].content[1].type",
		`{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"1"}]}]}`:                        "messages[1].tool_calls[0].function.name",
		`{"messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"custom"}]}]}`:                                      "messages[0].tool_calls[0].type",
		`{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":7}}]}]}`:                         "messages[0].tool_calls[0].function.arguments",
		`{"messages":[{"role":"user","content":"a"},{"role":"assistant","function_call":{"name":"f"}}]}`:                     "messages[1].function_call",
		`{"messages":[{"role":"user","content":"a"},{"role":"assistant","audio":{"id":"a"}}]}`:                               "messages[1].audio",

		chatStart + `,"max_completion_tokens":0}`:                                                               "max_completion_tokens",
		chatStart + `,"max_completion_tokens":"7"}`:                                                             "max_completion_tokens",
		chatStart + `,"tools":[{"type":"function"}]}`:                                                           "tools[0].function",
		chatStart + `,"tools":[{"type":"custom","custom":{"name":"f"}}]}`:                                       "tools[0].type",
		chatStart + `,"tools":[{"type":"function","function":{"name":"a b"}}]}`:                                 "tools[0].function.name",
		chatStart + `,"tools":[` + aTool + `,` + aTool + `]}`:                                                   "tools[1].function.name",
		chatStart + `,"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]}`:                   "tools[0].function.parameters",
		chatStart + `,"tools":[{"type":"function","function":{"name":"f","description":"` + long(201) + `"}}]}`: "tools",
		chatStart + `,"functions":[{"name":"f"}]}`:                                                              "functions",
		chatStart + `,"tool_choice":"required"}`:                                                                "tool_choice",
		chatStart + `,"tool_choice":"any","tools":[` + aTool + `]}`:                                             "tool_choice",
		chatStart + `,"tool_choice":{"type":"function"}}`:                                                       "tool_choice",
		chatStart + `,"tool_choice":{"type":"function","function":{"name":"g"}},"tools":[` + aTool + `]}`:       "tool_choice.function.name",
		chatStart + `,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"g"}}]}},"tools":[` + aTool + `]}`: "tool_choice.allowed_tools.tools",
		chatStart + `,"chat_template_kwargs":[]}`:         "chat_template_kwargs",
		chatStart + `,"reasoning_effort":7}`:              "reasoning_effort",
		chatStart + `,"logprobs":1}`:                      "logprobs",
		chatStart + `,"top_logprobs":3}`:                  "top_logprobs",
		chatStart + `,"function_call":{"name":"f"}}`:      "function_call",
		chatStart + `,"logprobs":true,"top_logprobs":21}`: "top_logprobs",
		chatStart + `,"top_logprobs":-1}`:                 "top_logprobs",
		chatStart + `,"modalities":["text","audio"]}`:     "modalities",
		chatStart + `,"audio":{"voice":"x"}}`:             "audio",
		chatStart + `,"web_search_options":{"a":1}}`:      "web_search_options",
		chatStart + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"title":"` + long(200) + `"}}}}`:       schemaParam,
		`{"messages":[{"role":"user","content":"` + long(150) + `"},{"role":"user","content":"` + long(51) + `"}]}`:           "messages",
		`{"messages":[` + strings.Repeat(`{"role":"user","content":""},`, api.MaxMessages) + `{"role":"user","content":""}]}`: "messages",
	})
}

func TestCompletionRefusals(t *testing.T) {
	wantRefusals(t, Completions, refusals{
		`{}`:                        "prompt",
		`{"prompt":null}`:           "prompt",
		`{"prompt":""}`:             "prompt",
		`{"prompt":7}`:              "prompt",
		`{"prompt":[]}`:             "prompt",
		`{"prompt":[""]}`:           "prompt",
		`{"prompt":[null]}`:         "prompt",
		`{"prompt":["a",""]}`:       "prompt",
		`{"prompt":[1,-2]}`:         "prompt",
		`{"prompt":[1.5]}`:          "prompt",
		`{"prompt":[1,"a"]}`:        "prompt",
		`{"prompt":[[]]}`:           "prompt",
		`{"prompt":[[3000000000]]}`: "prompt",
		`{"prompt":["` + long(101) + `","` + long(100) + `"]}`: "prompt",
		`{"prompt":["a",7]}`:             "prompt",
		`{"prompt":{"a":"b"}}`:           "prompt",
		`{"prompt":"` + long(201) + `"}`: "prompt",

		completionStart + `,"echo":1}`:                               "echo",
		completionStart + `,"echo":true,"logprobs":1,"stream":true}`: "echo",
		`{"prompt":[1,2],"echo":true,"stream":true}`:                 "echo",
		completionStart + `,"suffix":"x"}`:                           "suffix",
		completionStart + `,"best_of":2}`:                            "best_of",
		completionStart + `,"best_of":"1"}`:                          "best_of",
		completionStart + `,"logprobs":21}`:                          "logprobs",
		`{"prompt":[` + strings.Repeat(`"a",`, 99) + `"a"],"n":32}`:  "n",
	})
}

func TestParameterRefusals(t *testing.T) {
	values := map[string][]string{
		"model":              {"7", "[]", `"` + long(api.MaxNameBytes+1) + `"`, `"a:` + long(api.MaxNameBytes+1) + `"`},
		"max_tokens":         {"0", "-1", "1.5", `"7"`},
		"temperature":        {"-0.1", "2.1", "1e400", `"hot"`, "true"},
		"top_p":              {"-0.1", "1.01"},
		"top_k":              {"-1", "1001", "0.5"},
		"min_p":              {"-0.1", "1.1"},
		"repeat_penalty":     {"0", "-1", "2.5"},
		"repetition_penalty": {"0", "2.5", `"x"`},
		"presence_penalty":   {"-2.1", "2.1"},
		"frequency_penalty":  {"-2.1", "2.1", "{}"},
		"seed":               {"1.5", "9223372036854775808", "-9223372036854775809", `"7"`, "1e400", "-0.5"},
		"stop":               {`""`, `["a",""]`, "7", `[null]`, `["1","2","3","4","5","6","7","8","9"]`, `"` + long(api.MaxStopBytes+1) + `"`},
		"n":                  {"0", "33", "-1", `"1"`},
		"logit_bias":         {`{"50256":-101}`, `[1]`, `{"a":1}`, `{"7":"1"}`, `{"3000000000":1}`},
		"logprobs":           {`"yes"`, "[]"},
		"ignore_eos":         {"1"},
		"grammar":            {"7", `"` + long(201) + `"`},
		"stream":             {`"true"`, "1"},
		"stream_options":     {"true", "[]"},
		"response_format":    {`"json_object"`, "[]"},
		"json_schema":        {"7", "[]", `"x"`, `{"title":"` + long(200) + `"}`},
		"timings_per_token":  {"1"},
	}
	for dialect, start := range map[api.Dialect]string{Chat: chatStart, Completions: completionStart} {
		for field, bad := range values {
			for _, value := range bad {
				wantRefusals(t, dialect, refusals{start + `,"` + field + `":` + value + `}`: field})
			}
		}
		wantRefusals(t, dialect, refusals{
			start + `,"stream_options":{"include_usage":1}}`:                                   "stream_options.include_usage",
			start + `,"response_format":{"type":"json_object"},"json_schema":{}}`:              "json_schema",
			start + `,"response_format":{"type":"json_object","schema":7}}`:                    "response_format.schema",
			start + `,"response_format":{}}`:                                                   "response_format.type",
			start + `,"response_format":{"type":"grammar"}}`:                                   "response_format.type",
			start + `,"response_format":{"type":7}}`:                                           "response_format.type",
			start + `,"response_format":{"type":"json_schema"}}`:                               "response_format.json_schema.schema",
			start + `,"response_format":{"type":"json_schema","json_schema":7}}`:               "response_format.json_schema",
			start + `,"response_format":{"type":"json_schema","json_schema":{"name":"n"}}}`:    "response_format.json_schema.schema",
			start + `,"response_format":{"type":"json_schema","json_schema":{"schema":true}}}`: "response_format.json_schema.schema",
			start + `,"unknown":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`:    "",
			start + `,"temperature":1,"temperature":1}`:                                        "",
			start + `,"temperature":.5}`:                                                       "temperature",
			start + `,"unknown":nope}`:                                                         "",
			start:                                                                              "",
			start + "}}":                                                                       "",
			start + `,"user":"` + "\xff" + `"}`:                                                "",
			``:                                                                                 "",
			`[]`:                                                                               "",
			`"Hi"`:                                                                             "",
		})
	}
}

func wantRefusals(t *testing.T, dialect api.Dialect, list refusals) {
	t.Helper()
	for body, param := range list {
		r, err := dialect.Decode([]byte(body), api.Limits{PromptBytes: 200, SchemaBytes: 200})
		if err == nil {
			t.Errorf("%s was accepted as %s", body, describe(r))
			continue
		}
		if err.Type != api.TypeInvalidRequest || err.Param != param || err.Message == "" {
			t.Errorf("%s: param %q, %v; want param %q", body, err.Param, err, param)
		}
	}
}

func long(bytes int) string { return strings.Repeat("x", bytes) }

func TestMessagesSayWhatToChange(t *testing.T) {
	for body, want := range map[string]string{
		`{"messages":[{"role":"bot","content":"Hi"}]}`:                       `messages[0].role is "bot", but must be system, developer, user, assistant or tool`,
		`{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`:    `content of the type "image_url" is not supported; send parts of the type text`,
		chatStart + `,"tools":[{"type":"function"}]}`:                        `tools[0].function must be an object with a name`,
		chatStart + `,"tool_choice":"required"}`:                             `tool_choice asks for a tool, but tools is empty`,
		chatStart + `,"temperature":3}`:                                      `temperature must be a number from 0 (always the most likely token) to 2`,
		chatStart + `,"n":33}`:                                               `n must be a whole number from 1 to 32`,
		chatStart + `,"user":"a","user":"b"}`:                                `the body has the field "user" twice; send it once`,
		`{"messages":[{"role":"assistant","content":"a","tool_calls":[1]}]}`: `messages[0].tool_calls must be a list of calls of functions`,
	} {
		if _, err := Chat.Decode([]byte(body), api.Limits{}); err == nil || err.Message != want {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestPromptLimitCountsAllMessages(t *testing.T) {
	body := []byte(`{"messages":[{"role":"system","content":"abc"},{"role":"user","content":[{"type":"text","text":"d"},{"type":"text","text":"\u0065"}]}]}`)
	if _, err := Chat.Decode(body, api.Limits{PromptBytes: 5}); err != nil {
		t.Error(err)
	}
	if _, err := Chat.Decode(body, api.Limits{PromptBytes: 4}); err == nil || err.Param != "messages" {
		t.Errorf("over the limit: %v", err)
	}
}

// The HTTP server reuses a body's memory for the next request.
func TestDecodeKeepsNothingOfTheBody(t *testing.T) {
	const parameters = `,"model":"m:v","stop":["s"],"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}}`
	for source, dialect := range map[string]api.Dialect{
		`{"messages":[{"role":"user","content":"plain"},{"role":"user","content":[{"type":"text","text":"part"}]}]` + parameters: Chat,
		completionStart + parameters: Completions,
	} {
		body := []byte(source)
		got, err := dialect.Decode(body, api.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range body {
			body[i] = '#'
		}
		wantRequest(t, dialect, source, got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		chatStart + `,"max_completion_tokens":7,"tools":[],"stop":["a"],"seed":-1,"model":"a:b"}`,
		chatStart + `,"response_format":{"type":"json_schema","json_schema":{"schema":{}}},"stream":true,"stream_options":{"include_usage":true}}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":null}]}`,
		completionStart + `,"max_tokens":100.0,"top_p":0,"temperature":0,"presence_penalty":-2,"logit_bias":{}}`,
		chatStart + `,"tools":[` + aTool + `],"tool_choice":{"type":"function","function":{"name":"f"}},"logprobs":true,"n":2}`,
		`{"messages":[{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}]}`,
		chatStart + `,"chat_template_kwargs":{"a":1},"reasoning_effort":"low","grammar":"root ::= \"a\""}`,
		`{"prompt":["a"],"best_of":1,"echo":true,"logprobs":2,"max_tokens":0}`, `{"prompt":[[1],"a"]}`, `{"messages":[{"role":"user","content":[{"type":"te`, `{"prompt":["a"`,
	} {
		f.Add([]byte(body))
	}
	limits := api.Limits{PromptBytes: 1000, SchemaBytes: 500}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, dialect := range []api.Dialect{Chat, Completions} {
			r, err := dialect.Decode(body, limits)
			if err != nil {
				if r != nil || err.Status() != 400 || err.Message == "" || len(err.Message) > 1000 || len(err.Param) > 200 {
					t.Fatalf("%+v, %+v", r, err)
				}
				checkJSON(t, dialect.AppendError(nil, err, "id"))
				continue
			}
			checkWithinLimits(t, r, limits)
		}
	})
}

func checkWithinLimits(t *testing.T, r *api.Request, limits api.Limits) {
	t.Helper()
	hasPrompt := r.Prompt != "" || len(r.PromptTokens) > 0 || len(r.Inputs) > 0
	between := func(v *float32, low, high float32) bool { return v == nil || *v >= low && *v <= high }
	switch {
	case (len(r.Messages) > 0) == hasPrompt, r.Raw != hasPrompt, len(r.Messages) > api.MaxMessages, r.ChoiceCount() > api.MaxInputs:
		t.Fatalf("neither a conversation nor a raw prompt: %s", describe(r))
	case r.TextBytes()-len(r.JSONSchema)-roleBytes(r) > limits.PromptBytes, len(r.JSONSchema) > limits.SchemaBytes:
		t.Fatalf("too much text: %s", describe(r))
	case len(r.Stop) > api.MaxStops, slices.ContainsFunc(r.Stop, func(s string) bool { return s == "" || len(s) > api.MaxStopBytes }):
		t.Fatalf("stops %q", r.Stop)
	case len(r.Model) > api.MaxNameBytes, len(r.Version) > api.MaxNameBytes:
		t.Fatalf("names %q, %q", r.Model, r.Version)
	case !between(r.Temperature, 0, api.MaxTemperature), !between(r.TopP, smallestTopP, 1), !between(r.MinP, 0, 1),
		!between(r.RepeatPenalty, 1e-45, api.MaxPenalty), !between(r.PresencePenalty, -api.MaxPenalty, api.MaxPenalty),
		!between(r.FrequencyPenalty, -api.MaxPenalty, api.MaxPenalty), r.TopK != nil && *r.TopK > api.MaxTopK,
		r.Seed != nil && *r.Seed > api.MaxSeed, r.MaxNewTokens != nil && (*r.MaxNewTokens < 1 || *r.MaxNewTokens > api.MaxNewTokens):
		t.Fatalf("out of range: %s", describe(r))
	}
}

func roleBytes(r *api.Request) (n int) {
	for _, m := range r.Messages {
		n += len(m.Role)
	}
	return n
}

func BenchmarkDecodeChat(b *testing.B) {
	body := []byte(`{"model":"demo:v1.0","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"` +
		strings.Repeat("What is the capital of France? ", 30) + `"}],"max_tokens":32,"temperature":0.7,"stop":["\n"]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Chat.Decode(body, api.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
