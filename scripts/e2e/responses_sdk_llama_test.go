//go:build llama

package e2e

import "testing"

// stepAnswers are the answers of models that always give the same one, by the models' names.
var stepAnswers = map[stepAnswer]struct{ model, answer string }{
	helloAnswer:  {"hello", "Hello there"},
	askAnswer:    {"ask", "<think>\nI ask f\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>"},
	customAnswer: {"custom", "<tool_call>\n" + `{"name": "p", "arguments": {"input": "say \"hi\""}}` + "\n</tool_call>"},
}

func startStepServer(t *testing.T) *testServer {
	t.Helper()
	models := make(map[string]string)
	for _, a := range stepAnswers {
		models[a.model] = a.answer
	}
	return startFixedAnswerServer(t, models)
}

// asks is a model that answers in this way, whatever the message.
func (a stepAnswer) asks() (model, message string) { return stepAnswers[a].model, "What now?" }
