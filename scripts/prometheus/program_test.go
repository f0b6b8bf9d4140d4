package prometheus

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// programs are given by the script.
type programs struct{ prometheus, proxy, engine, rules, logs string }

func givenPrograms(t *testing.T) programs {
	t.Helper()
	p := programs{os.Getenv("PROMETHEUS"), os.Getenv("PROXY"), os.Getenv("ENGINE"), os.Getenv("RULES"), os.Getenv("LOGS")}
	if p.prometheus == "" {
		t.Skip("PROMETHEUS names no Prometheus; scripts/test-prometheus.sh builds one")
	}
	if p.proxy == "" || p.engine == "" || p.rules == "" || p.logs == "" {
		t.Fatal("PROXY, ENGINE, RULES (a program) and LOGS (a folder) must be set too")
	}
	return p
}

// process is a program that runs until the test ends or stop.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended
}

// start runs a program whose output goes to a file of the folder of logs.
func start(t *testing.T, logs, name, program string, env []string, args ...string) *process {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := &process{name: name, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is in its log
	}()
	t.Cleanup(func() { p.stop(t) })
	return p
}

// stop asks the process to end and waits until it has.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Errorf("%s didn't end within 20 s of SIGTERM", p.name)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// child finds the only child of the process, as the engine below its supervisor; 0 when there is none.
func (p *process) child() int {
	parent := strconv.Itoa(p.cmd.Process.Pid)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		text := string(raw)
		rest := strings.Fields(text[strings.LastIndex(text, ")")+1:])
		if len(rest) > 1 && rest[1] == parent && rest[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	return 0
}

// environment keeps what programs need to run and nothing that configures ours.
func environment(settings ...string) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, settings...)
}

// freeAddresses gives n different ones. All are taken before the first is given back, or it could be given twice.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// eventually polls until ok says nil, and gives its last error at the limit. Other programs offer no event to wait for.
func eventually(ctx context.Context, limit, every time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		case <-tick.C:
		}
	}
}
