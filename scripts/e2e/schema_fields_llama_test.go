//go:build llama

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

const placeSchema = `{"type":"object","properties":{"city":{"type":"string","maxLength":12},"people":{"type":"integer","minimum":1,"maximum":99}},` +
	`"required":["city","people"],"additionalProperties":false}`

// schemaField is a field in which a client may send a schema.
type schemaField struct {
	name, path string
	body       map[string]any // without the field
	field      string
	value      any
	whole      func(reply map[string]any) string
	delta      func(data map[string]any) string
}

func schemaFields() []schemaField {
	var schema any = json.RawMessage(placeSchema)
	named := map[string]any{"type": "json_schema", "name": "place", "strict": true, "schema": schema}
	format := map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "place", "schema": schema}}
	message := []any{map[string]any{"role": "user", "content": "Which city?"}}
	const model = "demo:base"
	infer := map[string]any{"prompt": "Which city?", "base_model": "demo", "adapter_version": "base", "max_new_tokens": 96, "temperature": 0}
	chat := map[string]any{"model": model, "messages": message, "max_tokens": 96, "temperature": 0}
	response := map[string]any{"model": model, "input": "Which city?", "max_output_tokens": 96, "temperature": 0}

	first := func(v any) map[string]any { return object(at(v, 0)) }
	inferText := func(r map[string]any) string { return text(r["result"]) }
	inferDelta := func(d map[string]any) string { return text(d["text"]) }
	chatText := func(r map[string]any) string { return text(object(first(r["choices"])["message"])["content"]) }
	chatDelta := func(d map[string]any) string { return text(object(first(d["choices"])["delta"])["content"]) }
	responseText := func(r map[string]any) string { return text(first(first(r["output"])["content"])["text"]) }
	responseDelta := func(d map[string]any) string { return text(d["delta"]) }
	messageText := func(r map[string]any) string { return text(first(r["content"])["text"]) }
	messageDelta := func(d map[string]any) string { return text(object(d["delta"])["text"]) }
	return []schemaField{
		{"json_schema of /infer", "/infer", infer, "json_schema", schema, inferText, inferDelta},
		{"response_format of a chat", "/v1/chat/completions", chat, "response_format", format, chatText, chatDelta},
		{"json_schema of a chat", "/v1/chat/completions", chat, "json_schema", schema, chatText, chatDelta},
		{"text.format", "/v1/responses", response, "text", map[string]any{"format": named}, responseText, responseDelta},
		{"output_config.format", "/v1/messages", chat, "output_config", map[string]any{"format": map[string]any{"type": "json_schema", "schema": schema}},
			messageText, messageDelta},
	}
}

// Whatever API a schema comes by, the answer fits it, whole and streamed. Without it the model writes something else,
// so that it isn't by chance.
func TestAnswersFitTheSchemaOfEachField(t *testing.T) {
	s := startServer(t)
	for _, f := range schemaFields() {
		t.Run(f.name, func(t *testing.T) {
			body := with(f.body, f.field, f.value)
			answer := f.whole(s.mustReply(f.path, body))
			if err := validateAnswer(placeSchema, answer); err != nil {
				t.Errorf("%q: %v", answer, err)
			}
			if streamed := s.streamedText(t, f.path, with(body, "stream", true), f.delta); streamed != answer {
				t.Errorf("streamed %q, whole %q", streamed, answer)
			}
			delete(body, f.field)
			if free := f.whole(s.mustReply(f.path, body)); free == "" || validateAnswer(placeSchema, free) == nil {
				t.Errorf("without a schema came %q", free)
			}
		})
	}
}

// streamedText puts the texts of a stream's events together.
func (s *testServer) streamedText(t *testing.T, path string, body map[string]any, delta func(map[string]any) string) string {
	t.Helper()
	resp, err := s.openStream(t.Context(), path, body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all strings.Builder
	err = readEvents(resp.Body, func(e event) bool {
		var data map[string]any
		if e.data != "[DONE]" {
			if err := json.Unmarshal([]byte(e.data), &data); err != nil {
				t.Errorf("event %q: %v", e.data, err)
			}
		}
		all.WriteString(delta(data))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
