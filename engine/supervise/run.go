// Package supervise keeps an engine running: it starts it again when it dies, kills it when it hangs, tells the next one why, and gives
// up when that doesn't help, so that whoever runs the supervisor can act. It knows nothing of models or sockets; what it sees of the
// engine is its process and its heartbeat file.
package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options of Run. Program must be given; zero values of the others mean the defaults.
type Options struct {
	Program string   // the engine
	Args    []string // its arguments
	Env     []string // its environment, to which Run adds
	Socket  string   // names the heartbeat file

	StallTimeout time.Duration    // a heartbeat older than this means hung; 30 s
	DrainDelay   time.Duration    // between a signal and the engine's SIGTERM: until the proxy takes nothing new
	DrainTimeout time.Duration    // after SIGTERM; then SIGKILL
	Signals      <-chan os.Signal // SIGTERM and SIGINT to the supervisor
	Log          *slog.Logger     // nil: nothing is logged
}

// Errors of Run.
var (
	// ErrCrashLoop: the engine died too often without having given a token.
	ErrCrashLoop = errors.New("the engine keeps dying")
	// ErrKilled: the engine had to be killed when it was asked to end.
	ErrKilled = errors.New("the engine didn't end in time and was killed")
)

// UsageCode is the exit code of an engine that can't start with its settings: starting it again would change nothing. It isn't 2, which is
// what Go's runtime ends a program with that panicked or met a fault in a library.
const UsageCode = 64

// UsageError is returned when the engine ended with UsageCode; it has said why itself.
type UsageError struct{}

func (UsageError) Error() string { return "the engine refuses its settings" }

const (
	watchInterval = time.Second
	drainSlack    = 5 * time.Second // for closing, after the drain
	drainLag      = time.Second     // after DrainDelay, since the proxy, which waits as long, should be first
)

// supervisor is the state of Run; one goroutine.
type supervisor struct {
	o         Options
	heartbeat string
	epoch     time.Time
	policy    policy
	last      LastExit
	stopping  bool             // a signal came
	passed    bool             // and was passed on
	pass      <-chan time.Time // when it is to be
	drainEnd  <-chan time.Time // when the engine must have ended
}

// Run starts the engine and stays until it ended on request, or for good. It must stay the only user of its goroutine: the engine is
// bound to the thread and dies with it.
func Run(o Options) error {
	runtime.LockOSThread() // the kernel sends PDEATHSIG when the thread ends that made the child
	defer runtime.UnlockOSThread()
	if o.StallTimeout <= 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	path, err := newHeartbeatFile(o.Socket)
	if err != nil {
		return err
	}
	_ = os.Remove(path + stoppingSuffix) // of a supervisor that was killed and had this process's number, as in a container that starts again
	s := &supervisor{o: o, heartbeat: path, epoch: time.Now()}
	defer func() {
		_ = os.Remove(path)
		_ = os.Remove(path + stoppingSuffix)
	}()
	for {
		end, progress, err := s.one()
		if err != nil {
			return err
		}
		if s.passed {
			if end.Kind == Upgrade || end.Kind == Signal && end.Signal == int(syscall.SIGTERM) { // the latter before it listens
				return nil
			}
			return fmt.Errorf("engine ended with %s", end)
		}
		if end.Kind == Exit && end.Code == UsageCode {
			return UsageError{}
		}
		v := s.policy.ended(end.Kind, progress, s.now())
		end.Crashes = v.crashes
		s.last = end
		level := slog.LevelWarn
		if end.Kind == Upgrade {
			level = slog.LevelInfo
		}
		o.Log.Log(context.Background(), level, "engine process ended", "how", end.String(), "uptime", end.Uptime.Round(time.Millisecond), "crashes", v.crashes, "restart_in", v.wait)
		if v.giveUp {
			return fmt.Errorf("%w: %d times within %v, last with %s", ErrCrashLoop, v.crashes, crashWindow, end)
		}
		if !s.pause(v.wait) {
			return nil
		}
	}
}

func (s *supervisor) now() time.Duration { return time.Since(s.epoch) }

// pause waits before a restart; false: none is wanted any more. While a signal is kept back, requests still come, so the engine is needed.
func (s *supervisor) pause(d time.Duration) bool {
	over := time.After(d)
	for {
		select {
		case <-s.o.Signals:
			s.asked()
		case <-s.pass:
			return false
		case <-over:
			return true
		}
	}
}

