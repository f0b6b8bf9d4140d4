package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newChaos starts a server under a steady load of a few plans whose answers last some hundred milliseconds.
func newChaos(t *testing.T, settings ...string) *chaos {
	t.Helper()
	return newStack(t, append([]string{"STEP_DELAY=5ms"}, settings...)...).chaos()
}

// chaos gives a server that is up clients with plans, already learnt.
func (s *stack) chaos() *chaos {
	s.t.Helper()
	c := &chaos{s: s, ripe: make(chan struct{}, 1), streams: make(map[string]stream), clients: 8}
	c.plans = mockPlans()[:2]
	if realModel {
		all := realPlans()
		c.plans = []*chaosPlan{all[0], all[5], all[7]} // greedy, seeded, with a schema
	}
	for _, p := range c.plans {
		s.learnOne(p)
	}
	return c
}

// goesOn waits until answers have made progress since the call.
func (c *chaos) goesOn(what string) {
	c.s.t.Helper()
	events := c.events.Load()
	c.s.waitFor(30*time.Second, what, func() bool { return c.events.Load() >= events+30 })
}

// disturb does something to a server under load, and asserts that every answer was the undisturbed one all the same.
func (c *chaos) disturb(what string, act func()) page {
	c.s.t.Helper()
	finish := c.keepAsking()
	c.goesOn("answers before " + what)
	act()
	c.goesOn("answers after " + what)
	finish()
	c.judge()
	for _, f := range c.faults {
		c.s.t.Error(f)
	}
	p := c.s.waitIdle()
	checkInvariants(c.s.t, p)
	c.checkCounters(p, float64(len(c.plans)))
	return p
}

func (s *stack) signalEngine(sig syscall.Signal) int {
	s.t.Helper()
	pid := 0
	s.waitFor(10*time.Second, "an engine process", func() bool { pid = s.servingPID(); return pid != 0 })
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// engineAttached waits until so many engines have said hello.
func (s *stack) engineAttached(times int) {
	s.t.Helper()
	s.waitFor(20*time.Second, fmt.Sprintf("engine number %d", times), func() bool {
		return len(attachedLine.FindAllString(s.proxy.log.String(), -1)) >= times
	})
}

func (p *process) mustEnd(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case <-p.done:
		if p.err != nil {
			t.Errorf("%s: %v", p.name, p.err)
		}
	case <-time.After(limit):
		t.Errorf("%s hasn't ended within %v", p.name, limit)
	}
}

func TestHungEngineIsReplaced(t *testing.T) {
	t.Parallel()
	c := newChaos(t, "ENGINE_STALL_TIMEOUT=3s")
	p := c.disturb("SIGSTOP", func() {
		c.s.signalEngine(syscall.SIGSTOP)
		c.s.engineAttached(2)
	})
	if n := p.sum("llm_engine_restarts_total", "reason", "stall"); n != 1 {
		t.Errorf("%v restarts because of a stall", n)
	}
}

