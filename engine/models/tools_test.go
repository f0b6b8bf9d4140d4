package models

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func tool(name string) string {
	return fmt.Sprintf(`{"type":"function","function":{"name":%q,"description":"d","parameters":{"type":"object"}}}`, name)
}

func TestToolsAreRead(t *testing.T) {
	got, err := DecodeTools([]byte("[" + tool("get_weather") + `,{"type":"function","function":{"name":"f","description":null,"parameters":null},"strict":true}]`))
	want := []Tool{{Name: "get_weather", Description: "d", Parameters: json.RawMessage(`{"type":"object"}`)}, {Name: "f"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, none := range []string{"", "[]", "null"} {
		if got, err := DecodeTools([]byte(none)); got != nil || err != nil {
			t.Errorf("%q: %v, %v", none, got, err)
		}
	}
}

func TestToolsThatCannotBeUsed(t *testing.T) {
	many := "[" + strings.Repeat(tool("f")+",", toolsMax) + tool("f") + "]"
	deep := strings.Repeat(`{"a":`, toolNestingMax) + "1" + strings.Repeat("}", toolNestingMax)
	for name, text := range map[string]string{
		"no list":           `{}`,
		"cut off":           `[` + tool("f"),
		"two values":        `[] []`,
		"another type":      `[{"type":"retrieval"}]`,
		"no name":           `[` + tool("") + `]`,
		"blank in a name":   `[` + tool("a b") + `]`,
		"name twice":        `[` + tool("f") + `,` + tool("f") + `]`,
		"too many":          many,
		"too deep":          `[{"type":"function","function":{"name":"f","parameters":` + deep + `}}]`,
		"too large":         `[{"type":"function","function":{"name":"f","description":"` + strings.Repeat("x", toolsBytesMax) + `"}}]`,
		"parameters a list": `[{"type":"function","function":{"name":"f","parameters":[1]}}]`,
	} {
		if got, err := DecodeTools([]byte(text)); err == nil {
			t.Errorf("%s: no error, %d tools", name, len(got))
		}
	}
}

func TestToolChoices(t *testing.T) {
	tools := []Tool{{Name: "f"}}
	for text, want := range map[string]ToolChoice{
		"": {}, `"auto"`: {}, `"none"`: {None: true}, `"required"`: {Required: true}, `{"name":"f"}`: {Required: true, Name: "f"},
		`{"type":"function","function":{"name":"f"}}`: {Required: true, Name: "f"},
	} {
		if got, err := DecodeToolChoice([]byte(text), tools); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{`"any"`, `{"name":"g"}`, `{}`, `7`, ` `, `[`} {
		if got, err := DecodeToolChoice([]byte(text), tools); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
	if _, err := DecodeToolChoice([]byte(`"required"`), nil); err == nil {
		t.Error("a call is required without tools")
	}
}

func TestToolCallsAreRead(t *testing.T) {
	got, err := DecodeToolCalls([]byte(`[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}},{"function":{"name":"g","arguments":{"y":2}}},{"function":{"name":"h","arguments":""}}]`))
	want := []ToolCall{{ID: "1", Name: "f", Arguments: `{"x": 1}`}, {Name: "g", Arguments: `{"y":2}`}, {Name: "h", Arguments: "{}"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"arguments that aren't JSON": `[{"function":{"name":"f","arguments":"{"}}]`,
		"arguments nested too deep":  `[{"function":{"name":"f","arguments":"` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `"}}]`,
		"no name":                    `[{"function":{"arguments":"{}"}}]`,
		"another type":               `[{"type":"custom","function":{"name":"f"}}]`,
	} {
		if _, err := DecodeToolCalls([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTemplateOptions(t *testing.T) {
	for text, ok := range map[string]bool{
		"": true, `{"enable_thinking":false,"x":[1]}`: true, `{}`: true,
		`{"messages":[]}`: false, `{"tools":1}`: false, `{"a b":1}`: false, `null`: false, `[]`: false, `{`: false,
	} {
		if err := CheckTemplateOptions([]byte(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Whether an answer goes on with the last message isn't for the template.
func TestTemplateOptionsSayWhetherAnAnswerGoesOn(t *testing.T) {
	for text, want := range map[string]struct {
		rest   string
		goesOn bool
		ok     bool
	}{
		"": {"", false, true}, `{"a":1}`: {`{"a":1}`, false, true},
		`{"continue_final_message":true}`:                {"", true, true},
		`{"a":[1],"continue_final_message":false,"b":2}`: {`{"a":[1],"b":2}`, false, true},
		`{"a":"continue_final_message"}`:                 {`{"a":"continue_final_message"}`, false, true},
		`{"continue_final_message":null}`:                {"", false, true},
		`{"continue_final_message":"content"}`:           {"", false, false},
		`{"continue_final_message":true,"messages":[]}`:  {"", false, false},
	} {
		rest, goesOn, err := DecodeTemplateOptions([]byte(text))
		if (err == nil) != want.ok || want.ok && (string(rest) != want.rest || goesOn != want.goesOn) {
			t.Errorf("%s: %s, %v, %v", text, rest, goesOn, err)
		}
	}
}

// What was read stays within the bounds, and its JSON is JSON.
func FuzzTools(f *testing.F) {
	f.Add([]byte("["+tool("f")+"]"), []byte(`"required"`), []byte(`[{"function":{"name":"f","arguments":"{}"}}]`), []byte(`{"a":1}`))
	f.Fuzz(func(t *testing.T, tools, choice, calls, options []byte) {
		list, err := DecodeTools(tools)
		if err != nil {
			list = nil
		}
		for _, tool := range list {
			if tool.Parameters != nil && !json.Valid(tool.Parameters) || len(tool.Name) > toolNameMax {
				t.Errorf("%+v", tool)
			}
		}
		if c, err := DecodeToolChoice(choice, list); err == nil && c.Required && len(list) == 0 {
			t.Errorf("%s: a call without tools", choice)
		}
		read, err := DecodeToolCalls(calls)
		for _, c := range read {
			if err == nil && (!json.Valid([]byte(c.Arguments)) || c.Name == "") {
				t.Errorf("%+v", c)
			}
		}
		if CheckTemplateOptions(options) == nil && len(options) > 0 && !json.Valid(options) {
			t.Errorf("%q", options)
		}
	})
}
