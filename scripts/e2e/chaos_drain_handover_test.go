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

// startChaosTest starts a server and records a few requests for its clients, whose answers last some hundred
// milliseconds.
func startChaosTest(t *testing.T, settings ...string) *chaosTest {
	t.Helper()
	return startServer(t, append([]string{"STEP_DELAY=5ms"}, settings...)...).startChaos()
}

// startChaos records a few requests with a running server, for clients that are to be disturbed.
func (s *testServer) startChaos() *chaosTest {
	s.t.Helper()
	c := newChaosTest(s)
	c.clientCount = 8
	c.requests = mockRequests()[:2]
	if withLlama {
		requests := demoModelRequests()
		c.requests = []*goldenRequest{requests[0], requests[5], requests[7]} // greedy, seeded, with a schema
	}
	for _, g := range c.requests {
		s.recordGolden(g)
	}
	return c
}

// waitProgress waits until streams have brought some more events.
func (c *chaosTest) waitProgress(what string) {
	c.server.t.Helper()
	events := c.eventCount.Load()
	c.server.waitFor(failureLimit, what, func() bool { return c.eventCount.Load() >= events+30 })
}

// runUnderLoad does something to a server while clients ask, and asserts that they all got the undisturbed answers.
func (c *chaosTest) runUnderLoad(what string, act func()) metrics {
	c.server.t.Helper()
	finish := c.startClients()
	c.waitProgress("answers before " + what)
	act()
	c.waitProgress("answers after " + what)
	finish()
	c.checkChangedAnswers()
	c.reportFailures()
	scraped := c.server.waitIdle()
	checkInvariants(c.server.t, scraped)
	c.checkCounters(scraped, float64(len(c.requests)))
	return scraped
}

// waitEngineAttached waits until the given number of engines have attached since the start.
func (s *testServer) waitEngineAttached(times int) {
	s.t.Helper()
	s.waitFor(failureLimit, fmt.Sprintf("engine number %d", times), func() bool {
		return len(attachedLine.FindAllString(s.proxy.log.String(), -1)) >= times
	})
}

func TestHungEngineIsReplaced(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t, "ENGINE_STALL_TIMEOUT=10s") // less than that, and one that is only slow may be replaced, too
	scraped := c.runUnderLoad("SIGSTOP", func() {
		c.server.signalEngine(syscall.SIGSTOP)
		c.server.waitEngineAttached(2)
	})
	if n := scraped.sum("llm_engine_restarts_total", "reason", "stall"); n != 1 {
		t.Errorf("%v restarts because of a stall", n)
	}
}

func TestEngineThatHungForAMomentGoesOn(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t)
	scraped := c.runUnderLoad("SIGSTOP and SIGCONT", func() {
		pid := c.server.signalEngine(syscall.SIGSTOP)
		time.Sleep(2 * time.Second) // the fault itself: the engine hangs for two heartbeats
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	if n := scraped.sum("llm_engine_restarts_total"); n != 0 {
		t.Errorf("%v restarts", n)
	}
}

func TestEngineRestartByASignalLosesNothing(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t)
	scraped := c.runUnderLoad("SIGTERM to the engine", func() {
		c.server.signalEngine(syscall.SIGTERM)
		c.server.waitEngineAttached(2)
	})
	if n := scraped.sum("llm_engine_restarts_total", "reason", "upgrade"); n != 1 {
		t.Errorf("%v restarts because of an upgrade", n)
	}
}

func TestHandOverToAnotherEngine(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t)
	scraped := c.runUnderLoad("a hand-over", func() {
		old := c.server.engine
		c.server.startEngine()
		c.server.waitEngineAttached(2)
		old.Signal(syscall.SIGTERM)
		old.waitCleanEnd(t, failureLimit)
	})
	if other := scraped.sum("llm_engine_restarts_total") - scraped.sum("llm_engine_restarts_total", "reason", "upgrade"); other != 0 {
		t.Errorf("%v restarts that were no upgrade", other)
	}
	if n := scraped.sum("llm_engine_recovery_seconds_count"); n != 0 {
		t.Errorf("%v outages in a hand-over", n)
	}
}

func TestDrainWithoutANextEngineFinishesWhatWasAccepted(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t, "STEP_DELAY=30ms", "MOCK_TOKEN_DELAY=30ms") // so that answers last until the drain
	old := c.server.engine
	noMore, wait := c.startStoppableClients()
	c.waitProgress("answers before a drain")
	noMore()
	c.waitAllAtEngine()
	old.Signal(syscall.SIGTERM)
	old.waitCleanEnd(t, failureLimit)
	wait()
	c.checkChangedAnswers()
	c.reportFailures()
	answered := make(chan *answer, 1)
	go func() {
		a, _ := c.server.infer(t.Context(), question("What is the capital of France?", "v1.0"))
		answered <- a
	}()
	c.server.waitFor(failureLimit, "a waiting request", func() bool { return c.server.scrape().sum("llm_requests_waiting") == 1 })
	c.server.startEngine()
	if a := <-answered; a == nil || a.Status != 200 {
		t.Errorf("a request that came without an engine: %+v", a)
	}
}

