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

// benchStack serves the bench model: 130 MB of random weights and a vocabulary of 128,256 tokens. Its logits are nearly tied.
func benchStack(t *testing.T, settings ...string) *stack {
	t.Helper()
	if os.Getenv("CHAOS_PAUSES") == "" {
		t.Skip("writes 130 MB and computes for minutes: only with CHAOS_PAUSES, as scripts/chaos.sh sets it")
	}
	dir := filepath.Join(filepath.Dir(programs.proxy), "bench")
	write := exec.Command("go", "run", "tandem/scripts/bench", "model")
	write.Env = append(os.Environ(), "BENCH_DIR="+dir)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("write the bench model: %v\n%s", err, out)
	}
	return newTalkative(t, append([]string{"MODELS_DIR=" + filepath.Join(dir, "models"), "DEFAULT_MODEL=bench", "CONTEXT=2048"}, settings...)...)
}

func benchPlan(i, tokens int) *chaosPlan {
	return newPlan("bench", fmt.Sprintf("%08d what comes after this?", i*7919), "base", map[string]any{"base_model": "bench", "max_new_tokens": tokens})
}

func TestPauseOfARestartWithTheBenchModel(t *testing.T) {
	s := benchStack(t)
	s.pauses(func(i int) *chaosPlan {
		p := benchPlan(i, 60)
		s.learnOne(p)
		return p
	}, 1500*time.Millisecond)
}

// TestNearlyTiedAnswersChangeOnlyWhereTheMarginAllowsIt kills under load, where a replay is computed in other batches than before.
func TestNearlyTiedAnswersChangeOnlyWhereTheMarginAllowsIt(t *testing.T) {
	s := benchStack(t, "REPLAY="+cmp.Or(os.Getenv("CHAOS_REPLAY"), "prefill"))
	c := &chaos{s: s, ripe: make(chan struct{}, 1), streams: make(map[string]stream), requests: 64, kills: 6, clients: 8}
	for i := range 12 {
		p := benchPlan(i, 50)
		if i%3 == 2 { // without a cut of the candidates: at its edge one may come or go, of which the margin says nothing
			p.body["temperature"], p.body["seed"], p.body["top_k"], p.body["top_p"], p.body["min_p"] = 0.7, i, 0, 1, 0
		}
		s.learnOne(p)
		c.plans = append(c.plans, p)
	}
	kills, _ := c.run(5 * time.Minute)
	within := c.judge()
	for _, f := range c.faults {
		t.Error(f)
	}
	replays := c.replays()
	v := c.coverage(replays)
	t.Logf("%d requests, %d kills, %d replays in mid-answer: %d answers go on differently where the margin is below the bound, %d elsewhere", c.asked.Load(), kills, v.middle, within, len(c.faults))
	if v.middle < kills {
		t.Errorf("only %d replays in mid-answer", v.middle)
	}
	c.noise()
	checkInvariants(t, s.waitIdle())
}
