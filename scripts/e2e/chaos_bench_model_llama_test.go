//go:build llama

package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// startBenchModelServer serves the bench model: 130 MB of random weights and a vocabulary of 128,256 tokens. Its logits
// are nearly tied.
func startBenchModelServer(t *testing.T, settings ...string) *testServer {
	t.Helper()
	if os.Getenv("CHAOS_PAUSES") == "" {
		t.Skip("writes 130 MB and computes for minutes: only with CHAOS_PAUSES, as scripts/chaos.sh sets it")
	}
	dir := filepath.Join(filepath.Dir(binaries.proxy), "bench")
	write := exec.Command("go", "run", "tandem/scripts/bench", "model")
	write.Env = append(os.Environ(), "BENCH_DIR="+dir)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("write the bench model: %v\n%s", err, out)
	}
	return startDebugServer(t, append([]string{"MODELS_DIR=" + filepath.Join(dir, "models"), "DEFAULT_MODEL=bench", "CONTEXT=2048"}, settings...)...)
}

func benchModelRequest(i, tokens int) *goldenRequest {
	return newGoldenRequest("bench", fmt.Sprintf("%08d what comes after this?", i*7919), "base", map[string]any{"base_model": "bench", "max_new_tokens": tokens})
}

func TestPauseOfARestartWithTheBenchModel(t *testing.T) {
	s := startBenchModelServer(t, noticeByTheConnection)
	s.measureRestarts(func(i int) *goldenRequest {
		g := benchModelRequest(i, 60)
		s.recordGolden(g)
		return g
	}, 1500*time.Millisecond)
}

// TestNearlyTiedAnswersChangeOnlyWhereTheMarginAllowsIt kills under load, where a replay is computed in other batches
// than before.
func TestNearlyTiedAnswersChangeOnlyWhereTheMarginAllowsIt(t *testing.T) {
	s := startBenchModelServer(t, "REPLAY="+cmp.Or(os.Getenv("CHAOS_REPLAY"), "prefill"))
	c := newChaosTest(s)
	c.minRequests, c.minKills, c.clientCount = 64, 6, 8
	for i := range 12 {
		g := benchModelRequest(i, 50)
		if i%3 == 2 { // top-k and the like off: at their edge a candidate may come or go, which the margin doesn't show
			g.body["temperature"], g.body["seed"], g.body["top_k"], g.body["top_p"], g.body["min_p"] = 0.7, i, 0, 1, 0
		}
		s.recordGolden(g)
		c.requests = append(c.requests, g)
	}
	kills, _ := c.runWithKills(5 * time.Minute)
	within := c.checkChangedAnswers()
	c.reportFailures()
	replays := c.loggedReplays()
	v := c.coverage(replays)
	t.Logf("%d requests, %d kills, %d replays in mid-answer: %d answers go on differently where the margin is below the bound, %d elsewhere", c.requestCount.Load(), kills, v.midAnswer, within, len(c.failures))
	if v.midAnswer < kills {
		t.Errorf("only %d replays in mid-answer", v.midAnswer)
	}
	c.checkMarginShift()
	checkInvariants(t, s.waitIdle())
}
