package e2e

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

const poison = "say please to the poison"

// newPoisonable is a server whose engine aborts at the marker: only the mock engine does that.
func newPoisonable(t *testing.T, settings ...string) *stack {
	t.Helper()
	return newStack(t, append([]string{"ENGINE_MOCK=true", "MOCK_ABORT_MARKER=poison", "STEP_DELAY=2ms"}, settings...)...)
}

func TestPoisonIsFoundAndTheOthersFinish(t *testing.T) {
	t.Parallel()
	s := newPoisonable(t)
	var all sync.WaitGroup
	refused := make(chan *answer, 1)
	ask := func(prompt string) *answer {
		raw, _ := json.Marshal(map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": "v1.0"})
		a, err := s.infer(t.Context(), string(raw))
		if err != nil {
			t.Errorf("%s: %v", prompt, err)
			return &answer{}
		}
		return a
	}
	for i := range 63 {
		all.Go(func() {
			prompt := strings.Repeat("tell me more ", 5+i%7)
			if a := ask(prompt); a.Status != 200 || a.Result != prompt {
				t.Errorf("innocent: %d %s", a.Status, a.Body)
			}
		})
	}
	all.Go(func() { refused <- ask(poison) })
	all.Wait()
	if a := <-refused; a.Status != 422 || a.Error.Type != "request_quarantined" {
		t.Errorf("poison: %d %s", a.Status, a.Body)
	}
	p := s.waitIdle()
	crashes := p.sum("llm_engine_restarts_total")
	t.Logf("found after %v crashes", crashes)
	if crashes > 4 || p.sum("llm_requests_quarantined_total") != 1 || p.sum("llm_engine_restarts_total", "reason", "crash") != crashes {
		t.Errorf("%v crashes, %v requests quarantined", crashes, p.sum("llm_requests_quarantined_total"))
	}
	if a := ask(poison); a.Status != 422 || a.Error.Type != "request_quarantined" {
		t.Errorf("poison, asked again: %d %s", a.Status, a.Body)
	}
	if again := s.scrape().sum("llm_engine_restarts_total"); again != crashes {
		t.Errorf("asking again cost %v crashes", again-crashes)
	}
}

func TestCrashLoopTurnsReadinessOff(t *testing.T) {
	t.Parallel()
	s := newPoisonable(t, "ENGINE_WAIT=60s")
	answers := make(chan *answer, 3)
	for _, prompt := range []string{poison, "once more " + poison, "and again " + poison} {
		go func() {
			raw, _ := json.Marshal(map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": "v1.0"})
			a, err := s.infer(t.Context(), string(raw))
			if err != nil {
				t.Errorf("%s: %v", prompt, err)
				a = &answer{}
			}
			answers <- a
		}()
	}
	for range 3 {
		select {
		case a := <-answers:
			if a.Status != 422 && a.Status != 503 {
				t.Errorf("poison: %d %s", a.Status, a.Body)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("a request is held in a crash loop")
		}
	}
	select {
	case <-s.engine.done:
		if s.engine.err == nil {
			t.Error("the supervisor ended as if all were well")
		}
	case <-time.After(10 * time.Second):
		t.Error("the supervisor doesn't give up")
	}
	status, body, err := s.get("/readyz")
	if err != nil || status != 503 {
		t.Errorf("/readyz in a crash loop: %d %s %v", status, body, err)
	}
}
