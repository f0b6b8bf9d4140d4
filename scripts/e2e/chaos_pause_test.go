package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pause is what one kill under one stream cost.
type pause struct{ gap, recovery time.Duration }

// TestPauseOfARestart streams one answer after the other, kills the engine in the middle of each and measures what the client and the
// metrics say. CHAOS_PAUSES sets how many.
func TestPauseOfARestart(t *testing.T) {
	t.Parallel()
	s := newStack(t, "STEP_DELAY=10ms")
	plan := s.firstPlan()
	var all []pause
	for range number("CHAOS_PAUSES", 3) {
		all = append(all, s.pauseOnce(plan))
	}
	gaps, recoveries := make([]time.Duration, 0, len(all)), make([]time.Duration, 0, len(all))
	for _, p := range all {
		gaps, recoveries = append(gaps, p.gap), append(recoveries, p.recovery)
	}
	most := slices.Max(gaps)
	t.Logf("%d restarts: gap seen by the client median %v, most %v; llm_engine_recovery_seconds median %v", len(all), median(gaps), most.Round(time.Millisecond), median(recoveries))
	if most > 10*time.Second {
		t.Errorf("a restart took %v", most)
	}
}

func (s *stack) pauseOnce(plan *chaosPlan) pause {
	s.t.Helper()
	before := s.scrape().sum("llm_engine_recovery_seconds_sum")
	body := fmt.Sprintf(`{"prompt":%q,"adapter_version":%q,"base_model":"demo","max_new_tokens":120,"stream":true}`, plan.body["prompt"], plan.body["adapter_version"])
	var text strings.Builder
	var last time.Time
	var gap time.Duration
	events := 0
	_, err := s.stream(s.t.Context(), body, func(e event) bool {
		now := time.Now()
		if events > 0 {
			gap = max(gap, now.Sub(last))
		}
		last = now
		text.WriteString(pieceOf(e))
		if events++; events == 20 {
			if err := syscall.Kill(s.servingPID(), syscall.SIGKILL); err != nil {
				s.t.Error(err)
			}
		}
		return true
	})
	if err != nil || text.String() != plan.answer {
		s.t.Fatalf("streamed %q, %v; undisturbed %q", text.String(), err, plan.answer)
	}
	return pause{gap, time.Duration((s.scrape().sum("llm_engine_recovery_seconds_sum") - before) * float64(time.Second))}
}