// waitAllAtEngine waits, when no client sends further requests, until an engine works on all that were sent.
func (c *chaosTest) waitAllAtEngine() {
	c.server.t.Helper()
	c.server.waitFor(failureLimit, "engine that has all requests", func() bool {
		scraped, sent := c.server.scrape(), float64(c.inFlight.Load())
		return scraped.sum("llm_requests_waiting") == 0 && scraped.sum("llm_requests_running") == sent && scraped.sumInference("llm_requests_in_flight") == sent
	})
}

// drainAndRestart ends the first engine and starts the next one when that has ended.
func (c *chaosTest) drainAndRestart() {
	c.server.t.Helper()
	old := c.server.engine
	old.Signal(syscall.SIGTERM)
	old.waitCleanEnd(c.server.t, failureLimit)
	c.server.startEngine()
	c.server.waitEngineAttached(2)
}

// A request that comes while the only engine drains waits for the next engine; otherwise the drain would last for as
// long as anybody asks.
func TestDrainUnderLoadEndsWithItsAnswers(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t)
	c.runUnderLoad("a drain under load", func() {
		c.drainAndRestart()
	})
}

func TestDrainThatIsCutShortLosesNothing(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t, "DRAIN_TIMEOUT=1s")
	c.runUnderLoad("a drain without an end", func() {
		c.drainAndRestart()
	})
}

func TestRestartWithoutTheSocketFile(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t)
	c.runUnderLoad("the loss of the socket file", func() {
		if err := os.Remove(c.server.setting("ENGINE_SOCKET")); err != nil {
			t.Error(err)
		}
		c.server.signalEngine(syscall.SIGKILL)
		c.server.waitEngineAttached(2)
	})
}

func TestRestartWithoutTheCache(t *testing.T) {
	t.Parallel()
	c := startChaosTest(t, "CACHE_DIR="+t.TempDir())
	c.runUnderLoad("the loss of the disk cache", func() {
		if err := os.RemoveAll(c.server.setting("CACHE_DIR")); err != nil {
			t.Error(err)
		}
		c.waitProgress("answers without a cache")
		c.server.signalEngine(syscall.SIGKILL)
		c.server.waitEngineAttached(2)
	})
}

// setting returns the value of a variable that the programs were started with. Of several the last one counts.
func (s *testServer) setting(name string) string {
	value := ""
	for _, e := range s.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// streamLong asks for an answer of a second or more, calls underWay after some events, and returns the text and the
// last event.
func (s *testServer) streamLong(g *goldenRequest, underWay func()) (text string, last event, err error) {
	body := map[string]any{"stream": true}
	for k, v := range g.body {
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
			underWay()
		}
		all.WriteString(textOf(e))
		last = e
		return true
	})
	return all.String(), last, err
}

func TestDrainOfTheProxyFinishesStreams(t *testing.T) {
	onceWithMock(t)
	t.Parallel()
	s := startServer(t, "STEP_DELAY=5ms")
	g := s.recordLongRequest()
	text, last, err := s.streamLong(g, func() { s.proxy.Signal(syscall.SIGTERM) })
	if err != nil || text != g.answer || last.name != "" {
		t.Errorf("stream: %q, last event %+v, %v", text, last, err)
	}
	s.proxy.waitCleanEnd(t, failureLimit)
}

func TestDrainOfTheProxyEndsLongStreamsWithAnError(t *testing.T) {
	onceWithMock(t)
	t.Parallel()
	s := startServer(t, "DRAIN_TIMEOUT=1s", "STEP_DELAY=20ms")
	g := s.recordLongRequest()
	text, last, err := s.streamLong(g, func() { s.proxy.Signal(syscall.SIGTERM) })
	if err != nil || text == "" || !strings.HasPrefix(g.answer, text) || len(text) == len(g.answer) {
		t.Errorf("stream: %q, %v", text, err)
	}
	var end answer
	if err := json.Unmarshal([]byte(last.data), &end); err != nil || last.name != "error" || end.Error.Type == "" {
		t.Errorf("last event %+v: %v", last, err)
	}
	s.proxy.waitCleanEnd(t, failureLimit)
}

// recordLongRequest records a request with a long answer.
func (s *testServer) recordLongRequest() *goldenRequest {
	s.t.Helper()
	g := mockRequests()[0]
	if withLlama {
		g = demoModelRequests()[0]
	}
	s.recordGolden(g)
	return g
}
