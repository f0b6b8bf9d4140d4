//go:build llama

package e2e

import (
	"testing"

	"tandem/scripts/models/fixedanswer"
)

// startAgentServer serves models whose answers are always the same, two for each agent. The demo model's context is too
// small for what agents send.
func startAgentServer(t *testing.T) *testServer {
	t.Helper()
	s := newServer(t)
	for _, a := range agents {
		for _, mustCall := range []bool{false, true} {
			said := a.answer(mustCall)
			model, err := fixedanswer.Model("<think>\n" + said.reasoning + "\n</think>\n\n" + said.text +
				"<tool_call>\n{\"name\": \"" + a.call.name + "\", \"arguments\": " + a.call.input + "}\n</tool_call>")
			if err != nil {
				t.Fatal(err)
			}
			s.installModelFile(a.servedModel(mustCall)+"/model.gguf", model)
		}
	}
	s = startServer(t, "MODELS_DIR="+s.dir+"/models", "DEFAULT_MODEL="+agents[0].servedModel(false))
	for _, a := range agents {
		s.waitListed(a.servedModel(false))
		s.waitListed(a.servedModel(true))
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
