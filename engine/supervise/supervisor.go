// Package supervise keeps an engine running: it restarts it when it dies, kills it when it hangs, tells the next one
// how the last one ended, and ends after too many crashes, so that whoever runs the supervisor can act. For a
// supervisor that dies with its engine, it leaves a note to the next one. It also holds the engine's side: the
// heartbeat file's writer and reader of the last exit. It knows nothing of models or sockets; of the engine it sees the
// process and the heartbeat file.
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

	memory *memoryLimit // nil: of this process's control group
}

// Errors of Run.
var (
	// ErrCrashLoop: the engine died too often without having given a token.
	ErrCrashLoop = errors.New("the engine keeps dying")
	// ErrKilled: the engine had to be killed when it was asked to end.
	ErrKilled = errors.New("the engine didn't end in time and was killed")
)

// UsageCode is the exit code of an engine that can't start with its settings: starting it again would change nothing.
// It isn't 2, which is the exit code of a Go program that panicked, or met a fault in a library.
const UsageCode = 64

// UsageError is returned when the engine ended with UsageCode; the engine has written the reason.
type UsageError struct{}

func (UsageError) Error() string { return "the engine refuses its settings" }

const (
	checkInterval  = time.Second
	memoryInterval = 100 * time.Millisecond
	drainSlack     = 5 * time.Second // for closing, after the drain
	// drainLag: added to DrainDelay, so that the proxy, which waits DrainDelay too, stops taking requests first
	drainLag = time.Second
)

// supervisor is the state of Run; one goroutine.
type supervisor struct {
	options       Options
	heartbeatPath string
	epoch         time.Time
	restartPolicy restartPolicy
	lastExit      LastExit
	note          *noteFile
	stopping      bool             // a signal came
	termSent      bool             // SIGTERM was sent to the engine
	termDue       <-chan time.Time // fires when SIGTERM is to be sent
	killDue       <-chan time.Time // fires when the engine must have ended
}

// Run starts the engine, restarts it, and returns when it has ended on request or isn't restarted any more. It must
// stay the only user of its goroutine: the engine is bound to the thread and dies with it.
func Run(o Options) error {
	runtime.LockOSThread() // the kernel sends PDEATHSIG when the thread ends that made the child
	defer runtime.UnlockOSThread()
	if o.StallTimeout <= 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.memory == nil {
		o.memory = groupMemoryLimit()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	path, err := newHeartbeatFile(o.Socket)
	if err != nil {
		return err
	}
	s := &supervisor{options: o, heartbeatPath: path, epoch: time.Now()}
	s.openNote()
	defer s.note.close()
	// Left by a supervisor that was killed and had this pid, as in a restarted container
	removeHeartbeat(path)
	defer removeHeartbeat(path)
	for {
		end, progress, err := s.runEngine()
		if s.termSent && wentAsAsked(end, err) {
			end = LastExit{Kind: Upgrade, Uptime: end.Uptime, Memory: end.Memory}
		}
		next := s.restartPolicy.engineEnded(end.Kind, progress, s.now())
		end.Crashes = next.crashes
		s.lastExit = end
		s.writeNote(func(n *successorNote) { n.Ended = &end })
		switch {
		case err != nil:
			return err
		case s.termSent && end.Kind == Upgrade:
			return nil
		case s.termSent:
			return fmt.Errorf("engine ended with %s", end)
		case end.Kind == Exit && end.Code == UsageCode:
			return UsageError{}
		}
		level := slog.LevelWarn
		if end.Kind == Upgrade {
			level = slog.LevelInfo
		}
		o.Log.Log(context.Background(), level, "engine process ended", "how", end.String(), "uptime", end.Uptime.Round(time.Millisecond), "crashes", next.crashes, "restart_in", next.wait)
		if next.giveUp {
			return fmt.Errorf("%w: %d times within %v, last with %s", ErrCrashLoop, next.crashes, crashWindow, end)
		}
		if !s.waitBeforeRestart(next.wait) {
			return nil
		}
	}
}

// wentAsAsked reports whether an engine that was sent SIGTERM ended of it: by itself, before it handled the signal, or
// killed because it took too long.
func wentAsAsked(end LastExit, err error) bool {
	return end.Kind == Upgrade || end.Kind == Signal && end.Signal == int(syscall.SIGTERM) || errors.Is(err, ErrKilled)
}

// openNote learns from the supervisor before how its last engine ended.
func (s *supervisor) openNote() {
	note, last, err := openNote(s.options.Socket)
	if err != nil {
		s.options.Log.Warn("how an engine ends that dies with its supervisor won't be known", "err", err)
	}
	s.note, s.lastExit = note, last
	if last.Kind != None {
		s.options.Log.Info("an engine of another supervisor ran before", "how", last.String(), "uptime", last.Uptime.Round(time.Millisecond), "crashes", last.Crashes)
	}
}

func (s *supervisor) writeNote(change func(*successorNote)) {
	s.noteWritten(s.note.write(change))
}

func (s *supervisor) noteWritten(err error) {
	if err != nil {
		s.options.Log.Warn("how an engine ends that dies with its supervisor won't be known", "err", err)
	}
}

func (s *supervisor) now() time.Duration { return time.Since(s.epoch) }

// waitBeforeRestart waits for d; false: SIGTERM was due meanwhile, so no restart. Until then requests still come and
// need an engine.
func (s *supervisor) waitBeforeRestart(d time.Duration) bool {
	over := time.After(d)
	for {
		select {
		case <-s.options.Signals:
			s.stopRequested()
		case <-s.termDue:
			return false
		case <-over:
			return true
		}
	}
}

// stopRequested handles a signal to the supervisor.
func (s *supervisor) stopRequested() {
	delay := s.termDelay()
	if !s.stopping {
		s.killDue = time.After(delay + s.options.DrainTimeout + drainSlack)
	}
	s.stopping = true
	s.writeNote(func(n *successorNote) { n.StopAsked = true })
	s.options.Log.Info("ending the engine", "delay", delay, "drain_timeout", s.options.DrainTimeout)
	s.termDue = time.After(delay)
}

// runEngine runs one engine from start to end.
func (s *supervisor) runEngine() (end LastExit, progress bool, err error) {
	removeMarks(s.heartbeatPath) // of the engine before
	if err := blankHeartbeat(s.heartbeatPath); err != nil {
		s.options.Log.Warn("the engine may find no room for its heartbeat", "err", err)
	}
	before := oomKills()
	s.writeNote(func(n *successorNote) {
		*n = successorNote{StartedAt: time.Now(), Heartbeat: s.heartbeatPath, Crashes: s.lastExit.Crashes, StopAsked: s.stopping, Memory: s.lastExit.Memory}
	})
	child, err := s.startEngine()
	if err != nil {
		return end, false, err
	}
	begun := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	detector := hangDetector{stallTimeout: s.options.StallTimeout, startedAt: s.now()}
	killed, err := s.waitForEnd(child, ended, &detector)
	s.readHeartbeat(&detector) // its last heartbeat
	end = exitOf(child.ProcessState, killed, oomKills()-before)
	end.Uptime, end.Memory = time.Since(begun), s.note.note.Memory
	if end.Kind != Upgrade {
		end.Loads = detector.lastHeartbeat.Loads
	}
	return end, detector.lastHeartbeat.Progress > 0, err
}

func (s *supervisor) startEngine() (*exec.Cmd, error) {
	c := exec.Command(s.options.Program, s.options.Args...)
	c.Stdin, c.Stdout, c.Stderr = nil, os.Stdout, os.Stderr
	c.Env = s.environment()
	// A group of its own, so that Ctrl-C reaches the engine once, from here.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	s.options.Log.Info("engine process started", "pid", c.Process.Pid)
	return c, nil
}

// environment is the engine's environment. Without GGML_NO_BACKTRACE a crash inside llama.cpp takes seconds to print a
// trace.
func (s *supervisor) environment() []string {
	env := slices.DeleteFunc(slices.Clone(s.options.Env), func(e string) bool {
		return strings.HasPrefix(e, lastExitEnv+"=") || strings.HasPrefix(e, heartbeatEnv+"=")
	})
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "GGML_NO_BACKTRACE=") }) {
		env = append(env, "GGML_NO_BACKTRACE=1")
	}
	env = append(env, heartbeatEnv+"="+s.heartbeatPath)
	if s.lastExit.Kind != None {
		text, err := json.Marshal(s.lastExit)
		if err == nil { // plain data always encodes
			env = append(env, lastExitEnv+"="+string(text))
		}
	}
	return env
}

