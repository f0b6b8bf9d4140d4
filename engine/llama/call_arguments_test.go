//go:build llama

package llama

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tandem/engine/models"
)

// argumentCase is a property's schema, and values that it allows and forbids. The names of several properties are
// written out.
type argumentCase struct {
	schema        string
	allowed, not  []string
	wholeSchema   bool // schema is that of all arguments, and so are the values
	otherThanText bool // no value may be a string, as the library reads the schema
}

// Keywords that llama.cpp's converter to GBNF leaves out or obeys in part.
var argumentCases = map[string]argumentCase{
	"pattern without anchors": {schema: `{"type":"string","pattern":"[0-9]{3}"}`, allowed: []string{`"a123b"`}, not: []string{`"a12b"`}},
	"pattern":                 {schema: `{"type":"string","pattern":"^[A-Z]{2}$"}`, allowed: []string{`"DE"`}, not: []string{`"de"`, `"DEU"`}},
	"pattern and length":      {schema: `{"type":"string","pattern":"^a*$","maxLength":2}`, allowed: []string{`"aa"`}, not: []string{`"aaa"`}},
	"format email":            {schema: `{"type":"string","format":"email"}`, allowed: []string{`"a@b.org"`}, not: []string{`"nobody"`}},
	"format ipv4":             {schema: `{"type":"string","format":"ipv4"}`, allowed: []string{`"10.0.0.1"`}, not: []string{`"10.0.0"`, `"300.0.0.1"`}},
	"minLength":               {schema: `{"type":"string","minLength":2}`, allowed: []string{`"ab"`}, not: []string{`"a"`}},
	"minimum of numbers": {schema: `{"type":"number","minimum":1.5,"maximum":2.5}`, otherThanText: true,
		allowed: []string{`1.5`, `2`, `2.25`}, not: []string{`1.4`, `2.6`, `-2`}},
	"exclusive bounds beside others": {schema: `{"type":"integer","minimum":1,"exclusiveMinimum":3}`, otherThanText: true,
		allowed: []string{`4`}, not: []string{`3`, `2`}},
	"multipleOf": {schema: `{"type":"integer","multipleOf":5}`, otherThanText: true, allowed: []string{`15`, `0`}, not: []string{`7`}},
	"tuples": {schema: `{"type":"array","prefixItems":[{"type":"integer"},{"type":"boolean"}],"items":false,"minItems":2}`, otherThanText: true,
		allowed: []string{`[1, true]`}, not: []string{`[true, 1]`, `[1]`, `[1, true, 2]`}},
	"items beside prefixItems": {schema: `{"type":"array","prefixItems":[{"type":"boolean"}],"items":{"type":"integer"}}`, otherThanText: true,
		allowed: []string{`[true, 1, 2]`}, not: []string{`[1, 2]`}},
	"patternProperties": {schema: `{"type":"object","patternProperties":{"^n_":{"type":"integer"}},"additionalProperties":false}`, otherThanText: true,
		allowed: []string{`{"n_a": 1}`, `{}`}, not: []string{`{"n_a": "x"}`, `{"m": 1}`}},
	"maxProperties": {schema: `{"type":"object","additionalProperties":{"type":"integer"},"maxProperties":1}`, otherThanText: true,
		allowed: []string{`{"a": 1}`}, not: []string{`{"a": 1, "b": 2}`}},
	"allOf beside properties": {schema: `{"type":"object","properties":{"a":{"type":"integer"}},"allOf":[{"required":["a"]}]}`, otherThanText: true,
		allowed: []string{`{"a": 1}`}, not: []string{`{}`}},
	"allOf of numbers": {schema: `{"allOf":[{"type":"integer","minimum":2},{"type":"integer","maximum":4}]}`, otherThanText: true,
		allowed: []string{`3`}, not: []string{`1`, `5`}},
	"anyOf beside keywords": {schema: `{"type":"integer","anyOf":[{"minimum":10},{"maximum":2}]}`,
		allowed: []string{`12`, `1`}, not: []string{`5`}},
	"enum beside a type": {schema: `{"type":"integer","enum":[1,"two",3]}`, allowed: []string{`3`}, not: []string{`"two"`}},
	"$ref with keywords beside it": {wholeSchema: true,
		schema:  `{"type":"object","$defs":{"n":{"type":"integer","minimum":1}},"properties":{"a":{"$ref":"#/$defs/n","maximum":5}},"required":["a"]}`,
		allowed: []string{`{"a": 3}`}, not: []string{`{"a": 6}`, `{"a": 0}`}},
	"what must be there without being described": {wholeSchema: true,
		schema:  `{"type":"object","properties":{"a":{"type":"integer"}},"required":["a","b"]}`,
		allowed: []string{`{"a": 1, "b": 2}`}, not: []string{`{"a": 1}`}},
}

