package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
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
	s := newTalkative(t, "STEP_DELAY=10ms")
	plan := s.firstPlan()
	s.pauses(func(int) *chaosPlan { return plan }, 300*time.Millisecond)
}

// pauses restarts CHAOS_PAUSES times and reports. In the long form, on a machine that has little else to do, the median must stay below a
// limit; the supervisor starts an engine that gave tokens again at once, so no delay of its own is in it.
func (s *stack) pauses(plan func(i int) *chaosPlan, limit time.Duration) {
	t := s.t
	t.Helper()
	c, load := &chaos{s: s}, loadAverage(t)
	n := number("CHAOS_PAUSES", 3)
	var gaps, recoveries []time.Duration
	for i := range n {
		p := c.pauseOnce(plan(i), i)
		gaps, recoveries = append(gaps, p.gap), append(recoveries, p.recovery)
	}
	within := c.judge()
	c.noise()
	for _, f := range c.faults {
		t.Error(f)
	}
	middle, most := median(gaps), slices.Max(gaps)
	t.Logf("%d restarts: gap seen by the client median %v, most %v; llm_engine_recovery_seconds median %v; %d answers went on differently within the margin bound",
		n, middle, most.Round(time.Millisecond), median(recoveries), within)
	if most > 10*time.Second {
		t.Errorf("a restart took %v", most)
	}
	switch busy := load > float64(runtime.NumCPU())/2; {
	case middle <= limit:
	case os.Getenv("CHAOS_PAUSES") == "" || busy:
		t.Logf("the median pause of %v is over %v; the load average was %.1f before", middle, limit, load)
	default:
		t.Errorf("the median pause is %v, promised are %v; the load average was %.1f before", middle, limit, load)
	}
}

// loadAverage of the last minute, of everything on the machine.
func loadAverage(t *testing.T) (load float64) {
	t.Helper()
	raw, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, err = fmt.Sscan(string(raw), &load)
	}
	if err != nil {
		t.Errorf("read the load average: %v", err)
	}
	return load
}

// pauseOnce streams a plan and kills the engine in mid-answer.
func (c *chaos) pauseOnce(plan *chaosPlan, i int) pause {
	s := c.s
	s.t.Helper()
	before := s.scrape().sum("llm_engine_recovery_seconds_sum")
	body := maps.Clone(plan.body)
	body["stream"] = true
	raw, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	var text strings.Builder
	var last time.Time
	var gap time.Duration
	var end answer
	events, id := 0, fmt.Sprintf("pause-%d", i)
	_, err = s.stream(s.t.Context(), string(raw), func(e event) bool {
		now := time.Now()
		if events > 0 {
			gap = max(gap, now.Sub(last))
		}
		last = now
		text.WriteString(pieceOf(e))
		_ = json.Unmarshal([]byte(e.data), &end) // the last one has the whole
		if events++; events == 20 {
			if err := syscall.Kill(s.servingPID(), syscall.SIGKILL); err != nil {
				s.t.Error(err)
			}
		}
		return true
	}, "X-Request-Id", id)
	if err != nil || text.String() != end.Result {
		s.t.Fatalf("streamed %q, %v; last event %+v", text.String(), err, end)
	}
	if end.Result != plan.answer {
		c.differs(changedAnswer{plan, id, end.Result, end.Metadata.Tokens})
	} else {
		c.same(plan, id)
	}
	return pause{gap, time.Duration((s.scrape().sum("llm_engine_recovery_seconds_sum") - before) * float64(time.Second))}
}
