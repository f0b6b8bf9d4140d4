package responses

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"tandem/proxy/api"
)

func TestDecodeTools(t *testing.T) {
	f := api.Tool{Name: "f", Description: "does f", Parameters: []byte(`{"type":"object","properties":{"a":true,"b":false}}`), Strict: true}
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
