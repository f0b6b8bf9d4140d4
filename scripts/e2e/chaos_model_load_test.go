package e2e

import (
	"strconv"
	"sync"
	"testing"
)

// TestVersionWhoseLoadKillsTheEngineIsRefused asks for a version whose load aborts the engine, while other requests
// run.
func TestVersionWhoseLoadKillsTheEngineIsRefused(t *testing.T) {
	t.Parallel()
	startServer(t, "ABORT_LOAD=demo@v2.0", "STEP_DELAY=2ms").checkDeadlyLoadIsRefused("demo", "v2.0")
}

// checkDeadlyLoadIsRefused asserts that a model whose load kills the engine is refused after two crashes, and that all
// other requests get the undisturbed answers.
func (s *testServer) checkDeadlyLoadIsRefused(model, version string) {
	t := s.t
	t.Helper()
	requests := []*goldenRequest{mockRequests()[0], mockRequests()[2]}
	if withLlama {
		demo := demoModelRequests()
		requests = []*goldenRequest{demo[0], demo[2], demo[5]}
	}
	for _, g := range requests {
		s.recordGolden(g)
	}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			g := requests[i%len(requests)]
			if a := s.ask(g.body); a.Status != 200 || a.Result != g.answer {
				t.Errorf("%s: %d %s, undisturbed %q", g.name, a.Status, a.Body, g.answer)
			}
		})
	}
	askDeadly := func() {
		a := s.ask(map[string]any{"prompt": "What is the capital of Italy?", "base_model": model, "adapter_version": version})
		after, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if a.Status != 503 || a.Error.Type != "model_load_failed" || err != nil || after < 500 {
			t.Errorf("a model whose load kills: %d %s, Retry-After %d (%v); QUARANTINE_TTL is 10 min", a.Status, a.Body, after, err)
		}
	}
	for range 3 {
		all.Go(askDeadly)
	}
	all.Wait()
	askDeadly() // is refused without another crash now
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	if n := scraped.sum("model_load_failures_total", "model", model, "version", version, "reason", "engine_crash"); n != 2 {
		t.Errorf("%v deaths in the load are counted", n)
	}
	if n := scraped.sum("llm_engine_restarts_total", "reason", "crash"); n != 2 || scraped.sum("llm_engine_restarts_total") != n {
		t.Errorf("%v restarts after a crash, %v in all", n, scraped.sum("llm_engine_restarts_total"))
	}
	if n := scraped.sum("llm_requests_quarantined_total"); n != 0 {
		t.Errorf("%v requests were quarantined", n)
	}
}
