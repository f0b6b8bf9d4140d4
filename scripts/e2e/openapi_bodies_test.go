package e2e

import (
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// bodyMaker makes request bodies out of the schemas of the document.
type bodyMaker struct {
	doc       *apiDocument
	rnd       *rand.Rand
	longTexts int // how many of 1 MiB the body may still have
}

// meaningful are values of fields, by their last name, for which a schema isn't enough: most must name something that
// there is, or be written in a language of their own.
var meaningful = map[string][]any{
	"base_model":           {"demo", "demo", "demo", "", "nothing/here"},
	"adapter_version":      {"v1.0", "v1.1", "v2.0", "base", "", "v9"},
	"model":                {"demo", "demo:v1.0", "demo:base", "demo:v2.0", "", "nothing", "demo:", ":v1.0"},
	"grammar":              {`root ::= "yes" | "no"`, `root ::= [a-z]+`, ""},
	"chat_template_kwargs": {map[string]any{}, map[string]any{"enable_thinking": false}, map[string]any{"é": []any{1, nil, map[string]any{}}}},
	"max_tokens":           {1, 2, 7, 16, json.Number("16.0"), json.Number("1e1"), json.Number("1000000")},
	"max_new_tokens":       {1, 2, 7, 16, 64, json.Number("16.0"), json.Number("1e1")},
	"logit_bias":           {map[string]any{}, map[string]any{"10": -100}, map[string]any{"7": 0.5, "11": 100}, map[string]any{"999999999": 1}},
}

// someSchemas are JSON schemas that a grammar can follow.
var someSchemas = []any{
	map[string]any{},
	map[string]any{"type": "object"},
	map[string]any{"type": "integer", "minimum": 1, "maximum": 5},
	map[string]any{"enum": []any{"a", "é", "\n"}},
	map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string", "maxLength": 5}}, "required": []any{"city"}, "additionalProperties": false},
	map[string]any{"type": "array", "items": map[string]any{"type": "boolean"}, "maxItems": 2},
}

var someTexts = []string{"Hi", "What is the capital of France?", "é", "🦊🐇\u200d🌲", "日本語", "\u0000", "\u2028\u0085\n\r\t", `"\`, "<|end|>", "</s><|im_start|>", "\ufffd\U0010ffff", " ", "a\u0301"}

// body is a body that keeps to the schema. Most also keep to what a schema can't say: which fields go together.
func (m *bodyMaker) body(o *apiOperation) any {
	m.longTexts = 2
	body := m.value(o.body, "", 0)
	if !m.oneIn(12) {
		m.fit(body.(map[string]any))
	}
	return body
}

// fit changes a body so that its fields go together.
func (m *bodyMaker) fit(body map[string]any) {
	if body["best_of"] != nil {
		body["n"] = body["best_of"]
	}
	if body["top_logprobs"] != nil {
		body["logprobs"] = true
	}
	if body["response_format"] != nil {
		delete(body, "grammar")
	}
	if body["echo"] == true {
		delete(body, "stream")
	} else if text, err := json.Marshal(body["max_tokens"]); err == nil && body["prompt"] != nil && strings.HasPrefix(string(text), "0") {
		delete(body, "max_tokens")
	}
	format, _ := body["response_format"].(map[string]any)
	if inner, _ := format["json_schema"].(map[string]any); format["type"] == "json_schema" && inner == nil {
		format["json_schema"] = map[string]any{"schema": pick(m, someSchemas)}
	}
	if text, ok := body["text"].(map[string]any); ok {
		if format, ok := text["format"].(map[string]any); ok {
			format["schema"] = pick(m, someSchemas)
		}
	}
	m.fitTools(body)
	m.fitMessages(body)
	items, _ := body["input"].([]any)
	for _, it := range items {
		if it, ok := it.(map[string]any); ok && body["prompt"] == nil {
			m.fitItem(it)
		}
	}
}

// fitItem gives an item of an input what its type needs.
func (m *bodyMaker) fitItem(it map[string]any) {
	it["type"] = pick(m, []string{"message", "message", "message", "reasoning", "function_call", "custom_tool_call", "local_shell_call", "apply_patch_call", "mcp_call",
		"function_call_output", "custom_tool_call_output", "local_shell_call_output", "apply_patch_call_output", "web_search_call"})
	it["role"] = pick(m, []string{"user", "assistant", "system", "developer"})
	it["call_id"], it["name"], it["input"] = "call_1", "f", pick(m, someTexts)
	it["action"], it["operation"], it["output"] = map[string]any{"command": []any{"ls"}}, map[string]any{}, pick(m, someTexts)
	if _, ok := it["content"].([]any); !ok {
		it["content"] = pick(m, someTexts)
	}
	if _, ok := it["summary"].([]any); !ok {
		delete(it, "summary")
	}
	if it["arguments"] == nil || m.oneIn(2) {
		it["arguments"] = "{}"
	}
}

// fitTools gives tools different names and chooses one of them, if any.
func (m *bodyMaker) fitTools(body map[string]any) {
	tools, _ := body["tools"].([]any)
	if len(tools) > 8 {
		tools = tools[:8]
		body["tools"] = tools
	}
	for i, entry := range tools {
		tool := entry.(map[string]any)
		if function, ok := tool["function"].(map[string]any); ok {
			tool = function
		}
		tool["name"] = "tool_" + strconv.Itoa(i)
		if tool["tools"] != nil || tool["format"] != nil {
			tool["type"] = "function"
			delete(tool, "tools")
			delete(tool, "format")
		}
	}
	switch choice := body["tool_choice"].(type) {
	case map[string]any:
		delete(body, "tool_choice")
		if _, flat := choice["function"]; len(tools) > 0 && flat {
			body["tool_choice"] = map[string]any{"type": "function", "function": map[string]any{"name": "tool_0"}}
		} else if len(tools) > 0 && body["input"] == nil {
			body["tool_choice"] = map[string]any{"type": pick(m, []string{"auto", "any", "none"})}
		}
	case string:
		if len(tools) == 0 {
			body["tool_choice"] = pick(m, []string{"auto", "none"})
		}
	}
}

// fitMessages gives messages what their roles need, and ends with one of the user.
func (m *bodyMaker) fitMessages(body map[string]any) {
	messages, _ := body["messages"].([]any)
	for i, entry := range messages {
		message, ok := entry.(map[string]any)
		if !ok {
			continue
		}
		if i == len(messages)-1 {
			message["role"] = "user"
		}
		switch role := message["role"]; {
		case role == "tool":
			message["tool_call_id"] = "call_1"
			fallthrough
		case role != "assistant" && message["content"] == nil:
			message["content"] = pick(m, someTexts)
		}
		m.fitBlocks(message)
	}
}

// fitBlocks gives blocks of a content what their types need.
func (m *bodyMaker) fitBlocks(message map[string]any) {
	blocks, _ := message["content"].([]any)
	for _, entry := range blocks {
		b, ok := entry.(map[string]any)
		if !ok {
			continue
		}
		if kind := b["type"]; message["role"] == "user" && kind != "tool_result" || message["role"] == "assistant" && kind == "tool_result" {
			b["type"] = "text"
		}
		for member, value := range map[string]string{"text": "Hi", "thinking": "Hm.", "id": "call_1", "name": "f", "tool_use_id": "call_1"} {
			if _, ok := b[member].(string); !ok || b[member] == "" || member == "name" {
				b[member] = value
			}
		}
	}
}

func (m *bodyMaker) oneIn(n int) bool { return m.rnd.IntN(n) == 0 }

func pick[T any](m *bodyMaker, list []T) T { return list[m.rnd.IntN(len(list))] }

// value is a value of a schema; place is its place in the body.
func (m *bodyMaker) value(schema any, place string, depth int) any {
	s := m.doc.resolve(schema)
	if v, ok := m.known(s, place); ok {
		return v
	}
	if forms, ok := s["anyOf"].([]any); ok {
		return m.value(pick(m, forms), place, depth)
	}
	if list, ok := s["enum"].([]any); ok {
		return pick(m, list)
	}
	switch m.typeOf(s) {
	case "string":
		return m.text(s, place)
	case "integer":
		return m.integer(s)
	case "number":
		return m.number(s)
	case "boolean":
		return m.oneIn(2)
	case "array":
		return m.list(s, place, depth)
	case "object":
		return m.object(s, place, depth)
	case "null":
		return nil
	}
	return m.anything(depth)
}

func (m *bodyMaker) known(s map[string]any, place string) (any, bool) {
	name := place[strings.LastIndex(place, ".")+1:]
	types, _ := s["type"].([]any)
	if slices.Contains(types, any("null")) && m.oneIn(8) {
		return nil, true
	}
	open := s["type"] == nil && s["enum"] == nil && s["anyOf"] == nil
	switch name {
	case "schema", "json_schema", "parameters", "input_schema":
		if open || s["additionalProperties"] != nil {
			return pick(m, someSchemas), true
		}
	case "content", "summary", "output":
		if open {
			return pick(m, []any{pick(m, someTexts), []any{}, []any{map[string]any{"type": "input_text", "text": pick(m, someTexts)}}}), true
		}
	case "arguments":
		if open {
			return pick(m, []any{"{}", "", `{"a":1}`, "no JSON", map[string]any{}, map[string]any{"a": pick(m, hugeNumbers)}}), true
		}
	}
	if list := meaningful[name]; list != nil && !m.oneIn(20) {
		return pick(m, list), true
	}
	return nil, false
}

// typeOf is one of the types of a schema.
func (m *bodyMaker) typeOf(s map[string]any) string {
	switch t := s["type"].(type) {
	case string:
		return t
	case []any:
		return t[0].(string) // null is the other one
	}
	return ""
}

func bound(s map[string]any, name string, otherwise float64) float64 {
	n, ok := s[name].(json.Number)
	if !ok {
		return otherwise
	}
	f, err := n.Float64()
	if err != nil {
		return otherwise
	}
	return f
}

func (m *bodyMaker) text(s map[string]any, place string) string {
	low, high := int(bound(s, "minLength", 0)), int(bound(s, "maxLength", 300))
	if pattern, ok := s["pattern"].(string); ok && strings.Contains(pattern, "A-Z") {
		return pick(m, []string{"f", "get_weather", "a.b_c-d", strings.Repeat("n", 64)})
	}
	switch {
	case low == 0 && m.oneIn(10):
		return ""
	case high <= 4096 && m.oneIn(10):
		return strings.Repeat("a", high)
	case high > 4096 && m.longTexts > 0 && m.oneIn(100):
		m.longTexts--
		return strings.Repeat("a", high)
	case m.oneIn(4):
		return strings.Repeat(pick(m, someTexts), 1+m.rnd.IntN(3))
	}
	return pick(m, someTexts)
}

func (m *bodyMaker) integer(s map[string]any) any {
	low, _ := s["minimum"].(json.Number)
	high, _ := s["maximum"].(json.Number)
	switch m.rnd.IntN(6) {
	case 0:
		if low != "" {
			return low
		}
	case 1:
		if high != "" {
			return high
		}
	}
	from, to := bound(s, "minimum", -9), bound(s, "maximum", 99)
	n := int64(from) + m.rnd.Int64N(int64(min(to-from, 20))+1)
	if m.oneIn(6) {
		return json.Number(strconv.FormatInt(n, 10) + ".0")
	}
	return n
}

func (m *bodyMaker) number(s map[string]any) any {
	low := bound(s, "minimum", bound(s, "exclusiveMinimum", -1e3))
	high := bound(s, "maximum", 1e3)
	switch m.rnd.IntN(4) {
	case 0:
		return json.Number(strconv.FormatFloat(high, 'g', -1, 64))
	case 1:
		if s["exclusiveMinimum"] == nil {
			return json.Number(strconv.FormatFloat(low, 'g', -1, 64))
		}
	}
	return low + (high-low)*(1-m.rnd.Float64())
}

func (m *bodyMaker) list(s map[string]any, place string, depth int) any {
	low, high := int(bound(s, "minItems", 0)), int(bound(s, "maxItems", 6))
	n := low + m.rnd.IntN(min(high-low, 4)+1)
	if m.oneIn(60) && high <= 2048 {
		n = high
	}
	list := []any{}
	for range n {
		list = append(list, m.value(s["items"], place, depth+1))
	}
	return list
}

func (m *bodyMaker) object(s map[string]any, place string, depth int) any {
	object := map[string]any{}
	required, _ := s["required"].([]any)
	members := member(s, "properties")
	rare := 1 + m.rnd.IntN(8) // a few members, or nearly all
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if slices.Contains(required, any(name)) || m.oneIn(rare) {
			object[name] = m.value(members[name], place+"."+name, depth+1)
		}
	}
	others := member(s, "additionalProperties")
	if members == nil && depth < 4 {
		for range m.rnd.IntN(3) {
			if len(others) > 0 {
				object[pick(m, someTexts)] = m.value(others, place+".", depth+1)
			} else {
				object[pick(m, someTexts)] = m.anything(depth + 1)
			}
		}
	}
	return object
}

func (m *bodyMaker) anything(depth int) any {
	switch n := m.rnd.IntN(8); {
	case n < 2:
		return pick(m, someTexts)
	case n == 2:
		return nil
	case n == 3:
		return m.oneIn(2)
	case n == 4 && depth < 5:
		return []any{m.anything(depth + 1), m.anything(depth + 1)}
	case n == 5 && depth < 5:
		return map[string]any{pick(m, someTexts): m.anything(depth + 1)}
	case n == 6:
		return pick(m, hugeNumbers)
	}
	return m.rnd.IntN(1000) - 500
}

var hugeNumbers = []any{
	json.Number("1e308"), json.Number("1e400"), json.Number("-1e400"), json.Number("99999999999999999999999999"), json.Number("1e-400"), json.Number("-0"),
	json.Number("9223372036854775808"), json.Number("-9223372036854775809"), json.Number("18446744073709551616"), json.Number("0.1e1"), math.MaxInt64, json.Number("1e999999999999"),
}

// mutateValue changes one value somewhere in a body.
func (m *bodyMaker) mutateValue(body any) any {
	return m.mutateAt(body, 1+m.rnd.IntN(3))
}

func (m *bodyMaker) mutateAt(v any, depth int) any {
	switch v := v.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		if len(names) == 0 {
			return m.anything(0)
		}
		name := pick(m, names)
		switch m.rnd.IntN(6) {
		case 0:
			delete(v, name)
		case 1:
			v[pick(m, []string{strings.ToUpper(name), name + "_", pick(m, someTexts), "n", "messages[0]"})] = m.anything(0)
		default:
			if depth > 0 {
				v[name] = m.mutateAt(v[name], depth-1)
			}
		}
		return v
	case []any:
		if len(v) == 0 || depth == 0 {
			return m.anything(0)
		}
		i := m.rnd.IntN(len(v))
		v[i] = m.mutateAt(v[i], depth-1)
		return v
	case string:
		if m.oneIn(3) {
			return strings.Repeat(v+"x", 300)
		}
	}
	return m.anything(0)
}

// mutateText breaks the text of a body.
func (m *bodyMaker) mutateText(text string) string {
	at := m.rnd.IntN(len(text) + 1)
	switch m.rnd.IntN(9) {
	case 0:
		return text[:at]
	case 1:
		return text[:at] + string(rune(m.rnd.IntN(256))) + text[at:]
	case 2:
		return text[:at] + "\xff\xc0\x80" + text[at:]
	case 3: // a member twice
		if strings.HasPrefix(text, `{"`) && strings.Contains(text, ":") {
			name, _, _ := strings.Cut(text[1:], ":")
			return "{" + name + ":null," + text[1:]
		}
		return text + text
	case 4:
		depth := pick(m, []int{63, 64, 65, 100, 100_000})
		return `{"x":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `,` + strings.TrimPrefix(text, "{")
	case 5:
		return text + pick(m, []string{" {}", "\x00", "]", " \n", "null"})
	case 6:
		random := make([]byte, m.rnd.IntN(200))
		for i := range random {
			random[i] = byte(m.rnd.IntN(256))
		}
		return string(random)
	case 7:
		return strings.Replace(text, `"`, pick(m, []string{`"\ud800`, `"\u0000`, `"\x`, `'`}), 1)
	}
	return pick(m, []string{"", "null", "[]", "0", `""`, "{}", "{", "\ufeff" + text, "[" + text + "]", " " + text})
}

// strictJSON reports whether a text is JSON as the server reads it: UTF-8, no member twice, nested at most 64 deep.
func strictJSON(text string) bool {
	v := jsontext.Value(text)
	return v.IsValid() && nesting(text) <= 64
}

func nesting(text string) (deepest int) {
	depth := 0
	dec := jsontext.NewDecoder(strings.NewReader(text))
	for {
		token, err := dec.ReadToken()
		if err != nil {
			return deepest
		}
		switch token.Kind() {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
}
