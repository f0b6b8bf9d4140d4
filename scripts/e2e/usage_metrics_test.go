package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
)

// reply posts a body and decodes the whole reply.
func (s *testServer) reply(path string, body map[string]any) (map[string]any, error) {
	resp, err := s.openStream(s.t.Context(), path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	d.UseNumber()
	var reply map[string]any
	return reply, d.Decode(&reply)
}

func (s *testServer) mustReply(path string, body map[string]any) map[string]any {
	s.t.Helper()
	reply, err := s.reply(path, body)
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	return reply
}

// chatOf is a chat of the demo model, or of the mock.
func chatOf(message string, more ...any) map[string]any {
	return with(map[string]any{"model": "demo:v1.0", "messages": []any{map[string]any{"role": "user", "content": message}}, "temperature": 0}, more...)
}

// TestAnswersToOnePromptCostOnePrefill: the prompt counts once in usage, in the metrics of requests, and is computed
// once.
func TestAnswersToOnePromptCostOnePrefill(t *testing.T) {
	s := startServer(t)
	message := strings.Repeat("Once there was a fox. ", 20)
	one := whole(object(s.mustReply("/v1/chat/completions", chatOf("Not like the other: "+message, "max_tokens", 8))["usage"])["prompt_tokens"])
	before := s.waitEngineCounts()
	reply := s.mustReply("/v1/chat/completions", chatOf(message, "n", 4, "max_tokens", 8, "temperature", 1, "seed", 3))
	usage := object(reply["usage"])
	after := s.waitEngineCounts()
	grown := func(name string, pairs ...string) int64 {
		return int64(after.sum(name, pairs...)) - int64(before.sum(name, pairs...))
	}
	prompt := whole(usage["prompt_tokens"])
	if len(list(reply["choices"])) != 4 || prompt > one || prompt < one/2 || whole(usage["completion_tokens"]) < 8 {
		t.Errorf("usage %v, the same with one answer and some more words: %d", usage, one)
	}
	if computed := grown("llm_engine_tokens_total", "kind", "prompt"); computed < prompt*9/10 || computed > prompt+16 {
		t.Errorf("%d tokens of prompts were computed for four answers to one of %d", computed, prompt)
	}
	for _, c := range []struct {
		name string
		want int64
		got  int64
	}{
		{"prompt tokens", prompt, grown("llm_prompt_tokens_total")},
		{"output tokens", whole(usage["completion_tokens"]), grown("tokens_generated_total")},
		{"requests", 1, grown("api_requests_total", "endpoint", "/v1/chat/completions", "status", "success")},
		{"inferences", 1, grown("successful_inferences_total")},
		{"prompts", 1, grown("llm_request_prompt_tokens_count")},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d counted, want %d", c.name, c.got, c.want)
		}
	}
	checkInvariants(t, after)
}

// waitEngineCounts waits until the engine's own metrics, which the proxy keeps for a second, have the tokens that the
// proxy has counted.
func (s *testServer) waitEngineCounts() (scraped metrics) {
	s.t.Helper()
	s.waitFor(failureLimit, "newer metrics of the engine", func() bool {
		scraped = s.scrape()
		return scraped.sum("llm_requests_running") == 0 && scraped.sum("llm_engine_tokens_total", "kind", "generated") == scraped.sum("tokens_generated_total")
	})
	return scraped
}

// TestUsageSumsAreTheMetrics: what the replies of all dialects say is what the metrics say.
func TestUsageSumsAreTheMetrics(t *testing.T) {
	s := startServer(t)
	before := s.waitIdle()
	var prompts, outputs int64
	for _, c := range []struct {
		path           string
		body           map[string]any
		prompt, output string // names in usage
	}{
		{"/v1/chat/completions", chatOf("Tell me of a fox.", "n", 2, "max_tokens", 12), "prompt_tokens", "completion_tokens"},
		// from the cache
		{"/v1/chat/completions", chatOf("Tell me of a fox.", "max_tokens", 12), "prompt_tokens", "completion_tokens"},
		{"/v1/chat/completions", chatOf("What is the weather?", "tools", chatTools, "tool_choice", "required", "max_tokens", 60), "prompt_tokens", "completion_tokens"},
		{"/v1/completions", map[string]any{"model": "demo", "prompt": []string{"One fox", "Two foxes", "One fox"}, "n": 2, "max_tokens": 7}, "prompt_tokens", "completion_tokens"},
		{"/v1/completions", map[string]any{"model": "demo", "prompt": "A fox", "echo": true, "logprobs": 2, "max_tokens": 3}, "prompt_tokens", "completion_tokens"},
		{"/v1/responses", map[string]any{"model": "demo", "input": "Hello", "max_output_tokens": 9}, "input_tokens", "output_tokens"},
		{"/v1/messages", map[string]any{"model": "demo", "messages": chatOf("Hello")["messages"], "max_tokens": 9}, "input_tokens", "output_tokens"},
		{"/v1/messages", map[string]any{"model": "demo", "messages": chatOf("Hello")["messages"], "max_tokens": 9}, "input_tokens", "output_tokens"},
		{"/v1/embeddings", map[string]any{"model": "demo", "input": []string{"a fox", "a hare and a fox"}}, "prompt_tokens", "completion_tokens"},
	} {
		usage := object(s.mustReply(c.path, c.body)["usage"])
		prompt := whole(usage[c.prompt]) + whole(usage["cache_read_input_tokens"])
		if prompt == 0 || c.path != "/v1/embeddings" && whole(usage[c.output]) == 0 {
			t.Errorf("%s: usage %v", c.path, usage)
		}
		prompts, outputs = prompts+prompt, outputs+whole(usage[c.output])
	}
	after := s.waitIdle()
	if got := int64(after.sum("llm_prompt_tokens_total") - before.sum("llm_prompt_tokens_total")); got != prompts {
		t.Errorf("%d prompt tokens counted, usage says %d", got, prompts)
	}
	if got := int64(after.sum("tokens_generated_total") - before.sum("tokens_generated_total")); got != outputs {
		t.Errorf("%d output tokens counted, usage says %d", got, outputs)
	}
	if cached := after.sum("llm_prompt_tokens_total", "source", "cache"); !(cached > 0) {
		t.Errorf("%v tokens came from the cache though a prompt came twice", cached)
	}
}

