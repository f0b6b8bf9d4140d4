package main

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/scripts/await"
	"tandem/scripts/launch"
)

// engineProgramEnv makes this test binary the engine program itself.
const engineProgramEnv = "ENGINE_TEST_PROGRAM"

// awaitLines reads the log until n lines match.
func awaitLines(t *testing.T, log *bufio.Scanner, n int, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var seen []string
	for log.Scan() {
		seen = append(seen, log.Text())
		if re.MatchString(log.Text()) {
			if n--; n == 0 {
				return
			}
		}
	}
	t.Fatalf("the log ends, %d lines with %s are missing:\n%s", n, pattern, strings.Join(seen, "\n"))
}

// TestSupervisorAndEngineOutliveSIGHUPAndTheirLogsReader runs both as processes whose log goes through a pipe.
func TestSupervisorAndEngineOutliveSIGHUPAndTheirLogsReader(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := testEnvironment(t, engineProgramEnv+"=1", "DRAIN_DELAY=0s", "LOG_LEVEL=info")
	log, logEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	supervisor, err := launch.Start("supervisor", program, launch.Environment(env...), logEnd, "supervise")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = supervisor.Stop(0) }() // it has ended unless the test failed
	if err := logEnd.Close(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	awaitLines(t, lines, 1, `msg="engine started"`)
	first := supervisor.ChildPID()
	for _, pid := range []int{supervisor.PID(), first} {
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	awaitLines(t, lines, 2, "SIGHUP changes nothing")
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil { // both write of it, and of the next one, to nobody
		t.Fatal(err)
	}
	c, err := loadConfig(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	await.Until(t, 20*time.Second, "another engine", func() bool {
		pid := supervisor.ChildPID()
		return pid != 0 && pid != first
	})
	awaitStarted(t, c)
	if err := supervisor.Stop(20 * time.Second); err != nil || supervisor.Err() != nil {
		t.Errorf("ended with %v, %v", err, supervisor.Err())
	}
}