// toolWith is a tool whose property a has a schema, or whose arguments have it.
func toolWith(c argumentCase) models.Tool {
	if c.wholeSchema {
		return models.Tool{Name: "get_weather", Parameters: []byte(c.schema)}
	}
	return models.Tool{Name: "get_weather", Parameters: []byte(`{"type":"object","properties":{"a":` + c.schema + `},"required":["a"]}`)}
}

func requireTool(t *testing.T, base *Base, tools ...models.Tool) models.Prompt {
	t.Helper()
	in := askWeather()
	in.Tools, in.ToolChoice = tools, models.ToolChoice{Required: true}
	in.TemplateOptions = []byte(`{"enable_thinking": false}`)
	prompt, err := base.Render(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return prompt
}

func TestArgumentsFollowTheirSchema(t *testing.T) {
	bases, _ := loadFamilies(t)
	for family, base := range bases {
		for name, c := range argumentCases {
			t.Run(family+"/"+name, func(t *testing.T) {
				prompt := requireTool(t, base, toolWith(c), models.Tool{Name: "get_time"})
				for _, list := range []struct {
					values []string
					want   bool
				}{{c.allowed, true}, {c.not, false}} {
					for _, value := range list.values {
						if !c.wholeSchema {
							value = `{"a": ` + value + `}`
						}
						if got := follows(base, prompt, fmt.Sprintf(toolFamilies[family].call, value)); got != list.want {
							t.Errorf("%s: %v", value, got)
						}
					}
				}
			})
		}
	}
}

// taggedCalls is a template whose calls have each argument between tags, as those of Qwen3-Coder.
const taggedCalls = `{%- if tools -%}{{- '<|im_start|>system\n<tools>' -}}{%- for tool in tools -%}{{- '\n' + (tool | tojson) -}}{%- endfor -%}{{- '</tools><|im_end|>\n' -}}{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' -}}
{%- if m.content -%}{{- m.content -}}{%- endif -%}
{%- if m.tool_calls -%}{%- for call in m.tool_calls -%}
{{- '\n<tool_call>\n<function=' + call.function.name + '>\n' -}}
{%- for name, value in call.function.arguments | items -%}
{{- '<parameter=' + name + '>\n' -}}{{- value if value is string else value | tojson -}}{{- '\n</parameter>\n' -}}
{%- endfor -%}{{- '</function>\n</tool_call>' -}}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}`

// Where each argument has tags around it, those that aren't text follow their schema.
func TestTaggedArgumentsFollowTheirSchema(t *testing.T) {
	b, _ := newBackend(t, nil)
	base := loadFile(t, b, demoWithTemplate(t, taggedCalls, chatMLSpecials), nil)
	if !base.Facts().Tools {
		t.Fatal("the template has no form for tools")
	}
	for name, c := range argumentCases {
		if !c.otherThanText || c.wholeSchema {
			continue
		}
		t.Run(name, func(t *testing.T) {
			prompt := requireTool(t, base, toolWith(c))
			for _, list := range []struct {
				values []string
				want   bool
			}{{c.allowed, true}, {c.not, false}} {
				for _, value := range list.values {
					call := "<tool_call>\n<function=get_weather>\n<parameter=a>\n" + value + "\n</parameter>\n</function>\n</tool_call>"
					if got := follows(base, prompt, call); got != list.want {
						t.Errorf("%s: %v", value, got)
					}
				}
			}
		})
	}
	text := requireTool(t, base, models.Tool{Name: "f", Parameters: []byte(`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}`)})
	if !follows(base, text, "<tool_call>\n<function=f>\n<parameter=a>\nsome \"text\"\n</parameter>\n</function>\n</tool_call>") {
		t.Error("an argument that is text isn't allowed")
	}
	other := requireTool(t, base, models.Tool{Name: "f", Strict: true, Parameters: []byte(
		`{"type":"object","properties":{"start":{"type":"object","properties":{"day":{"type":"integer","maximum":31}},"required":["day"]},"end":{"$ref":"#/properties/start"}},"required":["end"]}`)})
	for value, want := range map[string]bool{`{"day":31}`: true, `{"day":32}`: false, `{}`: false} {
		if got := follows(base, other, "<tool_call>\n<function=f>\n<parameter=end>\n"+value+"\n</parameter>\n</function>\n</tool_call>"); got != want {
			t.Errorf("an argument by the schema of another: %s: %v", value, got)
		}
	}
}

// An argument between tags that is one of some texts is one of these.
func TestTaggedTextsAreThoseOfTheirSchema(t *testing.T) {
	b, _ := newBackend(t, nil)
	base := loadFile(t, b, demoWithTemplate(t, taggedCalls, chatMLSpecials), nil)
	const call = "<tool_call>\n<function=set>\n<parameter=a>\n%s\n</parameter>\n<parameter=n>\n5\n</parameter>\n</function>\n</tool_call>"
	for _, c := range []struct {
		schema       string
		allowed, not []string
	}{
		{`{"type":"string","enum":["low","mid range","Zürich"]}`, []string{"low", "mid range", "Zürich"}, []string{"lo", "lower", "low ", `"low"`, "", "low\n", "mid"}},
		{`{"enum":["a","ab"],"description":"d","default":"a"}`, []string{"a", "ab"}, []string{"b", "abb"}},
		{`{"const":"v1.0"}`, []string{"v1.0"}, []string{"v1", "v1.00"}},
		{`{"type":"string","enum":["<b>","a"]}`, []string{"<b>", "other"}, nil}, // a text that could end its tag
		{`{"type":["string","null"],"enum":["a",null]}`, []string{"a", "null"}, nil},
		{`{"anyOf":[{"enum":["a"]},{"type":"string"}]}`, []string{"a", "other"}, nil},
	} {
		tool := models.Tool{Name: "set", Parameters: []byte(`{"type":"object","properties":{"a":` + c.schema + `,"n":{"type":"integer","maximum":7}},"required":["a","n"]}`)}
		for _, strict := range []bool{false, true} {
			tool.Strict = strict
			prompt := requireTool(t, base, tool, models.Tool{Name: "get_time"})
			for want, texts := range map[bool][]string{true: c.allowed, false: c.not} {
				for _, text := range texts {
					if got := follows(base, prompt, fmt.Sprintf(call, text)); got != want {
						t.Errorf("%s, strict %v: %q: %v", c.schema, strict, text, got)
					}
				}
			}
			if follows(base, prompt, strings.Replace(fmt.Sprintf(call, c.allowed[0]), "5", "8", 1)) {
				t.Errorf("%s: the other argument isn't bound", c.schema)
			}
		}
	}
}

// What can't be obeyed leaves the rest bound, unless a client wants it strictly.
func TestSchemasThatCannotBeObeyed(t *testing.T) {
	bases, _ := loadFamilies(t)
	base := bases["tags"]
	for name, keyword := range map[string]string{
		"not": `"not":{"const":3}`, "uniqueItems": `"uniqueItems":true`, "format": `"format":"color"`, "if": `"if":{"const":1},"then":{"maximum":2}`,
		"contains": `"contains":{"const":1}`, "propertyNames": `"propertyNames":{"pattern":"x"}`,
	} {
		tool := models.Tool{Name: "get_weather", Parameters: []byte(
			`{"type":"object","properties":{"a":{"type":"string","maxLength":2,` + keyword + `}},"required":["a"],"additionalProperties":false}`)}
		prompt := requireTool(t, base, tool)
		for value, want := range map[string]bool{`"ab"`: true, `"abc"`: false, `1`: false} {
			if got := follows(base, prompt, fmt.Sprintf(tagCall, `{"a": `+value+`}`)); got != want {
				t.Errorf("%s: %s: %v", name, value, got)
			}
		}
		in := askWeather()
		tool.Strict = true
		in.Tools = []models.Tool{{Name: "other"}, tool}
		_, err := base.Render(t.Context(), in)
		if !errors.Is(err, models.ErrTools) || !strings.Contains(fmt.Sprint(err), "get_weather") || !strings.Contains(fmt.Sprint(err), "/properties/a/"+name) {
			t.Errorf("%s, strictly: %v", name, err)
		}
	}
}

// A schema that can't be followed at all doesn't take the others with it.
func TestOneSchemaThatCannotBeFollowed(t *testing.T) {
	bases, _ := loadFamilies(t)
	base := bases["tags"]
	bad := models.Tool{Name: "get_time", Parameters: []byte(
		`{"type":"object","properties":{"zone":{"type":"string","pattern":"^(?=U)UTC$"},"n":{"type":"integer","multipleOf":1e-9,"maximum":5}},"required":["n"]}`)}
	good := toolWith(argumentCases["multipleOf"])
	prompt := requireTool(t, base, bad, good)
	for arguments, want := range map[string]bool{`{"a": 15}`: true, `{"a": 7}`: false} {
		if got := follows(base, prompt, fmt.Sprintf(tagCall, arguments)); got != want {
			t.Errorf("%s: %v", arguments, got)
		}
	}
	other := strings.Replace(tagCall, "get_weather", "get_time", 1)
	for arguments, want := range map[string]bool{`{"n": 3}`: true, `{"n": 7}`: false, `{"n": "x"}`: false} {
		if got := follows(base, prompt, fmt.Sprintf(other, arguments)); got != want {
			t.Errorf("%s: %v", arguments, got)
		}
	}
}

// Names that aren't described are only allowed where the schema says so.
func TestArgumentsHaveNoOtherNames(t *testing.T) {
	bases, _ := loadFamilies(t)
	base := bases["tags"]
	const properties = `"type":"object","properties":{"a":{"type":"integer"}}`
	for _, c := range []struct {
		schema, arguments string
		want              bool
	}{
		{`{` + properties + `}`, `{"a": 1}`, true},
		{`{` + properties + `}`, `{"a": 1, "b": 2}`, false},
		{`{` + properties + `,"additionalProperties":true}`, `{"a": 1, "b": 2}`, true},
		{`{` + properties + `,"anyOf":[{"required":["a"]}]}`, `{"a": 1, "b": 2}`, false},
		{`{"type":"object","properties":{"x":{` + properties + `}}}`, `{"x": {"a": 1, "b": 2}}`, false},
		{`{"type":"object","properties":{"x":{"type":"object"}}}`, `{"x": {"a": 1, "b": 2}}`, true},
		{`{"type":"object","$defs":{"x":{` + properties + `}},"properties":{"x":{"$ref":"#/$defs/x"}}}`, `{"x": {"a": 1, "b": 2}}`, false},
		{`{"type":"object","allOf":[{` + properties + `},{"properties":{"b":{"type":"integer"}}}]}`, `{"a": 1, "b": 2}`, true},
		{`{"type":"object","properties":{}}`, `{"b": 2}`, false},
		{`{"type":"object"}`, `{"b": 2}`, true},
	} {
		prompt := requireTool(t, base, models.Tool{Name: "get_weather", Parameters: []byte(c.schema)})
		if got := follows(base, prompt, fmt.Sprintf(tagCall, c.arguments)); got != c.want {
			t.Errorf("%s: %s: %v", c.schema, c.arguments, got)
		}
	}
}

// What a client writes isn't taken for the place of arguments.
func TestTextsOfToolsAreNoMarks(t *testing.T) {
	bases, _ := loadFamilies(t)
	base := bases["tags"]
	mark := `{"arguments-of-call":1}`
	prompt := requireTool(t, base,
		models.Tool{Name: "get_weather", Parameters: []byte(`{"type":"object","properties":{"a":{"const":` + mark + `}},"required":["a"]}`)},
		models.Tool{Name: "get_time", Parameters: json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}`)})
	for arguments, want := range map[string]bool{`{"a": ` + mark + `}`: true, `{"a": {"n": 1}}`: false} {
		if got := follows(base, prompt, fmt.Sprintf(tagCall, arguments)); got != want {
			t.Errorf("%s: %v", arguments, got)
		}
	}
}

// A client repeats a call that was cut off within its arguments; the template takes them apart.
func TestCutOffArgumentsOfARepeatedCall(t *testing.T) {
	b, _ := newBackend(t, nil)
	base := loadFile(t, b, demoWithTemplate(t, taggedCalls, chatMLSpecials), nil)
	for arguments, want := range map[string]string{
		`"{\"city\": \"Par"`: `{"city": "Par`,
		`[1,2]`:              `[1,2]`,
		`{"city":"Paris"}`:   `Paris`,
	} {
		in := askWeather()
		in.Messages = append(in.Messages,
			models.Message{Role: "assistant", ToolCalls: []models.ToolCall{{ID: "a", Name: "get_weather", Arguments: arguments}}},
			models.Message{Role: "tool", ToolCallID: "a", Content: "the call was cut off"})
		if got := renderedText(t, base, in); !strings.Contains(got, want) {
			t.Errorf("%s: %q", arguments, got)
		}
	}
}
