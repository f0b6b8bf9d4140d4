package e2e

import (
	"math"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// enginePID returns the process id of the engine below the supervisor; 0 while there is none.
func (s *testServer) enginePID() int { return s.engine.ChildPID() }

// signalEngine signals the engine process, which must be there before long, and returns its process id.
func (s *testServer) signalEngine(sig syscall.Signal) int {
	s.t.Helper()
	pid := 0
	s.waitFor(failureLimit, "an engine process", func() bool { pid = s.enginePID(); return pid != 0 })
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
	return pid
}

func TestServerWorksAgainAfterTheEngineWasKilled(t *testing.T) {
	s := startServer(t)
	before := s.mustInfer(question("What is the capital of France?", "v1.0"))
	s.signalEngine(syscall.SIGKILL)
	s.waitFor(failureLimit, "a restart in the metrics", func() bool { return s.scrape().sum("llm_engine_restarts_total") >= 1 })
	s.waitReady(failureLimit)
	after := s.mustInfer(question("What is the capital of France?", "v1.0"))
	if after.Status != 200 || after.Result != before.Result {
		t.Errorf("before %q, after %d %s", before.Result, after.Status, after.Body)
	}
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	if up := scraped.sum("llm_engine_up"); up != 1 {
		t.Errorf("llm_engine_up is %v", up)
	}
}

// TestRequestWaitsForTheEngine: without an engine a request waits and is then refused with Retry-After; with an engine
// that comes in time it is answered.
func TestRequestWaitsForTheEngine(t *testing.T) {
	s := newServer(t, "ENGINE_WAIT=1s")
	s.startProxy()
	s.waitProxyAnswers()
	if status, _, _ := s.get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz without an engine is %d", status)
	}
	start := time.Now()
	a := s.mustInfer(question("What is the capital of France?", "v1.0"))
	if a.Status != 503 || a.Error.Type != "engine_unavailable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	if waited := time.Since(start); waited < 900*time.Millisecond || waited > 5*time.Second {
		t.Errorf("refused after %v, ENGINE_WAIT is 1 s", waited)
	}
	s.startEngine()
	s.waitReady(failureLimit)
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Status != 200 {
		t.Errorf("with an engine: %d %s", a.Status, a.Body)
	}
	scraped := s.waitIdle()
	if up := scraped.sum("llm_engine_up"); up != 1 || math.IsNaN(up) {
		t.Errorf("llm_engine_up is %v", up)
	}
}
