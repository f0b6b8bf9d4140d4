package e2e

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// These tests ask as most programs do: with the official client library. It fails on what it can't read, so the forms
// of replies, events and errors are checked by somebody else's code.

// openAIClient is a client of the server that tries each request once.
func (s *testServer) openAIClient(options ...option.RequestOption) openai.Client {
	options = append([]option.RequestOption{option.WithBaseURL(s.url + "/v1/"), option.WithAPIKey(s.key), option.WithMaxRetries(0)}, options...)
	return openai.NewClient(options...)
}

// capitalQuestion is answered in one way: at temperature 0.
func capitalQuestion() openai.ChatCompletionNewParams {
	return greedyChat("What is the capital of France?")
}

func greedyChat(text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model: "demo:v1.0", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}, Temperature: openai.Float(0),
	}
}

// capitalAnswer is what the demo model answers to capitalQuestion; the mock echoes the question.
func capitalAnswer() string {
	if withLlama {
		return "The capital of France is Paris."
	}
	return "What is the capital of France?"
}

// chatStream is what a stream of chat chunks said.
type chatStream struct {
	text, finishReason string
	usage              []openai.CompletionUsage // of chunks that have one
	texts              int                      // chunks with text
}

// readChat streams a chat to its end. each is called after every chunk with the text so far; nil: not.
func (s *testServer) readChat(ctx context.Context, client openai.Client, params openai.ChatCompletionNewParams, each func(text string)) (got chatStream, err error) {
	stream := client.Chat.Completions.NewStreaming(ctx, params)
	defer stream.Close()
	for stream.Next() {
		chunk := stream.Current()
		if chunk.Object != "chat.completion.chunk" || chunk.Model != string(params.Model) || chunk.Created == 0 {
			s.t.Errorf("chunk %s", chunk.RawJSON())
		}
		if chunk.JSON.Usage.Valid() {
			got.usage = append(got.usage, chunk.Usage)
		}
		for _, c := range chunk.Choices {
			got.text += c.Delta.Content
			if c.Delta.Content != "" {
				got.texts++
			}
			if c.FinishReason != "" {
				got.finishReason = string(c.FinishReason)
			}
		}
		if each != nil {
			each(got.text)
		}
	}
	return got, stream.Err()
}

