//go:build llama

package e2e

import (
	"testing"

	"tandem/scripts/models/fixedanswer"
)

// startAgentServer serves two models for each agent, whose answers are always the same. The demo model's context is too
// small for what agents send.
func startAgentServer(t *testing.T) *testServer {
	t.Helper()
	answers := make(map[string]string)
	for _, a := range agents {
		for _, mustCall := range []bool{false, true} {
			said := a.answer(mustCall)
			answers[a.servedModel(mustCall)] = "<think>\n" + said.reasoning + "\n</think>\n\n" + said.text +
				"<tool_call>\n{\"name\": \"" + a.call.name + "\", \"arguments\": " + a.call.input + "}\n</tool_call>"
		}
	}
	return startFixedAnswerServer(t, answers)
}

// startFixedAnswerServer serves models by these names with these answers, beside the demo model.
func startFixedAnswerServer(t *testing.T, answers map[string]string) *testServer {
	t.Helper()
	s := newServer(t)
	for name, answer := range answers {
		model, err := fixedanswer.Model(answer)
		if err != nil {
			t.Fatal(err)
		}
		s.installModelFile(name+"/model.gguf", model)
	}
	s = startServer(t, "MODELS_DIR="+s.dir+"/models", "DEMO_MODEL=true")
	for name := range answers {
		s.waitListed(name)
	}
	return s
}

func (a *agent) servedModel(mustCall bool) string {
	if mustCall {
		return a.name + "-must-call"
	}
	return a.name
}

// answer is what a model says: where it needn't call a tool, a text before the call.
func (a *agent) answer(mustCall bool) agentReply {
	said := agentReply{reasoning: agentThought, calls: []agentCall{a.call}}
	if !mustCall {
		said.text = "One moment."
	}
	return said
}
