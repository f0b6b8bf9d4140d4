package server

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// openAIEndpoint is one of the two endpoints with what its replies must be, byte for byte. CREATED stands for the time.
type openAIEndpoint struct {
	path, body string
	whole      string
	start      string // events before the first text
	text       func(text string) string
	end        string
	param      string // the field that has the prompt
}

var openAIEndpoints = []openAIEndpoint{
	{
		path: "/v1/chat/completions", body: `{"model":"demo:v1.0","messages":[{"role":"user","content":"What is the capital of France?"}]}`, param: "messages",
		whole: `{"id":"chatcmpl-my-id","object":"chat.completion","created":CREATED,"model":"demo:v1.0","choices":[{"index":0,` +
			`"message":{"role":"assistant","content":"The capital of France is Paris.","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":0}}}`,
		start: chatChunk(`{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`),
		text: func(text string) string {
			return chatChunk(`{"index":0,"delta":{"content":"` + text + `"},"logprobs":null,"finish_reason":null}`)
		},
		end: chatChunk(`{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}`) + "data: [DONE]\n\n",
	},
	{
		path: "/v1/completions", body: `{"model":"demo:v1.0","prompt":"What is the capital of France?"}`, param: "prompt",
		whole: `{"id":"cmpl-my-id","object":"text_completion","created":CREATED,"model":"demo:v1.0","choices":[{"text":"The capital of France is Paris.",` +
			`"index":0,"logprobs":null,"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":0}}}`,
		text: func(text string) string {
			return completionChunk(`{"text":"` + text + `","index":0,"logprobs":null,"finish_reason":null}`)
		},
		end: completionChunk(`{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}`) + "data: [DONE]\n\n",
	},
}

func chatChunk(choice string) string {
	return `data: {"id":"chatcmpl-my-id","object":"chat.completion.chunk","created":CREATED,"model":"demo:v1.0","choices":[` + choice + "]}\n\n"
}

func completionChunk(choice string) string {
	return `data: {"id":"cmpl-my-id","object":"text_completion","created":CREATED,"model":"demo:v1.0","choices":[` + choice + "]}\n\n"
}

// forEachOpenAIEndpoint runs a test for both.
func forEachOpenAIEndpoint(t *testing.T, test func(*testing.T, openAIEndpoint)) {
	for _, e := range openAIEndpoints {
		t.Run(strings.TrimPrefix(e.path, "/v1/"), func(t *testing.T) { test(t, e) })
	}
}

// openAIHeaders are those that OpenAI's clients send.
func openAIHeaders(more ...string) []string {
	return append([]string{"Content-Type", "application/json", "Authorization", "Bearer " + testKey, "X-Request-Id", "my-id"}, more...)
}

func (ts *testServer) postOpenAI(e openAIEndpoint, body string, headers ...string) reply {
	ts.t.Helper()
	return ts.do("POST", e.path, body, openAIHeaders(headers...)...)
}

var createdMember = regexp.MustCompile(`"created":(\d+)`)

// hideCreated replaces the time, which must be that of the request and the same everywhere.
func hideCreated(t *testing.T, text string) string {
	t.Helper()
	var times []string
	for _, found := range createdMember.FindAllStringSubmatch(text, -1) {
		times = append(times, found[1])
	}
	if len(slices.Compact(slices.Clone(times))) > 1 {
		t.Errorf("created changes: %v", times)
	}
	for _, at := range times {
		var unix int64
		if err := json.Unmarshal([]byte(at), &unix); err != nil || time.Since(time.Unix(unix, 0)) > waitLimit {
			t.Errorf("created is %s, %v", at, err)
		}
	}
	return createdMember.ReplaceAllString(text, `"created":CREATED`)
}

// decodeOpenAIError reads the body of an error and checks what every error has.
func decodeOpenAIError(t *testing.T, r reply) (typ, code, param string) {
	t.Helper()
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q on an error", got)
	}
	return readOpenAIError(t, r.body)
}

func readOpenAIError(t *testing.T, text string) (typ, code, param string) {
	t.Helper()
	var body struct {
		Error struct {
			Message, Type string
			Param, Code   *string
		}
	}
	decodeExactly(t, text, &body)
	if body.Error.Message == "" {
		t.Error("an error without a message")
	}
	for to, from := range map[*string]*string{&param: body.Error.Param, &code: body.Error.Code} {
		if from != nil {
			*to = *from
		}
	}
	return body.Error.Type, code, param
}

// capitalTable answers at once, with tokens from the cache.
func capitalTable() *fakeTable {
	return &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		switch r.Infer.Model {
		case "nobody/has-it":
			e := api.NewError(api.TypeModelNotFound, "model %s is not installed", api.Quote(r.Infer.Model))
			e.Param = "base_model"
			return nil, e
		case "full":
			return nil, api.QueueFull(256, 2*time.Second)
		}
		a := newAnswer(r)
		a.addText("The capital of France is Paris.")
		endWithCache(a)
		return a, nil
	}}
}

func endWithCache(a *fakeAnswer) {
	a.add(func(p *inflight.Piece) {
		p.Accepted, p.Done = true, true
		p.Result = &inflight.Result{FinishReason: "stop", PromptTokens: 9, CachedTokens: 4, OutputTokens: 8, Seed: 42, GenerationTime: 5 * time.Millisecond}
	})
}