func TestOpenAIClient(t *testing.T) {
	// slower than a write, so that tokens don't share events
	s := startServer(t, "STEP_DELAY=50ms", "MOCK_TOKEN_DELAY=50ms")
	client := s.openAIClient()
	t.Run("models", func(t *testing.T) { checkOpenAIModels(t, client) })
	t.Run("chat", func(t *testing.T) { checkOpenAIChat(t, client) })
	t.Run("chat stream", func(t *testing.T) {
		params := capitalQuestion()
		got, err := s.readChat(t.Context(), client, params, nil)
		if err != nil || got.text != capitalAnswer() || got.finishReason != "stop" || got.texts < 2 || len(got.usage) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		params.StreamOptions.IncludeUsage = openai.Bool(true)
		got, err = s.readChat(t.Context(), client, params, nil)
		if err != nil || got.text != capitalAnswer() || len(got.usage) != 1 || got.usage[0].CompletionTokens < 2 || got.usage[0].PromptTokens < 1 ||
			got.usage[0].TotalTokens != got.usage[0].CompletionTokens+got.usage[0].PromptTokens {
			t.Errorf("with usage: %+v, %v", got, err)
		}
	})
	t.Run("stop", func(t *testing.T) {
		params := capitalQuestion()
		params.Stop.OfStringArray = []string{"France"}
		got, err := client.Chat.Completions.New(t.Context(), params)
		if err != nil || got.Choices[0].FinishReason != "stop" || !strings.HasSuffix(got.Choices[0].Message.Content, "capital of ") {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("length", func(t *testing.T) {
		params := capitalQuestion()
		params.MaxCompletionTokens = openai.Int(2)
		got, err := client.Chat.Completions.New(t.Context(), params)
		if err != nil || got.Choices[0].FinishReason != "length" || got.Usage.CompletionTokens != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("seed", func(t *testing.T) {
		params := greedyChat("Tell me a story about a fox.")
		params.Temperature, params.Seed, params.MaxTokens = openai.Float(1.5), openai.Int(-7), openai.Int(24)
		first, err := client.Chat.Completions.New(t.Context(), params)
		if err != nil {
			t.Fatal(err)
		}
		second, err := client.Chat.Completions.New(t.Context(), params)
		if err != nil || first.Choices[0].Message.Content != second.Choices[0].Message.Content {
			t.Errorf("%q, then %q, %v", first.Choices[0].Message.Content, second.Choices[0].Message.Content, err)
		}
	})
	t.Run("completions", func(t *testing.T) { checkOpenAICompletions(t, client) })
	t.Run("errors", func(t *testing.T) { checkOpenAIErrors(t, s) })
	checkInvariants(t, s.waitIdle())
}

func checkOpenAIModels(t *testing.T, client openai.Client) {
	page, err := client.Models.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range page.Data {
		listed[m.ID] = true
		if m.Object != "model" || m.OwnedBy == "" || m.Created == 0 {
			t.Errorf("model %s", m.RawJSON())
		}
	}
	for _, id := range []string{"demo", "demo:v1.0", "demo:v1.1", "demo:v2.0"} {
		got, err := client.Models.Get(t.Context(), id)
		if !listed[id] || err != nil || got.ID != id {
			t.Errorf("%s is listed: %v; got %+v, %v", id, listed[id], got, err)
		}
	}
	_, err = client.Models.Get(t.Context(), "nobody/has-it")
	checkOpenAIError(t, "unknown model", err, 404, "model_not_found", "model")
}

func checkOpenAIChat(t *testing.T, client openai.Client) {
	got, err := client.Chat.Completions.New(t.Context(), capitalQuestion())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 1 || got.Object != "chat.completion" || got.Model != "demo:v1.0" || !strings.HasPrefix(got.ID, "chatcmpl-") || got.Created == 0 {
		t.Fatalf("%s", got.RawJSON())
	}
	c, usage := got.Choices[0], got.Usage
	if c.Message.Content != capitalAnswer() || c.Message.Role != "assistant" || c.FinishReason != "stop" || c.Index != 0 {
		t.Errorf("%s", got.RawJSON())
	}
	if usage.PromptTokens < 1 || usage.CompletionTokens < 2 || usage.TotalTokens != usage.PromptTokens+usage.CompletionTokens {
		t.Errorf("usage %s", usage.RawJSON())
	}
	withSystem := capitalQuestion()
	withSystem.Messages = append([]openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hi"), openai.AssistantMessage("Hello!")}, withSystem.Messages...)
	if got, err := client.Chat.Completions.New(t.Context(), withSystem); err != nil || got.Choices[0].Message.Content == "" {
		t.Errorf("a conversation: %+v, %v", got, err)
	}
}

func checkOpenAICompletions(t *testing.T, client openai.Client) {
	params := openai.CompletionNewParams{Model: "demo:v1.0", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("Once upon a time")}, Temperature: openai.Float(0)}
	got, err := client.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 1 || got.Choices[0].Text == "" || got.Object != "text_completion" || !strings.HasPrefix(got.ID, "cmpl-") || got.Usage.CompletionTokens < 1 {
		t.Errorf("%s", got.RawJSON())
	}
	stream := client.Completions.NewStreaming(t.Context(), params)
	defer stream.Close()
	text, finish := "", ""
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			text, finish = text+c.Text, finish+string(c.FinishReason)
		}
	}
	if stream.Err() != nil || text != got.Choices[0].Text || finish != string(got.Choices[0].FinishReason) {
		t.Errorf("streamed %q, %q, %v; unstreamed %s", text, finish, stream.Err(), got.RawJSON())
	}
}

func checkOpenAIErrors(t *testing.T, s *testServer) {
	ask := func(client openai.Client, change func(*openai.ChatCompletionNewParams)) error {
		params := capitalQuestion()
		change(&params)
		_, err := client.Chat.Completions.New(t.Context(), params)
		if err == nil {
			return nil
		}
		_, streamed := s.readChat(t.Context(), client, params, nil)
		if streamed == nil || streamed.Error() != err.Error() {
			t.Errorf("streamed the error is %v, unstreamed %v", streamed, err)
		}
		return err
	}
	nothing := func(*openai.ChatCompletionNewParams) {}
	checkOpenAIError(t, "wrong key", ask(s.openAIClient(option.WithAPIKey("wrong")), nothing), 401, "invalid_api_key", "")
	client := s.openAIClient()
	for _, c := range []struct {
		name        string
		change      func(*openai.ChatCompletionNewParams)
		status      int
		code, param string
	}{
		{"unknown model", func(p *openai.ChatCompletionNewParams) { p.Model = "nobody/has-it" }, 404, "model_not_found", "model"},
		{"unknown version", func(p *openai.ChatCompletionNewParams) { p.Model = "demo:v9" }, 404, "model_not_found", "model"},
		{"out of range", func(p *openai.ChatCompletionNewParams) { p.Temperature = openai.Float(3) }, 400, "", "temperature"},
		{"too many answers", func(p *openai.ChatCompletionNewParams) { p.N = openai.Int(99) }, 400, "", "n"},
		{"no messages", func(p *openai.ChatCompletionNewParams) { p.Messages = nil }, 400, "", "messages"},
		{"too long", func(p *openai.ChatCompletionNewParams) {
			p.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage(strings.Repeat("a b c d ", 20_000))}
		}, 400, "context_length_exceeded", "messages"},
	} {
		checkOpenAIError(t, c.name, ask(client, c.change), c.status, c.code, c.param)
	}
}

// checkOpenAIError checks an error as the library reports it. An empty code isn't looked at.
func checkOpenAIError(t *testing.T, name string, err error, status int, code, param string) {
	t.Helper()
	var got *openai.Error
	if !errors.As(err, &got) {
		t.Errorf("%s: %v is no error of the library", name, err)
		return
	}
	if got.StatusCode != status || code != "" && got.Code != code || got.Param != param || got.Message == "" || got.Type == "" {
		t.Errorf("%s: %d %s", name, got.StatusCode, got.RawJSON())
	}
}

// A program that closes a stream, or gives up a whole reply, stops paying for it.
func TestOpenAIClientThatLeavesIsForgotten(t *testing.T) {
	s := startServer(t, "STEP_DELAY=50ms", "MOCK_TOKEN_DELAY=50ms")
	client, params := s.openAIClient(), greedyChat(longPrompt)
	t.Run("stream", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := s.readChat(ctx, client, params, func(text string) {
			if text != "" {
				cancel()
			}
		})
		s.checkOneMoreCancelled(t, err, 1)
	})
	t.Run("whole", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		before := s.scrape().sum("tokens_generated_total")
		left := make(chan error, 1)
		go func() {
			_, err := client.Chat.Completions.New(ctx, params)
			left <- err
		}()
		s.waitFor(failureLimit, "tokens", func() bool { return s.scrape().sum("tokens_generated_total") > before })
		cancel()
		s.checkOneMoreCancelled(t, <-left, 2)
	})
}

