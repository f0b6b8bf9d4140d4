package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// proxyProgramEnv makes this test binary the proxy itself.
const proxyProgramEnv = "PROXY_TEST_PROGRAM"

// awaitLine reads the log up to the first line that matches, and returns its first group.
func awaitLine(t *testing.T, log *bufio.Scanner, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var seen []string
	for log.Scan() {
		if found := re.FindStringSubmatch(log.Text()); found != nil {
			return found[1]
		}
		seen = append(seen, log.Text())
	}
	t.Fatalf("the log ends without %s:\n%s", pattern, strings.Join(seen, "\n"))
	return ""
}

// TestProxyOutlivesSIGHUPAndItsLogsReader runs the proxy as a process whose log goes through a pipe.
func TestProxyOutlivesSIGHUPAndItsLogsReader(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "serve")
	c.Env = append(os.Environ(), proxyProgramEnv+"=1", "AUTH_DISABLED=true", "HOST=127.0.0.1", "PORT=0", "ENGINE_WAIT=100ms", "LOG_LEVEL=info",
		"ENGINE_SOCKET="+filepath.Join(t.TempDir(), "engine.sock"))
	logPipe, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill() }() // it has ended unless the test failed
	log := bufio.NewScanner(logPipe)
	r := &runningProxy{url: "http://" + awaitLine(t, log, `msg=listening address=(\S+)`)}
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, log, `(SIGHUP changes nothing)`)
	if err := logPipe.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the access line of the first request is written to nobody
		if status, body := r.get(t, "/infer"); status != 503 || !strings.Contains(body, "engine_unavailable") {
			t.Errorf("without a reader of the log: %d %s", status, body)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}