func TestEngineThatHungForAMomentGoesOn(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	p := c.disturb("SIGSTOP and SIGCONT", func() {
		pid := c.s.signalEngine(syscall.SIGSTOP)
		time.Sleep(2 * time.Second) // as long as it hangs: two heartbeats are missing
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	if n := p.sum("llm_engine_restarts_total"); n != 0 {
		t.Errorf("%v restarts", n)
	}
}

func TestEngineRestartByASignalLosesNothing(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	p := c.disturb("SIGTERM to the engine", func() {
		c.s.signalEngine(syscall.SIGTERM)
		c.s.engineAttached(2)
	})
	if n := p.sum("llm_engine_restarts_total", "reason", "upgrade"); n != 1 {
		t.Errorf("%v restarts because of an upgrade", n)
	}
}

func TestHandOverToAnotherEngine(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	p := c.disturb("a hand-over", func() {
		old := c.s.engine
		c.s.startEngine()
		c.s.engineAttached(2)
		old.cmd.Process.Signal(syscall.SIGTERM)
		old.mustEnd(t, 20*time.Second)
	})
	if other := p.sum("llm_engine_restarts_total") - p.sum("llm_engine_restarts_total", "reason", "upgrade"); other != 0 {
		t.Errorf("%v restarts that were no upgrade", other)
	}
	if n := p.sum("llm_engine_recovery_seconds_count"); n != 0 {
		t.Errorf("%v outages in a hand-over", n)
	}
}

func TestDrainWithoutANextEngineFinishesWhatWasAccepted(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	old := c.s.engine
	finish := c.keepAsking()
	c.goesOn("answers before a drain")
	go finish() // what is in hand, and nothing more
	old.cmd.Process.Signal(syscall.SIGTERM)
	old.mustEnd(t, 20*time.Second)
	c.s.waitFor(20*time.Second, "the last answers", func() bool { return c.inFlight.Load() == 0 })
	c.judge()
	for _, f := range c.faults {
		t.Error(f)
	}
	answered := make(chan *answer, 1)
	go func() {
		a, _ := c.s.infer(t.Context(), question("What is the capital of France?", "v1.0"))
		answered <- a
	}()
	c.s.waitFor(10*time.Second, "a waiting request", func() bool { return c.s.scrape().sum("llm_requests_waiting") == 1 })
	c.s.startEngine()
	if a := <-answered; a == nil || a.Status != 200 {
		t.Errorf("a request that came without an engine: %+v", a)
	}
}

// What comes while the only engine drains waits for the next one; otherwise the drain would last for as long as somebody asks.
func TestDrainUnderLoadEndsWithItsAnswers(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	c.disturb("a drain under load", func() {
		old := c.s.engine
		old.cmd.Process.Signal(syscall.SIGTERM)
		old.mustEnd(t, 20*time.Second)
		c.s.startEngine()
		c.s.engineAttached(2)
	})
}

func TestDrainThatIsCutShortLosesNothing(t *testing.T) {
	t.Parallel()
	c := newChaos(t, "DRAIN_TIMEOUT=1s")
	c.disturb("a drain without an end", func() {
		old := c.s.engine
		old.cmd.Process.Signal(syscall.SIGTERM)
		old.mustEnd(t, 20*time.Second)
		c.s.startEngine()
		c.s.engineAttached(2)
	})
}

func TestRestartWithoutTheSocketFile(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	c.disturb("the loss of the socket file", func() {
		if err := os.Remove(c.s.setting("ENGINE_SOCKET")); err != nil {
			t.Error(err)
		}
		c.s.signalEngine(syscall.SIGKILL)
		c.s.engineAttached(2)
	})
}

func TestRestartWithoutTheCache(t *testing.T) {
	t.Parallel()
	c := newChaos(t, "CACHE_DIR="+t.TempDir())
	c.disturb("the loss of the disk cache", func() {
		if err := os.RemoveAll(c.s.setting("CACHE_DIR")); err != nil {
			t.Error(err)
		}
		c.goesOn("answers without a cache")
		c.s.signalEngine(syscall.SIGKILL)
		c.s.engineAttached(2)
	})
}

// setting gives what the programs got; the last one counts.
func (s *stack) setting(name string) string {
	value := ""
	for _, e := range s.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// longStream asks for an answer of a second or more, calls begun after some events and gives what came.
func (s *stack) longStream(p *chaosPlan, begun func()) (text string, last event, err error) {
	body := map[string]any{"stream": true}
	for k, v := range p.body {
		body[k] = v
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return "", event{}, err
	}
	events := 0
	var all strings.Builder
	_, err = s.stream(s.t.Context(), string(raw), func(e event) bool {
		if events++; events == 5 {
			begun()
		}
		all.WriteString(pieceOf(e))
		last = e
		return true
	})
	return all.String(), last, err
}

func TestDrainOfTheProxyFinishesStreams(t *testing.T) {
	t.Parallel()
	s := newStack(t, "STEP_DELAY=5ms")
	p := s.firstPlan()
	text, last, err := s.longStream(p, func() { s.proxy.cmd.Process.Signal(syscall.SIGTERM) })
	if err != nil || text != p.answer || last.name != "" {
		t.Errorf("stream: %q, last event %+v, %v", text, last, err)
	}
	s.proxy.mustEnd(t, 20*time.Second)
}

func TestDrainOfTheProxyEndsLongStreamsWithAnError(t *testing.T) {
	t.Parallel()
	s := newStack(t, "DRAIN_TIMEOUT=1s", "STEP_DELAY=20ms")
	p := s.firstPlan()
	text, last, err := s.longStream(p, func() { s.proxy.cmd.Process.Signal(syscall.SIGTERM) })
	if err != nil || text == "" || !strings.HasPrefix(p.answer, text) || len(text) == len(p.answer) {
		t.Errorf("stream: %q, %v", text, err)
	}
	var end answer
	if err := json.Unmarshal([]byte(last.data), &end); err != nil || last.name != "error" || end.Error.Type == "" {
		t.Errorf("last event %+v: %v", last, err)
	}
	s.proxy.mustEnd(t, 20*time.Second)
}

// firstPlan is one with a long answer, already learnt.
func (s *stack) firstPlan() *chaosPlan {
	s.t.Helper()
	p := mockPlans()[0]
	if realModel {
		p = realPlans()[0]
	}
	s.learnOne(p)
	return p
}
