//go:build llama

package e2e

import (
	"strconv"
	"strings"
	"testing"
)

// What only the engine finds is blamed on the field in which the client sent it, in param and in words.
func TestErrorsOfTheEngineNameTheClientsFields(t *testing.T) {
	s := startServer(t)
	bad := map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"not": map[string]any{"const": 1}}}}
	properties := make(map[string]any)
	for i := range 501 {
		properties[strconv.Itoa(i)] = map[string]any{}
	}
	large := map[string]any{"type": "object", "properties": properties}
	format := map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "n", "schema": bad}}
	message := []any{map[string]any{"role": "user", "content": "Hi"}}
	for _, c := range []struct {
		name, path string
		body       map[string]any
		want       []string
	}{
		{"json_schema of a chat", "/v1/chat/completions", map[string]any{"messages": message, "json_schema": bad}, []string{`"param":"json_schema"`}},
		{"response_format of a chat", "/v1/chat/completions", map[string]any{"messages": message, "response_format": format}, []string{`"param":"response_format"`}},
		{"text.format", "/v1/responses", map[string]any{"input": "Hi", "text": map[string]any{"format": map[string]any{"type": "json_schema", "name": "n", "schema": bad}}},
			[]string{`"param":"text.format.schema"`}},
		{"a strict tool of a chat", "/v1/chat/completions", map[string]any{"messages": message, "tools": []any{map[string]any{
			"type": "function", "function": map[string]any{"name": "f", "parameters": bad, "strict": true}}}}, []string{`"param":"tools"`, `/properties/a/not`}},
		{"a strict tool of a response", "/v1/responses", map[string]any{"input": "Hi", "tools": []any{map[string]any{
			"type": "function", "name": "f", "parameters": bad, "strict": true}}}, []string{`"param":"tools"`, `/properties/a/not`}},
		{"a strict tool of a message", "/v1/messages", map[string]any{"messages": message, "max_tokens": 5, "tools": []any{map[string]any{
			"name": "f", "input_schema": bad, "strict": true}}}, []string{`"invalid_request_error"`, `/properties/a/not`}},
		{"a large tool of a chat", "/v1/chat/completions", map[string]any{"messages": message, "tools": []any{map[string]any{
			"type": "function", "function": map[string]any{"name": "f", "parameters": large}}}}, []string{`"param":"tools"`, `f: `, `at most 500`}},
		{"a large tool of a response", "/v1/responses", map[string]any{"input": "Hi", "tools": []any{map[string]any{
			"type": "function", "name": "f", "parameters": large}}}, []string{`"param":"tools"`, `f: `, `at most 500`}},
		{"a large tool of a message", "/v1/messages", map[string]any{"messages": message, "max_tokens": 5, "tools": []any{map[string]any{
			"name": "f", "input_schema": large}}}, []string{`"invalid_request_error"`, `f: `, `at most 500`}},
		{"a token", "/v1/embeddings", map[string]any{"input": []int{1 << 30}}, []string{`"param":"input"`, `"message":"input has a token`}},
	} {
		c.body["model"] = "demo:base"
		_, err := s.reply(c.path, c.body)
		if err == nil || !strings.Contains(err.Error(), "status 400") {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: no %s in %v", c.name, part, err)
			}
		}
	}
}
