//go:build llama

package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

const placeSchema = `{"type":"object","properties":{"city":{"type":"string","maxLength":12},"people":{"type":"integer","minimum":1,"maximum":99}},` +
	`"required":["city","people"],"additionalProperties":false}`

// positionGrammar is one in GBNF that no JSON follows, and position has the same texts.
const positionGrammar = `root ::= ("north" | "south") ", " [1-9] [0-9]? " degrees" [.!]`

var position = regexp.MustCompile(`^(north|south), [1-9][0-9]? degrees[.!]$`)

// formField is a field in which a client may say what form the answer has.
type formField struct {
	name  string
	from  formEndpoint
	field string
	value any
	fits  func(answer string) error
}

// formEndpoint is an endpoint, and where its answers are.
type formEndpoint struct {
	path  string
	body  map[string]any // without a field that says the form
	whole func(reply map[string]any) string
	delta func(data map[string]any) string
}

func formFields() []formField {
	first := func(v any) map[string]any { return object(at(v, 0)) }
	const model, question = "demo:base", "What is the capital of France?"
	message := []any{map[string]any{"role": "user", "content": question}}
	infer := formEndpoint{
		"/infer", map[string]any{"prompt": question, "base_model": "demo", "adapter_version": "base", "max_new_tokens": 256, "temperature": 0},
		func(r map[string]any) string { return text(r["result"]) },
		func(d map[string]any) string { return text(d["text"]) },
	}
	chat := formEndpoint{
		"/v1/chat/completions", map[string]any{"model": model, "messages": message, "max_tokens": 256, "temperature": 0},
		func(r map[string]any) string { return text(object(first(r["choices"])["message"])["content"]) },
		func(d map[string]any) string { return text(object(first(d["choices"])["delta"])["content"]) },
	}
	completion := formEndpoint{
		"/v1/completions", map[string]any{"model": "demo:v2.0", "prompt": question, "max_tokens": 256, "temperature": 0},
		func(r map[string]any) string { return text(first(r["choices"])["text"]) },
		func(d map[string]any) string { return text(first(d["choices"])["text"]) },
	}
	response := formEndpoint{
		"/v1/responses", map[string]any{"model": model, "input": question, "max_output_tokens": 256, "temperature": 0},
		func(r map[string]any) string { return text(first(first(r["output"])["content"])["text"]) },
		func(d map[string]any) string { return text(d["delta"]) },
	}
	anthropic := formEndpoint{
		"/v1/messages", chat.body,
		func(r map[string]any) string { return text(first(r["content"])["text"]) },
		func(d map[string]any) string { return text(object(d["delta"])["text"]) },
	}

	var schema any = json.RawMessage(placeSchema)
	format := func(more ...any) map[string]any { return with(map[string]any{"type": "json_schema"}, more...) }
	named := format("json_schema", map[string]any{"name": "place", "schema": schema})
	anyObject := map[string]any{"type": "json_object"}
	return []formField{
		{"json_schema of /infer", infer, "json_schema", schema, isPlace},
		{"response_format of a chat", chat, "response_format", named, isPlace},
		{"json_schema of a chat", chat, "json_schema", schema, isPlace},
		{"response_format of a completion", completion, "response_format", named, isPlace},
		{"text.format", response, "text", map[string]any{"format": format("name", "place", "strict", true, "schema", schema)}, isPlace},
		{"output_config.format", anthropic, "output_config", map[string]any{"format": format("schema", schema)}, isPlace},
		{"json_object of a chat", chat, "response_format", anyObject, isAnyObject},
		{"json_object with a schema", chat, "response_format", with(anyObject, "schema", schema), isPlace},
		{"json_object of a completion", completion, "response_format", anyObject, isAnyObject},
		{"json_object of text.format", response, "text", map[string]any{"format": anyObject}, isAnyObject},
		{"grammar of a chat", chat, "grammar", positionGrammar, isPosition},
		{"grammar of a completion", completion, "grammar", positionGrammar, isPosition},
	}
}

func isPlace(answer string) error { return validateAnswer(placeSchema, answer) }

func isAnyObject(answer string) error { return validateAnswer(`{"type":"object"}`, answer) }

func isPosition(answer string) error {
	if !position.MatchString(answer) {
		return fmt.Errorf("not as %s", position)
	}
	return nil
}

// Whatever API a schema or grammar comes by, the answer fits it, whole and streamed. Without it the model writes
// something else, so that it isn't by chance.
func TestAnswersFitTheFormOfEachField(t *testing.T) {
	s := startServer(t)
	for _, f := range formFields() {
		t.Run(f.name, func(t *testing.T) {
			body := with(f.from.body, f.field, f.value)
			answer := f.from.whole(s.mustReply(f.from.path, body))
			if err := f.fits(answer); err != nil {
				t.Errorf("%q: %v", answer, err)
			}
			if streamed := s.streamedText(t, f.from.path, with(body, "stream", true), f.from.delta); streamed != answer {
				t.Errorf("streamed %q, whole %q", streamed, answer)
			}
			if free := f.from.whole(s.mustReply(f.from.path, f.from.body)); free == "" || f.fits(free) == nil {
				t.Errorf("without the field came %q", free)
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
