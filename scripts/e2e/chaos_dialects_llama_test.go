//go:build llama

package e2e

import (
	"testing"

	"tandem/scripts/models/fixedanswer"
)

// fixedAnswers are the answers of models whose answer is always the same, by the models' names.
var fixedAnswers = map[answerKind]struct{ model, answer string }{
	plainAnswer:   {"plain", "Once upon a time 🦊 there was a fox who lived in a green forest."},
	thoughtAnswer: {"thought", "<think>\nWho lives in the forest? 🦊\n</think>\n\nFelix does, since he was born."},
	twoCallsAnswer: {"calls", "<think>\nBoth cities, then.\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n" +
		"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Côte d'Azur\"}}\n</tool_call>"},
}

// startDialectServer serves the models with fixed answers, in the way that gives equal logits alone and beside others.
func startDialectServer(t *testing.T) *testServer {
	t.Helper()
	s := newServer(t)
	for _, a := range fixedAnswers {
		model, err := fixedanswer.Model(a.answer)
		if err != nil {
			t.Fatal(err)
		}
		s.installModelFile(a.model+"/model.gguf", model)
	}
	s = startDebugServer(t, "STEP_DELAY=10ms", "DETERMINISTIC=true", "DEMO_MODEL=true", "MODELS_DIR="+s.dir+"/models")
	for _, a := range fixedAnswers {
		s.waitListed(a.model)
	}
	return s
}

func asks(kind answerKind) (model, message string) {
	return fixedAnswers[kind].model, "Where does the fox live?\n"
}
