package launch

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/scripts/await"
)

func TestStopEndsAProcess(t *testing.T) {
	for script, want := range map[string]string{
		"trap 'exit 0' TERM; echo up; sleep 60 & wait": "",
		"trap 'exit 3' TERM; echo up; sleep 60 & wait": "exit status 3",
		"trap '' TERM; echo up; sleep 60 & wait":       "didn't end within 200ms",
	} {
		output, err := os.CreateTemp(t.TempDir(), "output") // a file, so that nobody waits for the sleep that is left
		if err != nil {
			t.Fatal(err)
		}
		p, err := Start("sh", "sh", Environment(), output, "-c", script)
		if err != nil {
			t.Fatal(err)
		}
		await.Until(t, 10*time.Second, "the script runs its sleep", func() bool {
			text, err := os.ReadFile(output.Name())
			return err == nil && string(text) == "up\n" && p.ChildPID() != 0
		})
		sleep := p.ChildPID()
		within := 10 * time.Second
		if strings.HasPrefix(want, "didn't") {
			within = 200 * time.Millisecond
		}
		err = p.Stop(within)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", script, err, want)
		}
		if err := p.Stop(0); err != nil {
			t.Errorf("stopped again: %v", err)
		}
		_ = syscall.Kill(sleep, syscall.SIGKILL)
	}
}

func TestOutputIsKept(t *testing.T) {
	var log Log
	p, err := Start("sh", "sh", []string{"WORD=kept"}, &log, "-c", "echo out $WORD; echo err $WORD >&2")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Err(); err != nil || log.String() != "out kept\nerr kept\n" {
		t.Errorf("%v, %q", err, log.String())
	}
	if _, err := Start("nothing", "/nonexistent/program", nil, nil); err == nil || !strings.Contains(err.Error(), "start nothing") {
		t.Errorf("a program that isn't there: %v", err)
	}
}

func TestFreePortsAreDifferent(t *testing.T) {
	ports, err := FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, port := range ports {
		if seen[port] {
			t.Errorf("port %d was returned twice", port)
		}
		seen[port] = true
	}
}
