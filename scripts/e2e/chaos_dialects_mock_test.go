//go:build !llama

package e2e

import "testing"

func startDialectServer(t *testing.T, tokenDelay string) *testServer {
	t.Helper()
	return startDebugServer(t, "MOCK_TOKEN_DELAY="+tokenDelay)
}

func modelStreams() []dialectStream { return nil }

// asks is a model and a message to which it answers in this way; the mock does what it is told.
func asks(kind answerKind) (model, message string) {
	switch kind {
	case thoughtAnswer:
		return "demo", "think Who lives in the forest? 🦊\nFelix lives in a green forest."
	case twoCallsAnswer, everythingAnswer:
		return "demo", "think Both cities, then.\ncall get_weather {\"city\":\"Paris\"}\ncall get_weather {\"city\":\"Côte d'Azur\"}"
	}
	return "demo", "Once upon a time 🦊 there was a fox"
}
