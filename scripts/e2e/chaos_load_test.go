package e2e

import (
	"strconv"
	"sync"
	"testing"
)

// TestVersionWhoseLoadKillsTheEngineIsRefused asks for a version whose load aborts the engine, beside others that go on.
func TestVersionWhoseLoadKillsTheEngineIsRefused(t *testing.T) {
	t.Parallel()
	newStack(t, "ABORT_LOAD=demo@v2.0", "STEP_DELAY=2ms").survivesLoad("demo", "v2.0")
}

// survivesLoad asserts that a model whose load kills the engine is refused after two deaths, and that all else is answered as ever.
func (s *stack) survivesLoad(model, version string) {
	t := s.t
	t.Helper()
	plans := []*chaosPlan{mockPlans()[0], mockPlans()[2]}
	if realModel {
		all := realPlans()
		plans = []*chaosPlan{all[0], all[2], all[5]}
	}
	for _, p := range plans {
		s.learnOne(p)
	}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			p := plans[i%len(plans)]
			if a := s.ask(p.body); a.Status != 200 || a.Result != p.answer {
				t.Errorf("%s: %d %s, undisturbed %q", p.name, a.Status, a.Body, p.answer)
			}
		})
	}
	deadly := func() {
		a := s.ask(map[string]any{"prompt": "What is the capital of Italy?", "base_model": model, "adapter_version": version})
		after, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if a.Status != 503 || a.Error.Type != "model_load_failed" || err != nil || after < 500 {
			t.Errorf("a model whose load kills: %d %s, Retry-After %d (%v); QUARANTINE_TTL is 10 min", a.Status, a.Body, after, err)
		}
	}
	for range 3 {
		all.Go(deadly)
	}
	all.Wait()
	deadly() // again, which costs nothing now
	p := s.waitIdle()
	checkInvariants(t, p)
	if n := p.sum("model_load_failures_total", "model", model, "version", version, "reason", "engine_crash"); n != 2 {
		t.Errorf("%v deaths in the load are counted", n)
	}
	if n := p.sum("llm_engine_restarts_total", "reason", "crash"); n != 2 || p.sum("llm_engine_restarts_total") != n {
		t.Errorf("%v restarts after a crash, %v in all", n, p.sum("llm_engine_restarts_total"))
	}
	if n := p.sum("llm_requests_quarantined_total"); n != 0 {
		t.Errorf("%v requests were quarantined", n)
	}
}