// checkOneMoreCancelled checks that a client left, which the server noticed, and that so many did.
func (s *testServer) checkOneMoreCancelled(t *testing.T, err error, all float64) {
	t.Helper()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the answer ended with %v", err)
	}
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	if n := scraped.sum("llm_requests_cancelled_total"); n != all {
		t.Errorf("%v clients left, not %v", n, all)
	}
}

// TestOpenAIStreamGoesOnAfterTheEngineWasKilled: the client sees a pause and no gap.
func TestOpenAIStreamGoesOnAfterTheEngineWasKilled(t *testing.T) {
	s := startServer(t, "STEP_DELAY=20ms", "MOCK_TOKEN_DELAY=20ms")
	client, params := s.openAIClient(), greedyChat(longPrompt)
	undisturbed, err := s.readChat(t.Context(), client, params, nil)
	if err != nil {
		t.Fatal(err)
	}
	killed := false
	got, err := s.readChat(t.Context(), client, params, func(text string) {
		if !killed && len(text) > 10 {
			killed = true
			s.signalEngine(syscall.SIGKILL)
		}
	})
	if err != nil || !killed || got.text != undisturbed.text || got.finishReason != undisturbed.finishReason {
		t.Errorf("killed: %v; got %+v, %v; undisturbed %+v", killed, got, err, undisturbed)
	}
	checkInvariants(t, s.waitIdle())
}
