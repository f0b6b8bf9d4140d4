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

// restartCost is what one kill cost one stream: the gap that its client saw, and the recovery time in the metrics.
type restartCost struct{ gap, recovery time.Duration }

// TestPauseOfARestart streams one answer after the other, kills the engine in the middle of each and measures what the
// client and the metrics see. CHAOS_PAUSES sets how many.
func TestPauseOfARestart(t *testing.T) {
	t.Parallel()
	s := startDebugServer(t, "STEP_DELAY=10ms", noticeByTheConnection)
	g := s.recordLongRequest()
	s.measureRestarts(func(int) *goldenRequest { return g }, 300*time.Millisecond)
}

// noticeByTheConnection makes an engine's silence count so late that a restart for it takes longer than mostPause: what
// ends a pause sooner has noticed that the connection broke.
const (
	noticeByTheConnection = "ENGINE_STALL_TIMEOUT=5m"
	mostPause             = 2 * time.Minute
)

// measureRestarts restarts CHAOS_PAUSES times and reports. In the long form, on a machine that is otherwise idle, the
// median must stay below a limit. The supervisor restarts an engine that has produced tokens at once, so the measured
// time contains no back-off.
func (s *testServer) measureRestarts(request func(i int) *goldenRequest, limit time.Duration) {
	t := s.t
	t.Helper()
	c, load := newChaosTest(s), loadAverage(t)
	n := envNumber("CHAOS_PAUSES", 3)
	var gaps, recoveries []time.Duration
	for i := range n {
		p := c.measureRestart(request(i), i)
		gaps, recoveries = append(gaps, p.gap), append(recoveries, p.recovery)
	}
	explained := c.checkChangedAnswers()
	c.checkMarginShift()
	c.reportFailures()
	middle, most := median(gaps), slices.Max(gaps)
	t.Logf("%d restarts: gap seen by the client median %v, most %v; llm_engine_recovery_seconds median %v; %d answers went on differently within the margin bound",
		n, middle, most.Round(time.Millisecond), median(recoveries), explained)
	if most > mostPause {
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

// loadAverage returns the load average of the machine over the last minute.
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

// measureRestart streams an answer and kills the engine in the middle of it.
func (c *chaosTest) measureRestart(g *goldenRequest, i int) restartCost {
	s := c.server
	s.t.Helper()
	before := s.scrape().sum("llm_engine_recovery_seconds_sum")
	body := maps.Clone(g.body)
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
		text.WriteString(textOf(e))
		_ = json.Unmarshal([]byte(e.data), &end) // only the last event has these fields
		if events++; events == 20 {
			s.signalEngine(syscall.SIGKILL)
		}
		return true
	}, "X-Request-Id", id)
	if err != nil || text.String() != end.Result {
		s.t.Fatalf("streamed %q, %v; last event %+v", text.String(), err, end)
	}
	if end.Result != g.answer {
		c.recordChanged(changedAnswer{g, id, end.Result, end.Metadata.Tokens})
	} else {
		c.recordUnchanged(g, id)
	}
	return restartCost{gap, time.Duration((s.scrape().sum("llm_engine_recovery_seconds_sum") - before) * float64(time.Second))}
}
