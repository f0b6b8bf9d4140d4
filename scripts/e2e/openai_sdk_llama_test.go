//go:build llama

package e2e

import (
	"encoding/json"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/shared"
)

func TestOpenAIClientGetsAnswersThatFitItsSchema(t *testing.T) {
	s := startServer(t)
	client := s.openAIClient()
	const schema = `{"type":"object","properties":{"city":{"type":"string","maxLength":12},"people":{"type":"integer","minimum":1,"maximum":99}},"required":["city","people"],"additionalProperties":false}`
	var parsed any
	if err := json.Unmarshal([]byte(schema), &parsed); err != nil {
		t.Fatal(err)
	}
	params := capitalQuestion()
	params.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
		Name: "capital", Strict: openai.Bool(true), Schema: parsed,
	}}
	got, err := client.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if err := validateAnswer(schema, got.Choices[0].Message.Content); err != nil {
		t.Errorf("%s: %v", got.RawJSON(), err)
	}
	streamed, err := s.readChat(t.Context(), client, params, nil)
	if err != nil || streamed.text != got.Choices[0].Message.Content {
		t.Errorf("streamed %+v, %v", streamed, err)
	}
	params.ResponseFormat.OfJSONSchema.JSONSchema.Schema = map[string]any{"not": map[string]any{}}
	_, err = client.Chat.Completions.New(t.Context(), params)
	checkOpenAIError(t, "a schema that can't be obeyed", err, 400, "", "response_format")
}
