//go:build !llama

package e2e

import (
	"cmp"
	"testing"
)

func startAgentServer(t *testing.T) *testServer {
	t.Helper()
	return startServer(t)
}

func (a *agent) servedModel(bool) string { return "demo:v1.0" }

// answer is what the mock is told to say, or else what it is asked, since it echoes.
func (a *agent) answer(mustCall bool) agentReply {
	if mustCall {
		return agentReply{reasoning: agentThought, calls: []agentCall{a.call}}
	}
	return agentReply{text: cmp.Or(a.lastText, goOn)}
}
