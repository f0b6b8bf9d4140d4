package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"
)

// stepAnswer is what an answer to agentStep consists of.
type stepAnswer uint8

const (
	helloAnswer  stepAnswer = iota // the text "Hello there"
	askAnswer                      // the reasoning "I ask f", then a call of f with {"a":1}
	customAnswer                   // a call of p with the input say "hi"
)

// agentStep has a function, a custom tool, one that only OpenAI's servers have, and what came before.
func agentStep(answer stepAnswer) responses.ResponseNewParams {
	model, text := answer.asks()
	return responses.ResponseNewParams{
		Model: model, Instructions: openai.String("Be brief."), Temperature: openai.Float(0),
		Tools: []responses.ToolUnionParam{
			responses.ToolParamOfFunction("f", map[string]any{"type": "object"}, true), responses.ToolParamOfCustom("p"),
			responses.ToolParamOfWebSearchPreview(responses.WebSearchPreviewToolTypeWebSearchPreview),
		},
		Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
			responses.ResponseInputItemParamOfMessage("Hi", responses.EasyInputMessageRoleUser),
			responses.ResponseInputItemParamOfFunctionCall("{}", "c1", "f"),
			{OfFunctionCallOutput: &responses.ResponseInputItemFunctionCallOutputParam{
				CallID: openai.String("c1"), Output: responses.ResponseInputItemFunctionCallOutputOutputUnionParam{OfString: openai.String("42")},
			}},
			responses.ResponseInputItemParamOfMessage(text, responses.EasyInputMessageRoleUser),
		}},
	}
}

func TestResponsesClient(t *testing.T) {
	s := startStepServer(t)
	client := s.openAIClient()
	t.Run("reply", func(t *testing.T) {
		got, err := client.Responses.New(t.Context(), agentStep(helloAnswer))
		if err != nil || got.OutputText() != "Hello there" || got.Status != responses.ResponseStatusCompleted || got.Usage.TotalTokens < 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("stream", func(t *testing.T) { checkResponsesStream(t, client) })
	t.Run("custom tool", func(t *testing.T) {
		got, err := client.Responses.New(t.Context(), agentStep(customAnswer))
		if err != nil || len(got.Output) != 1 || got.Output[0].AsCustomToolCall().Input != `say "hi"` {
			t.Errorf("%s, %v", got.RawJSON(), err)
		}
	})
	t.Run("input tokens", func(t *testing.T) {
		model, _ := helloAnswer.asks()
		got, err := client.Responses.InputTokens.Count(t.Context(), responses.InputTokenCountParams{
			Model: openai.String(model), Input: responses.InputTokenCountParamsInputUnion{OfString: openai.String("Hello there")},
		})
		if err != nil || got.InputTokens < 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("stored", func(t *testing.T) {
		_, err := client.Responses.Get(t.Context(), "resp_1", responses.ResponseGetParams{})
		if failure, ok := errors.AsType[*openai.Error](err); !ok || failure.StatusCode != 400 || !strings.Contains(failure.Message, "not stored") {
			t.Error(err)
		}
	})
	checkInvariants(t, s.waitIdle())
}

// checkResponsesStream reads reasoning and a call, first from the deltas, then from the response at the end.
func checkResponsesStream(t *testing.T, client openai.Client) {
	stream := client.Responses.NewStreaming(t.Context(), agentStep(askAnswer))
	var reasoning, arguments string
	var final responses.Response
	for stream.Next() {
		switch e := stream.Current().AsAny().(type) {
		case responses.ResponseReasoningTextDeltaEvent:
			reasoning += e.Delta
		case responses.ResponseFunctionCallArgumentsDeltaEvent:
			arguments += e.Delta
		case responses.ResponseCompletedEvent:
			final = e.Response
		}
	}
	if stream.Err() != nil || reasoning != "I ask f" || withoutBlanks(arguments) != `{"a":1}` || len(final.Output) != 2 {
		t.Fatalf("%q, %q, %v: %s", reasoning, arguments, stream.Err(), final.RawJSON())
	}
	thought, call := final.Output[0].AsReasoning(), final.Output[1].AsFunctionCall()
	if thought.Content[0].Text != reasoning || call.Arguments != arguments || call.Name != "f" || call.CallID == "" {
		t.Errorf("%s", final.RawJSON())
	}
}
