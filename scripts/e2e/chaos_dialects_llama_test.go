//go:build llama

package e2e

import (
	"cmp"
	"os"
	"testing"

	"tandem/scripts/models/fixedanswer"
)

// fixedAnswers are the answers of models whose answer is always the same, by the models' names.
var fixedAnswers = map[answerKind]struct{ model, answer string }{
	plainAnswer:   {"plain", "Once upon a time 🦊 there was a fox who lived in a green forest."},
	thoughtAnswer: {"thought", "<think>\nWho lives in the forest? 🦊\n</think>\n\nFelix does, since he was born."},
	twoCallsAnswer: {"calls", "<think>\nBoth cities, then.\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n" +
		"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Côte d'Azur\"}}\n</tool_call>"},
	everythingAnswer: {"everything", "<think>\nI can't know that.\n</think>\n\nOne moment, I ask somebody. 🦊\n" +
		"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>\n" +
		"<tool_call>\n{\"name\": \"get_time\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>"},
}

// startDialectServer serves the models with fixed answers, in the way that gives equal logits alone and beside others.
func startDialectServer(t *testing.T, tokenDelay string) *testServer {
	t.Helper()
	s := newServer(t)
	for _, a := range fixedAnswers {
		model, err := fixedanswer.Model(a.answer)
		if err != nil {
			t.Fatal(err)
		}
		s.installModelFile(a.model+"/model.gguf", model)
	}
	s = startDebugServer(t, "STEP_DELAY="+tokenDelay, "REPLAY="+cmp.Or(os.Getenv("CHAOS_REPLAY"), "prefill"), "DETERMINISTIC=true", "DEVICE=cpu", "DEMO_MODEL=true", "MODELS_DIR="+s.dir+"/models")
	for _, a := range fixedAnswers {
		s.waitListed(a.model)
	}
	return s
}

// modelStreams are streams of the demo model, whose texts and log-probabilities depend on everything that it has read.
func modelStreams() []dialectStream {
	sampled := func(body map[string]any) map[string]any {
		return with(body, "model", "demo:v1.0", "temperature", 1, "max_tokens", 40)
	}
	chat := func(message string, more ...any) map[string]any {
		return with(sampled(with(chatRequest(plainAnswer), "messages", []any{map[string]any{"role": "user", "content": message}})), more...)
	}
	return []dialectStream{
		{name: "demo chat sampled", path: "/v1/chat/completions", read: takeChat, body: chat("Tell me a story.", "n", 3, "logprobs", true, "top_logprobs", 5),
			says: []string{"content", "content", "content", "logprob"}},
		{name: "demo schema", path: "/v1/chat/completions", read: takeChat, body: chat("What is the capital of Italy?", "response_format",
			map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "city", "schema": citySchema}}), says: []string{"content"}},
		{name: "demo required tool", path: "/v1/chat/completions", read: takeChat, body: chat("What is the capital of Italy?", "tools", chatTools, "tool_choice", "required", "n", 2, "max_tokens", 160),
			says: []string{"call", "call"}},
		{name: "demo completions sampled", path: "/v1/completions", read: takeCompletion, says: []string{"content", "content", "content", "content", "logprob"},
			body: with(sampled(completionRequest(plainAnswer)), "prompt", []string{"Once upon a time", "The capital of"}, "n", 2, "logprobs", 3)},
	}
}

func asks(kind answerKind) (model, message string) {
	return fixedAnswers[kind].model, "Where does the fox live?\n"
}
