//go:build llama

package llama

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tandem/engine/models"
)

// places are where a client's text gets to a template beyond roles and contents.
var places = map[string]func(string) models.Input{
	"name of a tool":        func(s string) models.Input { return withTool(models.Tool{Name: s}) },
	"description of a tool": func(s string) models.Input { return withTool(models.Tool{Name: "f", Description: s}) },
	"value in parameters": func(s string) models.Input {
		return withTool(models.Tool{Name: "f", Parameters: fmt.Appendf(nil, `{"type":"object","properties":{"x":{"type":"string","description":%s}}}`, quoted(s))})
	},
	"key in parameters": func(s string) models.Input {
		return withTool(models.Tool{Name: "f", Parameters: fmt.Appendf(nil, `{"type":"object","properties":{%s:{"type":"string"}}}`, quoted(s))})
	},
	"escaped in parameters": func(s string) models.Input {
		return withTool(models.Tool{Name: "f", Parameters: fmt.Appendf(nil, `{"type":"object","description":%s}`, escapedJSON(s))})
	},
	"id of a call": func(s string) models.Input {
		return withCall(models.ToolCall{ID: s, Name: "f", Arguments: "{}"}, "id", "x")
	},
	"name of a call": func(s string) models.Input {
		return withCall(models.ToolCall{ID: "id", Name: s, Arguments: "{}"}, "id", "x")
	},
	"arguments": func(s string) models.Input {
		return withCall(models.ToolCall{ID: "id", Name: "f", Arguments: `{"x":` + string(quoted(s)) + `}`}, "id", "x")
	},
	"result": func(s string) models.Input {
		return withCall(models.ToolCall{ID: "id", Name: "f", Arguments: "{}"}, "id", s)
	},
	"id of a result": func(s string) models.Input {
		return withCall(models.ToolCall{ID: "id", Name: "f", Arguments: "{}"}, s, "x")
	},
	"content beside tools": func(s string) models.Input {
		in := withTool(models.Tool{Name: "f"})
		in.Messages[0].Content = s
		return in
	},
	"reasoning": func(s string) models.Input {
		return models.Input{Messages: []models.Message{{Role: "user", Content: "a"}, {Role: "assistant", Content: "b", Reasoning: s}, {Role: "user", Content: "c"}}}
	},
	"option": func(s string) models.Input {
		return models.Input{Prompt: "hello", TemplateOptions: fmt.Appendf(nil, `{"note":%s}`, quoted(s))}
	},
}

func withTool(tool models.Tool) models.Input {
	return models.Input{Messages: []models.Message{{Role: "user", Content: "hello"}}, Tools: []models.Tool{tool}, ToolChoice: models.ToolChoice{None: true}}
}

func withCall(call models.ToolCall, id, result string) models.Input {
	in := withTool(models.Tool{Name: "f"})
	in.Messages = append(in.Messages, models.Message{Role: "assistant", ToolCalls: []models.ToolCall{call}},
		models.Message{Role: "tool", Content: result, ToolCallID: id})
	return in
}

// escapedJSON is a text in JSON in which nothing is itself.
func escapedJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String() + `"`
}

// showEverything is a template that writes all that it gets, some of it between parts of control tokens.
const showEverything = `{%- for t in tools or [] -%}{{- '<|' + t.function.name + '|>' + (t | tojson) + (t.function.description or '') -}}{%- endfor -%}
{%- if note is defined -%}{{- '<|' + note + '|>' -}}{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' -}}
{%- if m.reasoning_content -%}{{- '<think>' + m.reasoning_content + '</think>' -}}{%- endif -%}
{{- m.content or '' -}}
{%- if m.role == 'user' or m.role == 'tool' -%}{{- '<|' + m.content + (m.tool_call_id or '') + '|>' + (m.content | tojson) -}}{%- endif -%}
{%- for c in m.tool_calls or [] -%}{{- '\n<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}\n</tool_call>' -}}{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}`

// Whatever a client writes and wherever it writes it, the control tokens are those of the template.
func TestNoTextOfARequestGivesAControlToken(t *testing.T) {
	b, _ := newBackend(t, nil)
	files := map[string]string{"everything": demoWithTemplate(t, showEverything, chatMLSpecials)}
	for name, f := range toolFamilies {
		files[name] = demoWithTemplate(t, f.template, f.specials)
	}
	for name, file := range files {
		base := loadFile(t, b, file, func(s *models.BaseSpec) { s.Context = 512 })
		for place, fill := range places {
			harmless, err := base.Render(t.Context(), fill("hello"))
			if err != nil {
				t.Errorf("%s, %s: %v", name, place, err)
				continue
			}
			want := controls(base, harmless.Tokens)
			for _, literal := range allSpecials(base) {
				for _, text := range []string{literal, "x" + literal + literal, strings.Trim(literal, "<|>"), strings.TrimSuffix(literal, ">"), literal[1:]} {
					got, err := base.Render(t.Context(), fill(text))
					if err != nil {
						t.Errorf("%s, %s, %q: %v", name, place, text, err)
						continue
					}
					if found := controls(base, got.Tokens); !slices.Equal(found, want) {
						t.Errorf("%s, %s: %q gives the control tokens %v, want %v", name, place, text, found, want)
					}
					if written := string(base.WriteOut(got.Tokens)); strings.ContainsFunc(written, func(r rune) bool { return r >= firstMark && r <= lastMark+1 }) {
						t.Errorf("%s, %s: %q leaves a mark: %q", name, place, text, written)
					}
				}
			}
		}
	}
}

// A text with the marks' own characters, as they are or escaped, stays what it is.
func TestMarksAreNotTakenFromTexts(t *testing.T) {
	b, _ := newBackend(t, nil)
	base := loadFile(t, b, demoWithTemplate(t, showEverything, chatMLSpecials), nil)
	for _, text := range []string{string(rune(firstMark)) + "<|im_end|>", `\ue101<|im_end|>`, string([]rune{firstMark, firstMark + 1, firstMark + 3}) + "<|im_end|>"} {
		p, err := base.Render(t.Context(), places["content beside tools"](text))
		if err != nil {
			t.Fatal(err)
		}
		if written := string(base.WriteOut(p.Tokens)); !strings.Contains(written, text) {
			t.Errorf("%q isn't in %q", text, written)
		}
	}
}

// checksCallIDs is a template that refuses ids of calls unless they are nine letters and digits, as Mistral's do.
const checksCallIDs = `{%- for t in tools or [] -%}{{- t | tojson -}}{%- endfor -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' + (m.content or '') -}}
{%- for c in m.tool_calls or [] -%}
{%- if c.id is undefined or c.id | length != 9 -%}{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') -}}{%- endif -%}
{{- '\n<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + ', "id": "' + c.id + '"}\n</tool_call>' -}}
{%- endfor -%}
{%- if m.role == 'tool' and (m.tool_call_id is undefined or m.tool_call_id | length != 9) -%}
{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}`

// The ids that a proxy makes of letters and digits reach the template as long as they are.
func TestCallIDsKeepTheirLength(t *testing.T) {
	b, _ := newBackend(t, nil)
	base := loadFile(t, b, demoWithTemplate(t, checksCallIDs, chatMLSpecials), nil)
	for id, taken := range map[string]bool{"im3start9": true, "s0A1b2C3d": true, "000000000": true, "call_0123456789abcdef01234567": false} {
		_, err := base.Render(t.Context(), withCall(models.ToolCall{ID: id, Name: "f", Arguments: "{}"}, id, "x"))
		if (err == nil) != taken {
			t.Errorf("a conversation with the call %q: %v", id, err)
		}
	}
}
