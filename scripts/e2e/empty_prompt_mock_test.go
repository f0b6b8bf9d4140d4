//go:build !llama

package e2e

import (
	"strings"
	"testing"
)

// A prompt may have no tokens, which only the engine knows. The refusal names the field that the dialect has it in.
func TestPromptWithoutTokensNamesItsField(t *testing.T) {
	s := startServer(t)
	message := []any{map[string]any{"role": "user", "content": ""}}
	for _, c := range []struct {
		path, param string
		body        map[string]any
	}{
		{"/v1/chat/completions", "messages", map[string]any{"messages": message}},
		{"/v1/responses", "input", map[string]any{"input": message}},
	} {
		c.body["model"] = "demo:v1.0"
		reply, err := s.reply(c.path, c.body)
		if err == nil || !strings.Contains(err.Error(), "status 400") || !strings.Contains(err.Error(), `"param":"`+c.param+`"`) {
			t.Errorf("%s: %v, %v", c.path, reply, err)
		}
	}
}