// The metadata of /infer says how many of the prompt's tokens the metric counts as taken from the cache.
func TestCachedTokensOfInfer(t *testing.T) {
	s := startServer(t)
	first, again := s.mustInfer(question("What is the capital of Norway?", "v1.0")), s.mustInfer(question("What is the capital of Norway?", "v1.0"))
	if m := again.Metadata; m.CachedTokens <= 0 || m.CachedTokens >= m.PromptTokens {
		t.Errorf("of the same %d tokens %d come from the cache", m.PromptTokens, m.CachedTokens)
	}
	cached := int(s.waitIdle().sum("llm_prompt_tokens_total", "source", "cache"))
	if sum := first.Metadata.CachedTokens + again.Metadata.CachedTokens; sum != cached {
		t.Errorf("%d tokens from the cache by the replies, %d by the metric", sum, cached)
	}
}

// TestWholeRepliesAreCancelledWithTheirClients: when its client has left, the request is counted as cancelled, and what
// lacks of its answers isn't computed any more, as with streams.
func TestWholeRepliesAreCancelledWithTheirClients(t *testing.T) {
	s := startServer(t, "STEP_DELAY=100ms", "MOCK_TOKEN_DELAY=100ms")
	story := chatOf(longPrompt)["messages"]
	for _, c := range []struct {
		name, path string
		body       map[string]any
	}{
		{"infer", "/infer", map[string]any{"prompt": longPrompt, "base_model": "demo", "max_new_tokens": 200}},
		{"chat", "/v1/chat/completions", chatOf(longPrompt)},
		{"chat n=3", "/v1/chat/completions", chatOf(longPrompt, "n", 3)},
		{"completions", "/v1/completions", map[string]any{"model": "demo", "prompt": []string{longPrompt, longPrompt + " And then?"}, "max_tokens": 200}},
		{"responses", "/v1/responses", map[string]any{"model": "demo:v1.0", "input": longPrompt}},
		{"messages", "/v1/messages", map[string]any{"model": "demo:v1.0", "messages": story, "max_tokens": 200}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.checkCancelled(t, c.path, c.body, func() {}, func(now, before metrics) bool {
				return now.sum("tokens_generated_total") > before.sum("tokens_generated_total")
			}, func() {})
		})
	}
	t.Run("embeddings", func(t *testing.T) {
		hang := func() { s.signalEngine(syscall.SIGSTOP) } // so that they last until the client has left
		goOn := func() { s.signalEngine(syscall.SIGCONT) }
		s.checkCancelled(t, "/v1/embeddings", map[string]any{"model": "demo", "input": []string{"a fox", "a hare"}}, hang, func(now, _ metrics) bool {
			return now.sum("llm_requests_in_flight", "endpoint", "/v1/embeddings") > 0
		}, goOn)
	})
	checkInvariants(t, s.waitIdle())
}

// mostStepsAfterLeaving is how many tokens of an answer may be computed that nobody waits for, which on a busy machine
// is some seconds' work. Answers are longer.
const mostStepsAfterLeaving = 30

// engineCounts are the metrics, those of the engine among them.
func (s *testServer) engineCounts() (scraped metrics) {
	s.t.Helper()
	s.waitFor(failureLimit, "metrics of the engine", func() bool {
		scraped = s.scrape()
		return scraped.sum("llm_engine_go_goroutines") > 0
	})
	return scraped
}

// checkCancelled calls first, asks, leaves when the answer has begun, calls left, and checks that the rest isn't
// computed.
func (s *testServer) checkCancelled(t *testing.T, path string, body map[string]any, first func(), begun func(now, before metrics) bool, left func()) {
	t.Helper()
	before := s.engineCounts()
	first()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ended := make(chan error, 1)
	go func() {
		resp, err := s.openStream(ctx, path, body)
		if err == nil {
			resp.Body.Close()
		}
		ended <- err
	}()
	s.waitFor(failureLimit, "the beginning of an answer", func() bool { return begun(s.scrape(), before) })
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the answer came before its client left: %v", err)
	}
	left()
	s.waitFor(failureLimit, "the end of a cancelled request", func() bool {
		now := s.scrape()
		return now.sum("llm_requests_cancelled_total") == before.sum("llm_requests_cancelled_total")+1 &&
			now.sum("llm_requests_in_flight", "endpoint", path) == 0 && now.sum("llm_requests_running") == 0 && now.sum("llm_requests_waiting") == 0
	})
	after := s.engineCounts()
	grown := func(name string, pairs ...string) float64 {
		return after.sum(name, pairs...) - before.sum(name, pairs...)
	}
	if complete := grown("llm_request_finish_total", "reason", "stop") + grown("llm_request_finish_total", "reason", "length"); complete != 0 {
		t.Errorf("%v answers were completed though nobody waits for any", complete)
	}
	answers := max(1, grown("llm_request_finish_total", "reason", "cancelled"))
	if sent, computed := grown("tokens_generated_total"), grown("llm_engine_tokens_total", "kind", "generated"); computed > sent+mostStepsAfterLeaving*answers {
		t.Errorf("%v tokens were computed, of which %v came before the client left", computed, sent)
	}
}
