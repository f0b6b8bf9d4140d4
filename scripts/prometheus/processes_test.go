package prometheus

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"tandem/scripts/await"
	"tandem/scripts/launch"
)

// binaries are the programs that scripts/test-prometheus.sh built, and the folder of their logs.
type binaries struct{ prometheus, proxy, engine, rules, logs string }

func binariesFromEnv(t *testing.T) binaries {
	t.Helper()
	b := binaries{os.Getenv("PROMETHEUS"), os.Getenv("PROXY"), os.Getenv("ENGINE"), os.Getenv("RULES"), os.Getenv("LOGS")}
	if b.prometheus == "" {
		t.Skip("PROMETHEUS names no Prometheus; scripts/test-prometheus.sh builds one")
	}
	if b.proxy == "" || b.engine == "" || b.rules == "" || b.logs == "" {
		t.Fatal("PROXY, ENGINE, RULES (a program) and LOGS (a folder) must be set too")
	}
	return b
}

// startProcess starts a program that runs until the test ends or stop. Its output goes to a file in the folder of logs.
func startProcess(t *testing.T, logs, name, program string, env []string, args ...string) *launch.Process {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p, err := launch.Start(name, program, env, file, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	return p
}

// stop asks the process to end and waits until it has. With what status it ends doesn't matter: its log says why.
func stop(t *testing.T, p *launch.Process) {
	t.Helper()
	var status *exec.ExitError
	if err := p.Stop(20 * time.Second); err != nil && !errors.As(err, &status) {
		t.Error(err)
	}
}

// eventually polls until ok returns nil, and returns its last error if it doesn't in time.
func eventually(within, interval time.Duration, ok func() error) error {
	var err error
	if await.Every(interval, within, func() bool { err = ok(); return err == nil }) {
		return nil
	}
	return fmt.Errorf("not within %v: %w", within, err)
}
