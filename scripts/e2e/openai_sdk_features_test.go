package e2e

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"
)

// TestOpenAIClientGetsEverything asks for what OpenAI's library has types for, with answers that the test has chosen.
func TestOpenAIClientGetsEverything(t *testing.T) {
	s := startDialectServer(t, "1ms")
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

// withTools is a chat that offers tools; choice says whether one must be called.
func withTools(kind answerKind, choice openai.ChatCompletionToolChoiceOptionUnionParam) openai.ChatCompletionNewParams {
	params := openAIChat(kind)
	for _, name := range []string{"get_weather", "get_time"} {
		params.Tools = append(params.Tools, openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: name, Parameters: shared.FunctionParameters(citySchema)}))
	}
	params.ToolChoice = choice
	return params
}

func toolChoice(word string) (c openai.ChatCompletionToolChoiceOptionUnionParam) {
	c.OfAuto = openai.String(word)
	return c
}

func checkOpenAITools(t *testing.T, client openai.Client) {
	weather := func(city string) openAICall { return openAICall{"get_weather", city} }
	both := []openAICall{weather("Paris"), weather("Côte d'Azur")}
	named := func(name string) openai.ChatCompletionToolChoiceOptionUnionParam {
		return openai.ToolChoiceOptionFunctionToolChoice(openai.ChatCompletionNamedToolChoiceFunctionParam{Name: name})
	}
	for _, c := range []struct {
		name   string
		choice openai.ChatCompletionToolChoiceOptionUnionParam
		answer answerKind
		want   []openAICall
	}{
		{"required", toolChoice("required"), twoCallsAnswer, both},
		{"auto", toolChoice("auto"), twoCallsAnswer, both},
		{"no choice is auto", openai.ChatCompletionToolChoiceOptionUnionParam{}, twoCallsAnswer, both},
		{"auto without need", toolChoice("auto"), plainAnswer, nil},
		{"named", named("get_weather"), twoCallsAnswer, both[:1]}, // a name gives one call
	} {
		t.Run(c.name, func(t *testing.T) {
			message := askForCalls(t, client, withTools(c.answer, c.choice))
			if got := callsOf(t, message); !slices.Equal(got, c.want) || len(got) == 0 && message.Content == "" {
				t.Errorf("%s", message.RawJSON())
			}
		})
	}
	t.Run("named, another than the model would call", func(t *testing.T) {
		params := withTools(plainAnswer, named("get_time"))
		params.MaxTokens = openai.Int(300)
		if got := callsOf(t, askForCalls(t, client, params)); len(got) != 1 || got[0].name != "get_time" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("results", func(t *testing.T) {
		params := withTools(twoCallsAnswer, toolChoice("required"))
		message := askForCalls(t, client, params)
		params.Messages = append(params.Messages, message.ToParam())
		for i, result := range []string{"17 degrees", "20 degrees"} {
			params.Messages = append(params.Messages, openai.ToolMessage(result, message.ToolCalls[i].ID))
		}
		params.ToolChoice = toolChoice("none")
		if got, err := client.Chat.Completions.New(t.Context(), params); err != nil || len(got.Choices[0].Message.ToolCalls) != 0 {
			t.Errorf("after the results: %+v, %v", got, err)
		}
	})
}

// openAICall is a call of one of the tools, which both ask for a city.
type openAICall struct{ name, city string }

func callsOf(t *testing.T, message openai.ChatCompletionMessage) (calls []openAICall) {
	t.Helper()
	for _, c := range message.ToolCalls {
		var arguments struct{ City string }
		d := json.NewDecoder(strings.NewReader(c.Function.Arguments))
		d.DisallowUnknownFields()
		if err := d.Decode(&arguments); err != nil || c.ID == "" {
			t.Errorf("%s: %v", c.RawJSON(), err)
		}
		calls = append(calls, openAICall{c.Function.Name, arguments.City})
	}
	return calls
}

// askForCalls asks for a whole reply and for a stream, which the library puts together to the same.
func askForCalls(t *testing.T, client openai.Client, params openai.ChatCompletionNewParams) openai.ChatCompletionMessage {
	t.Helper()
	got, err := client.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	message := got.Choices[0].Message
	want := map[bool]string{true: "tool_calls", false: "stop"}[len(message.ToolCalls) > 0]
	if got.Choices[0].FinishReason != want {
		t.Errorf("finish_reason isn't %s: %s", want, got.RawJSON())
	}
	stream := client.Chat.Completions.NewStreaming(t.Context(), params)
	defer stream.Close()
	streamed, finished := openai.ChatCompletionAccumulator{}, 0
	for stream.Next() {
		if !streamed.AddChunk(stream.Current()) {
			t.Errorf("the library can't add %s", stream.Current().RawJSON())
		}
		if _, ok := streamed.JustFinishedToolCall(); ok {
			finished++
		}
	}
	if stream.Err() != nil || len(streamed.Choices) != 1 || finished != len(message.ToolCalls) || streamed.Choices[0].FinishReason != want {
		t.Fatalf("%v, %d calls finished, %+v", stream.Err(), finished, streamed.Choices)
	}
	again := streamed.Choices[0].Message
	if !slices.Equal(callsOf(t, again), callsOf(t, message)) || again.Content != message.Content {
		t.Errorf("streamed %+v, whole %s", again, message.RawJSON())
	}
	return message
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
