//go:build llama

package llama

import "tandem/engine/models"

// Chat templates with tools, small ones of our own in the forms that families of models use.

var chatMLSpecials = []string{"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|box_start|>", "<|object_ref|>"}

// chatMLWithCalls has tools as JSON lines and calls between tags; think: reasoning between tags, too.
func chatMLWithCalls(think bool) string {
	reasoning := ""
	if think {
		reasoning = `{%- if m.reasoning_content -%}{{- '<think>\n' + m.reasoning_content + '\n</think>\n\n' -}}{%- endif -%}`
	}
	return `{%- if tools -%}
{{- '<|im_start|>system\n' -}}
{%- if messages[0].role == 'system' -%}{{- messages[0].content + '\n' -}}{%- endif -%}
{{- 'Tools:\n' -}}
{%- for tool in tools -%}{{- (tool | tojson) + '\n' -}}{%- endfor -%}
{{- 'Write <tool_call>{"name": …, "arguments": …}</tool_call>.<|im_end|>\n' -}}
{%- elif messages[0].role == 'system' -%}
{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' -}}
{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' -}}
{%- elif m.role == 'assistant' -%}
{{- '<|im_start|>assistant\n' -}}` + reasoning + `
{%- if m.content -%}{{- m.content -}}{%- endif -%}
{%- if m.tool_calls -%}{%- for call in m.tool_calls -%}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\n</tool_call>' -}}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- elif m.role == 'tool' -%}{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '` + ifThinks(think) + `' -}}{%- endif -%}
{%- endif -%}`
}

func ifThinks(think bool) string {
	if think {
		return `<think>\n\n</think>\n\n`
	}
	return ""
}

var llama3Specials = []string{"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|reserved_special_token_0|>"}

// llama3WithCalls has calls as bare JSON with parameters.
const llama3WithCalls = `{{- bos_token -}}
{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content | trim -%}{%- set messages = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' -}}
{%- if tools -%}
{{- 'Answer with JSON for a call: {"name": function name, "parameters": dictionary}\n\n' -}}
{%- for t in tools -%}{{- t | tojson -}}{{- '\n\n' -}}{%- endfor -%}
{%- endif -%}
{{- system + '<|eot_id|>' -}}
{%- for message in messages -%}
{%- if message.tool_calls is defined and message.tool_calls -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + message.tool_calls[0].function.name + '", "parameters": ' -}}
{{- message.tool_calls[0].function.arguments | tojson -}}{{- '}<|eot_id|>' -}}
{%- elif message.role == 'tool' -%}
{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + message.content + '<|eot_id|>' -}}
{%- else -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}`

type toolFamily struct {
	template  string
	specials  []string
	tools     bool // the template has a form of its own
	reasoning bool
	call      string // a call of get_weather as the model writes it, %s: its arguments
}

const tagCall = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": %s}\n</tool_call>"

var toolFamilies = map[string]toolFamily{
	"tags":           {chatMLWithCalls(false), chatMLSpecials, true, false, tagCall},
	"tags and think": {chatMLWithCalls(true), chatMLSpecials, true, true, tagCall},
	"control tags": {chatMLWithCalls(true), append(append([]string(nil), chatMLSpecials...), "<tool_call>", "</tool_call>", "<think>", "</think>"),
		true, true, tagCall},
	"bare JSON": {llama3WithCalls, llama3Specials, true, false, `{"name": "get_weather", "parameters": %s}`},
	"no tools":  {templateFamilies["ChatML"].template, chatMLSpecials, false, false, tagCall},
}

var weatherTools = []models.Tool{
	{Name: "get_weather", Description: "Weather", Parameters: []byte(`{"type":"object","properties":{"city":{"enum":["Paris","Rome"]},"days":{"enum":[1,2]}},"required":["city"]}`)},
	{Name: "get_time"},
}
