package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// servingPID finds the engine process below the supervisor.
func (s *stack) servingPID() int {
	s.t.Helper()
	supervisor := s.engine.cmd.Process.Pid
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		rest := strings.Fields(string(raw)[strings.LastIndex(string(raw), ")")+1:])
		if len(rest) > 1 && rest[1] == strconv.Itoa(supervisor) {
			pid, _ := strconv.Atoi(strings.Fields(string(raw))[0])
			return pid
		}
	}
	return 0
}

func (s *stack) killEngine() {
	s.t.Helper()
	pid := 0
	s.waitFor(10*time.Second, "an engine process", func() bool { pid = s.servingPID(); return pid != 0 })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
}

func TestServerWorksAgainAfterTheEngineWasKilled(t *testing.T) {
	s := newStack(t)
	before := s.mustInfer(question("What is the capital of France?", "v1.0"))
	s.killEngine()
	s.waitFor(20*time.Second, "a restart in the metrics", func() bool { return s.scrape().sum("llm_engine_restarts_total") >= 1 })
	s.waitReady(20 * time.Second)
	after := s.mustInfer(question("What is the capital of France?", "v1.0"))
	if after.Status != 200 || after.Result != before.Result {
		t.Errorf("before %q, after %d %s", before.Result, after.Status, after.Body)
	}
	p := s.waitIdle()
	checkInvariants(t, p)
	if up := p.sum("llm_engine_up"); up != 1 {
		t.Errorf("llm_engine_up is %v", up)
	}
}
