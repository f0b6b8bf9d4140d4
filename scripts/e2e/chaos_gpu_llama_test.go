//go:build llama

package e2e

import "testing"

// TestNoRequestIsLostOnGPUs kills an engine that computes on two GPUs, under load, has a GPU end one by an error, and
// then takes one of these away for good: the next engine goes on with the other.
func TestNoRequestIsLostOnGPUs(t *testing.T) {
	t.Parallel()
	gpu, settings := newTestGPU(t)
	s := startDebugServer(t, append(settings, "DEVICE=testgpu", "TESTGPU_DEVICES=2", "STEP_DELAY=2ms")...)
	c := newChaosTest(s)
	c.minRequests, c.minKills, c.clientCount = 20, 3, 8
	c.requests = s.recordGoldenRequests()
	if computes, installed := s.devices(); computes != "testgpu" || installed != "testgpu: TestGPU0 TestGPU1, cpu: CPU" {
		t.Fatalf("%s computes, there is %s", computes, installed)
	}
	before := s.scrape()
	kills, _ := c.runWithKills(failureLimit)
	c.endEngineBy(gpu, "abort")
	c.endEngineBy(gpu, "gone 1")
	c.checkChangedAnswers()
	c.reportFailures()

	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	c.checkCounters(scraped, before.sum("successful_inferences_total"))
	c.checkCoverage(scraped, kills+2)
	if computes, installed := s.devices(); computes != "testgpu" || installed != "testgpu: TestGPU0, cpu: CPU" {
		t.Errorf("in the end %s computes, there is %s", computes, installed)
	}
}

// endEngineBy has something go wrong with the GPUs while clients read answers, and lets them ask on until they got more
// from the next engine.
func (c *chaosTest) endEngineBy(gpu *testGPU, words string) {
	finish := c.startClients()
	defer finish()
	s := c.server
	began := c.eventCount.Load()
	s.waitFor(failureLimit, "answers under way", func() bool { return c.eventCount.Load() >= began+40 })
	restarts := s.scrape().sum("llm_engine_restarts_total")
	gpu.set(words)
	s.waitFor(failureLimit, "another engine", func() bool {
		scraped := s.scrape()
		return scraped.sum("llm_engine_restarts_total") > restarts && scraped.sum("llm_engine_up") == 1
	})
	asked := c.requestCount.Load()
	s.waitFor(failureLimit, "answers after "+words, func() bool { return c.requestCount.Load() >= asked+10 })
}
