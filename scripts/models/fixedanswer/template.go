package fixedanswer

// ToolsHeading stands in prompts before the tools, so that a test can tell whose form they have.
const ToolsHeading = "You can call functions:"

// ChatTemplate has tools as JSON lines, reasoning between <think> tags and calls between <tool_call> tags.
const ChatTemplate = `{%- if tools -%}
{{- '<|im_start|>system\n` + ToolsHeading + `\n' -}}
{%- for tool in tools -%}{{- (tool | tojson) + '\n' -}}{%- endfor -%}
{{- 'Write <tool_call>{"name": …, "arguments": …}</tool_call>.<|im_end|>\n' -}}
{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + ('user' if m.role == 'tool' else m.role) + '\n' -}}
{%- if m.role == 'assistant' and m.reasoning_content -%}{{- '<think>\n' + m.reasoning_content + '\n</think>\n\n' -}}{%- endif -%}
{%- if m.content -%}{{- m.content -}}{%- endif -%}
{%- if m.tool_calls -%}{%- for call in m.tool_calls -%}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\n</tool_call>' -}}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}`
