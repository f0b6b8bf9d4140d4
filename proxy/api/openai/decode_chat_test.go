package openai

import (
	"strings"
	"testing"

	"tandem/proxy/api"
)

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
