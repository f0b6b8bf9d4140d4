package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/scripts/launch"
)

// binaries are built once for all tests, with the race detector when the tests have it.
var binaries struct{ proxy, engine, cache string }

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "tandem-e2e")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binaries.proxy = filepath.Join(dir, "tandem-proxy")
	binaries.engine = filepath.Join(dir, "tandem-engine")
	binaries.cache = filepath.Join(dir, "cache")
	for program, source := range map[string]string{binaries.proxy: "tandem/proxy", binaries.engine: "tandem/engine"} {
		args := append([]string{"build", "-o", program}, buildFlags(strings.HasSuffix(source, "engine"))...)
		if out, err := exec.Command("go", append(args, source)...).CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build %s: %w\n%s", source, err, out)
		}
	}
	return m.Run(), nil
}

// buildFlags are the flags of go build for a program under test.
func buildFlags(engine bool) (flags []string) {
	if raceDetector {
		flags = append(flags, "-race")
	}
	if engine && engineTags != "" {
		flags = append(flags, "-tags", engineTags)
	}
	return flags
}

// process is one program under test. Its output is shown when the test fails.
type process struct {
	*launch.Process
	log launch.Log
}

func startProcess(t *testing.T, name, program string, env []string, args ...string) *process {
	t.Helper()
	p := &process{}
	var err error
	if p.Process, err = launch.Start(name, program, env, &p.log, args...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, tail(p.log.String(), 12_000))
		}
		if strings.Contains(p.log.String(), "DATA RACE") {
			t.Errorf("%s has a data race:\n%s", name, p.log.String())
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// stop asks the process to end and fails the test when it doesn't end cleanly.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.Stop(failureLimit); err != nil {
		t.Error(err)
	}
}

// waitEnd waits until the process has ended by itself, however it does.
func (p *process) waitEnd(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case <-p.Ended():
	case <-time.After(within):
		t.Fatalf("%s hasn't ended within %v", p.Name, within)
	}
}

// waitCleanEnd waits until the process has ended and fails the test when that isn't with exit status 0.
func (p *process) waitCleanEnd(t *testing.T, within time.Duration) {
	t.Helper()
	p.waitEnd(t, within)
	if err := p.Err(); err != nil {
		t.Errorf("%s: %v", p.Name, err)
	}
}

// runScript runs a script to its end and returns its output and exit code, or -1 when it can't be run.
func runScript(t *testing.T, env []string, script string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), failureLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, args...)
	cmd.Env = env
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Error(err)
		return "", "", -1
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}