// asked takes in a signal.
func (s *supervisor) asked() {
	delay := s.delay()
	if !s.stopping {
		s.drainEnd = time.After(delay + s.o.DrainTimeout + drainSlack)
	}
	s.stopping = true
	s.o.Log.Info("ending the engine", "delay", delay, "drain_timeout", s.o.DrainTimeout)
	s.pass = time.After(delay)
}

// one runs an engine from start to end.
func (s *supervisor) one() (end LastExit, progress bool, err error) {
	_ = os.Remove(s.heartbeat) // of the one before; it may not have written any
	before := oomKills()
	child, err := s.start()
	if err != nil {
		return end, false, err
	}
	begun := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	w := watch{stall: s.o.StallTimeout, begun: s.now()}
	killed, err := s.attend(child, ended, &w)
	s.look(&w) // what it wrote last
	end = classify(child.ProcessState, killed, oomKills()-before)
	end.Uptime = time.Since(begun)
	if end.Kind != Upgrade {
		end.Loads = w.last.Loads
	}
	return end, w.last.Progress > 0, err
}

func (s *supervisor) start() (*exec.Cmd, error) {
	c := exec.Command(s.o.Program, s.o.Args...)
	c.Stdin, c.Stdout, c.Stderr = nil, os.Stdout, os.Stderr
	c.Env = s.environment()
	// A group of its own, so that Ctrl-C reaches the engine once, from here.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	s.o.Log.Info("engine process started", "pid", c.Process.Pid)
	return c, nil
}

// environment is what the engine gets. Without GGML_NO_BACKTRACE a crash inside llama.cpp takes seconds to print a trace.
func (s *supervisor) environment() []string {
	env := slices.DeleteFunc(slices.Clone(s.o.Env), func(e string) bool {
		return strings.HasPrefix(e, lastExitVariable+"=") || strings.HasPrefix(e, heartbeatVariable+"=")
	})
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "GGML_NO_BACKTRACE=") }) {
		env = append(env, "GGML_NO_BACKTRACE=1")
	}
	env = append(env, heartbeatVariable+"="+s.heartbeat)
	if s.last.Kind != None {
		text, err := json.Marshal(s.last)
		if err == nil { // plain data always encodes
			env = append(env, lastExitVariable+"="+string(text))
		}
	}
	return env
}

// attend waits for the engine's end, passes signals on and kills it when it hangs or doesn't end when asked to.
func (s *supervisor) attend(child *exec.Cmd, ended <-chan error, w *watch) (killed bool, err error) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ended: // how is in the process state
			return killed, err
		case <-s.o.Signals:
			s.asked()
		case <-s.pass:
			s.passed = true
			s.mark()
			s.signal(child, syscall.SIGTERM)
		case <-s.drainEnd:
			err = ErrKilled
			s.signal(child, syscall.SIGKILL)
		case <-tick.C:
			s.look(w)
			if why := w.overdue(s.now()); why != "" && !killed {
				s.o.Log.Error("engine hangs, killing it", "why", why)
				killed = true
				s.signal(child, syscall.SIGKILL)
			}
		}
	}
}

// delay is how long a signal is kept back: a second one is in a hurry.
func (s *supervisor) delay() time.Duration {
	if s.stopping || s.o.DrainDelay <= 0 {
		return 0
	}
	return s.o.DrainDelay + drainLag
}

// mark tells the engine that none will follow it; without a mark a SIGTERM that came from elsewhere is the start of an upgrade.
func (s *supervisor) mark() {
	if err := os.WriteFile(s.heartbeat+stoppingSuffix, nil, 0o600); err != nil {
		s.o.Log.Warn("the engine can't be told that none will follow it", "err", err)
	}
}

func (s *supervisor) signal(child *exec.Cmd, sig syscall.Signal) {
	if err := child.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.o.Log.Error("signal engine", "signal", sig.String(), "err", err)
	}
}

// look reads the heartbeat; one that can't be read is as good as none.
func (s *supervisor) look(w *watch) {
	if h, _, err := ReadHeartbeat(s.heartbeat); err == nil {
		w.observe(h, s.now())
	}
}
