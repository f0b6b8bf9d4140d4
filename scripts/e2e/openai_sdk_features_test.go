package e2e

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"
)

// TestOpenAIClientGetsEverything asks for what OpenAI's library has types for, with answers that the test has chosen.
func TestOpenAIClientGetsEverything(t *testing.T) {
	s := startDialectServer(t, "6ms")
	client := s.openAIClient()
	t.Run("n and logprobs", func(t *testing.T) { s.checkOpenAIChoices(t, client) })
	t.Run("tools", func(t *testing.T) { checkOpenAITools(t, client) })
	t.Run("embeddings", func(t *testing.T) { checkOpenAIEmbeddings(t, client) })
	t.Run("completions", func(t *testing.T) { checkOpenAIEcho(t, client) })
	checkInvariants(t, s.waitIdle())
}

func openAIChat(kind answerKind) openai.ChatCompletionNewParams {
	model, message := asks(kind)
	return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(message)}, Seed: openai.Int(3)}
}

func (s *testServer) checkOpenAIChoices(t *testing.T, client openai.Client) {
	params := openAIChat(plainAnswer)
	params.N, params.Logprobs, params.TopLogprobs = openai.Int(2), openai.Bool(true), openai.Int(3)
	got, err := client.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Choices[1].Index != 1 || got.Choices[0].Message.Content == "" {
		t.Fatalf("%s", got.RawJSON())
	}
	for _, c := range got.Choices {
		var bytes []byte
		for _, l := range c.Logprobs.Content {
			if l.Logprob > 0 || math.IsNaN(l.Logprob) || len(l.TopLogprobs) != 3 {
				t.Errorf("token %s", l.RawJSON())
			}
			for _, b := range l.Bytes {
				bytes = append(bytes, byte(b))
			}
		}
		if string(bytes) != c.Message.Content {
			t.Errorf("the tokens of %q are %q", c.Message.Content, bytes)
		}
	}
}

func checkOpenAITools(t *testing.T, client openai.Client) {
	params := openAIChat(twoCallsAnswer)
	for _, name := range []string{"get_weather", "get_time"} {
		params.Tools = append(params.Tools, openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: name, Parameters: shared.FunctionParameters(citySchema)}))
	}
	params.ToolChoice.OfAuto = param.NewOpt("required")
	got, err := client.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	calls := got.Choices[0].Message.ToolCalls
	if len(calls) != 2 || got.Choices[0].FinishReason != "tool_calls" {
		t.Fatalf("%s", got.RawJSON())
	}
	for i, city := range []string{"Paris", "Côte d'Azur"} {
		var arguments struct{ City string }
		if err := json.Unmarshal([]byte(calls[i].Function.Arguments), &arguments); err != nil || arguments.City != city || calls[i].Function.Name != "get_weather" || calls[i].ID == "" {
			t.Errorf("call %d: %s, %v", i, calls[i].RawJSON(), err)
		}
	}
	stream := client.Chat.Completions.NewStreaming(t.Context(), params)
	defer stream.Close()
	whole, finished := openai.ChatCompletionAccumulator{}, 0
	for stream.Next() {
		if !whole.AddChunk(stream.Current()) {
			t.Errorf("the library can't add %s", stream.Current().RawJSON())
		}
		if _, ok := whole.JustFinishedToolCall(); ok {
			finished++
		}
	}
	if stream.Err() != nil || len(whole.Choices) != 1 || len(whole.Choices[0].Message.ToolCalls) != 2 || finished != 2 {
		t.Fatalf("%v, %d calls finished, %+v", stream.Err(), finished, whole.Choices)
	}
	for i, c := range whole.Choices[0].Message.ToolCalls {
		if c.Function.Name != calls[i].Function.Name || c.Function.Arguments != calls[i].Function.Arguments {
			t.Errorf("streamed %+v, whole %s", c.Function, calls[i].RawJSON())
		}
	}
	params.Messages = append(params.Messages, got.Choices[0].Message.ToParam(), openai.ToolMessage("17 degrees", calls[0].ID), openai.ToolMessage("20 degrees", calls[1].ID))
	params.ToolChoice.OfAuto = param.NewOpt("none")
	if got, err := client.Chat.Completions.New(t.Context(), params); err != nil || len(got.Choices[0].Message.ToolCalls) != 0 {
		t.Errorf("after the results: %+v, %v", got, err)
	}
}

// checkOpenAIEmbeddings asks for vectors as the engine makes them, and for their first numbers, which the proxy gives
// length 1 again.
func checkOpenAIEmbeddings(t *testing.T, client openai.Client) {
	const fewer = 8
	whole := askOpenAIEmbeddings(t, client, param.Opt[int64]{})
	short := askOpenAIEmbeddings(t, client, openai.Int(fewer))
	for i, vector := range whole {
		if len(vector) <= fewer || len(short[i]) != fewer {
			t.Fatalf("text %d: %d numbers, and %d with dimensions", i, len(vector), len(short[i]))
		}
		scale := math.Sqrt(squaresOf(vector[:fewer]))
		for k, x := range short[i] {
			if math.Abs(x*scale-vector[k]) > 1e-4 {
				t.Errorf("text %d: the first numbers of %v are %v", i, vector[:fewer], short[i])
				break
			}
		}
	}
}

func askOpenAIEmbeddings(t *testing.T, client openai.Client, dimensions param.Opt[int64]) (vectors [][]float64) {
	t.Helper()
	model, _ := asks(plainAnswer)
	got, err := client.Embeddings.New(t.Context(), openai.EmbeddingNewParams{
		Model: model, Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a fox", "a hare"}}, Dimensions: dimensions})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Data) != 2 || got.Data[1].Index != 1 || got.Usage.PromptTokens < 2 {
		t.Fatalf("%s", got.RawJSON())
	}
	for _, e := range got.Data {
		if squares := squaresOf(e.Embedding); !(math.Abs(squares-1) < 1e-3) {
			t.Errorf("dimensions %v: the squares of %d numbers add up to %v", dimensions, len(e.Embedding), squares)
		}
		vectors = append(vectors, e.Embedding)
	}
	return vectors
}

func squaresOf(vector []float64) (sum float64) {
	for _, x := range vector {
		sum += x * x
	}
	return sum
}

func checkOpenAIEcho(t *testing.T, client openai.Client) {
	model, _ := asks(plainAnswer)
	const message = "Where?\n"
	params := openai.CompletionNewParams{Model: openai.CompletionNewParamsModel(model), Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(message)},
		Echo: openai.Bool(true), Logprobs: openai.Int(2), MaxTokens: openai.Int(4), N: openai.Int(2), Seed: openai.Int(1)}
	got, err := client.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got.Choices {
		l := c.Logprobs
		if !strings.HasPrefix(c.Text, message) || len(c.Text) <= len(message) || strings.Join(l.Tokens, "") != c.Text ||
			len(l.TokenLogprobs) != len(l.Tokens) || len(l.TextOffset) != len(l.Tokens) {
			t.Errorf("%s", c.RawJSON())
		}
	}
	if len(got.Choices) != 2 || got.Usage.CompletionTokens != 8 {
		t.Errorf("%s", got.RawJSON())
	}
}
