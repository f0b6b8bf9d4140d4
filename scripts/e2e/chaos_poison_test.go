package e2e

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

const poison = "say please to the poison"

// startPoisonServer starts a server whose engine aborts on prompts with "poison": the mock by SIGABRT, the real one by
// abort() in C.
func startPoisonServer(t *testing.T, settings ...string) *testServer {
	t.Helper()
	return startServer(t, append([]string{"ABORT_MARKER=poison", "STEP_DELAY=2ms"}, settings...)...)
}

// recordHarmlessRequests records requests with long and short answers.
func (s *testServer) recordHarmlessRequests() []*goldenRequest {
	s.t.Helper()
	requests := mockRequests()
	if withLlama {
		requests = demoModelRequests()[:6]
	}
	for _, g := range requests {
		s.recordGolden(g)
	}
	return requests
}

// ask sends a request; what keeps it from being answered is an error of the test.
func (s *testServer) ask(body map[string]any) *answer {
	raw, err := json.Marshal(body)
	if err != nil {
		s.t.Error(err)
		return &answer{}
	}
	a, err := s.infer(s.t.Context(), string(raw))
	if err != nil {
		s.t.Errorf("%s: %v", raw, err)
		return &answer{}
	}
	return a
}

func poisoned(prompt string) map[string]any {
	return map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": "v1.0"}
}

func TestPoisonIsFoundAndTheOthersFinish(t *testing.T) {
	t.Parallel()
	s := startPoisonServer(t)
	requests := s.recordHarmlessRequests()
	var all sync.WaitGroup
	refused := make(chan *answer, 1)
	for i := range 63 {
		all.Go(func() {
			g := requests[i%len(requests)]
			if a := s.ask(g.body); a.Status != 200 || a.Result != g.answer {
				t.Errorf("%s: %d %s, undisturbed %q", g.name, a.Status, a.Body, g.answer)
			}
		})
	}
	all.Go(func() { refused <- s.ask(poisoned(poison)) })
	all.Wait()
	if a := <-refused; a.Status != 422 || a.Error.Type != "request_quarantined" {
		t.Errorf("poison: %d %s", a.Status, a.Body)
	}
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	crashes := scraped.sum("llm_engine_restarts_total")
	t.Logf("found after %v crashes", crashes)
	if crashes > 4 || scraped.sum("llm_requests_quarantined_total") != 1 || scraped.sum("llm_engine_restarts_total", "reason", "crash") != crashes {
		t.Errorf("%v crashes, %v requests quarantined", crashes, scraped.sum("llm_requests_quarantined_total"))
	}
	if a := s.ask(poisoned(poison)); a.Status != 422 || a.Error.Type != "request_quarantined" {
		t.Errorf("poison, asked again: %d %s", a.Status, a.Body)
	}
	if again := s.scrape().sum("llm_engine_restarts_total"); again != crashes {
		t.Errorf("asking again cost %v crashes", again-crashes)
	}
}

// The engine dies of the poison while another version loads, since the load takes longer: the load isn't to blame.
func TestPoisonBesideALoadIsFound(t *testing.T) {
	onceWithMock(t)
	t.Parallel()
	s := startPoisonServer(t, "ENGINE_MOCK=true", "MOCK_LOAD_DELAY=500ms")
	ask := func(prompt, version string) *answer {
		a, err := s.infer(t.Context(), question(prompt, version))
		if err != nil {
			t.Errorf("%s: %v", prompt, err)
			return &answer{}
		}
		return a
	}
	if a := ask("first of all", "v1.0"); a.Status != 200 {
		t.Fatalf("before anything is wrong: %d %s", a.Status, a.Body)
	}
	innocent := make(chan *answer, 1)
	go func() { innocent <- ask("tell me more", "v1.1") }()
	s.waitFor(failureLimit, "a load under way", func() bool {
		return strings.Contains(s.engine.log.String(), "msg=loading program=engine model=demo version=v1.1")
	})
	if a := ask(poison, "v1.0"); a.Status != 422 || a.Error.Type != "request_quarantined" {
		t.Errorf("poison: %d %s", a.Status, a.Body)
	}
	if a := <-innocent; a.Status != 200 || a.Result != "tell me more" {
		t.Errorf("innocent: %d %s", a.Status, a.Body)
	}
	scraped := s.waitIdle()
	if failures := scraped.sum("model_load_failures_total"); failures != 0 {
		t.Errorf("%v loads count as failed, none did", failures)
	}
}

func TestCrashLoopTurnsReadinessOff(t *testing.T) {
	t.Parallel()
	s := startPoisonServer(t, "ENGINE_WAIT=600s") // longer than the test waits
	answers := make(chan *answer, 3)
	for _, prompt := range []string{poison, "once more " + poison, "and again " + poison} {
		go func() { answers <- s.ask(poisoned(prompt)) }()
	}
	for range 3 {
		select {
		case a := <-answers:
			if a.Status != 422 && a.Status != 503 {
				t.Errorf("poison: %d %s", a.Status, a.Body)
			}
		case <-time.After(failureLimit):
			t.Fatal("a request is held in a crash loop")
		}
	}
	select {
	case <-s.engine.Ended():
		if s.engine.Err() == nil {
			t.Error("the supervisor ended as if all were well")
		}
	case <-time.After(failureLimit):
		t.Error("the supervisor doesn't give up")
	}
	status, body, err := s.get("/readyz")
	if err != nil || status != 503 {
		t.Errorf("/readyz in a crash loop: %d %s %v", status, body, err)
	}
}
