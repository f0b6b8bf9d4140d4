// Package launch starts the programs that the tests and benchmarks below scripts run, and stops them. A program never
// outlives the test or benchmark that started it. What the programs are and how they are configured is up to the
// suites.
package launch

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that was started.
type Process struct {
	Name string // in messages

	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // of Wait; set before ended is closed
}

// Start starts a program. Standard output and standard error both go to output; nil discards them.
func Start(name, program string, env []string, output io.Writer, args ...string) (*Process, error) {
	p := &Process{Name: name, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err waits until the process has ended and returns how: nil for exit status 0.
func (p *Process) Err() error {
	<-p.ended
	return p.err
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process without warning and waits for that.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// Stop sends SIGTERM, and SIGKILL to a process that hasn't ended within the given time. It returns an error unless the
// process ended in time with exit status 0. A process that had ended before is no error, however it ended.
func (p *Process) Stop(within time.Duration) error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	_ = p.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("%s after SIGTERM: %w", p.Name, p.err)
		}
		return nil
	case <-time.After(within):
		p.Kill()
		return fmt.Errorf("%s didn't end within %v of SIGTERM", p.Name, within)
	}
}

// ChildPID returns the process id of a running child, such as the engine below its supervisor; 0 when there is none.
func (p *Process) ChildPID() int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	parent := strconv.Itoa(p.PID())
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		text := string(raw)
		fields := strings.Fields(text[strings.LastIndex(text, ")")+1:]) // from the state on
		if len(fields) > 1 && fields[1] == parent && fields[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // digits
			return pid
		}
	}
	return 0
}

// Environment returns the variables that programs need to run, as far as they are set, followed by the given settings.
// Nothing else that configures our programs is passed on.
func Environment(settings ...string) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "BACKEND_DIR", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, settings...)
}

// Log keeps the output of a process and can be read while the process writes to it.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
