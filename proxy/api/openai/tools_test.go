package openai

import (
	"testing"

	"tandem/proxy/api"
)

func TestDecodeTools(t *testing.T) {
	weather := api.Tool{Name: "get_weather", Description: "Now", Parameters: []byte(`{"type":"object","properties":{"a":true,"b":false}}`), Strict: true}
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

const aTool = `{"type":"function","function":{"name":"f"}}`
