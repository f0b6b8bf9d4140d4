//go:build !llama

package e2e

import "testing"

func startStepServer(t *testing.T) *testServer {
	t.Helper()
	return startServer(t)
}

// asks is a model and a message to which it answers in this way; the mock does what it is told.
func (a stepAnswer) asks() (model, message string) {
	return "demo:v1.0", [...]string{"Hello there", "think I ask f\ncall f {\"a\":1}", `call p {"input":"say \"hi\""}`}[a]
}