// waitForEnd waits for the engine's end, sends SIGTERM when it is due, and kills the engine when it hangs or doesn't
// end in time.
func (s *supervisor) waitForEnd(child *exec.Cmd, ended <-chan error, detector *hangDetector) (killed bool, err error) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	memoryTick := time.NewTicker(memoryInterval)
	defer memoryTick.Stop()
	for {
		select {
		case <-ended: // how it ended is in the process state
			return killed, err
		case <-s.options.Signals:
			s.stopRequested()
		case <-s.termDue:
			s.termSent = true
			s.writeStoppingMark()
			s.signal(child, syscall.SIGTERM)
		case <-s.killDue:
			err = ErrKilled
			s.signal(child, syscall.SIGKILL)
		case <-memoryTick.C:
			s.watchMemory()
		case <-tick.C:
			detector.look(s.now())
			s.readHeartbeat(detector)
			s.noteWritten(s.note.refresh())
			if why := detector.overdueReason(s.now()); why != "" && !killed {
				s.options.Log.Error("engine hangs, killing it", "why", why)
				killed = true
				s.signal(child, syscall.SIGKILL)
			}
		}
	}
}

// watchMemory notes when no memory is left or some is left again: a kill for memory may take the supervisor, too.
func (s *supervisor) watchMemory() {
	if full := s.options.memory.full(); full != s.note.note.MemoryFull {
		s.writeNote(func(n *successorNote) { n.MemoryFull = full })
	}
}

// termDelay is how long SIGTERM is delayed after a signal; not at all after a second one.
func (s *supervisor) termDelay() time.Duration {
	if s.stopping || s.options.DrainDelay <= 0 {
		return 0
	}
	return s.options.DrainDelay + drainLag
}

// writeStoppingMark tells the engine that none will follow it. Without the mark, a SIGTERM means that it is replaced by
// another engine.
func (s *supervisor) writeStoppingMark() {
	if err := os.WriteFile(s.heartbeatPath+stoppingSuffix, nil, 0o600); err != nil {
		s.options.Log.Warn("the engine can't be told that none will follow it", "err", err)
	}
}

func (s *supervisor) signal(child *exec.Cmd, sig syscall.Signal) {
	if err := child.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.options.Log.Error("signal engine", "signal", sig.String(), "err", err)
	}
}

// readHeartbeat passes the heartbeat to detector and notes what the engine found; one that can't be read counts as
// none.
func (s *supervisor) readHeartbeat(detector *hangDetector) {
	h, _, err := ReadHeartbeat(s.heartbeatPath)
	if err != nil {
		return
	}
	detector.observe(h, s.now())
	if len(h.Memory) > 0 && !slices.Equal(h.Memory, s.note.note.Memory) {
		s.writeNote(func(n *successorNote) { n.Memory = h.Memory })
	}
}
