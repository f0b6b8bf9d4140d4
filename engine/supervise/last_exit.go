package supervise

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Kind is how an engine ended.
type Kind string

// Kinds of an end.
const (
	None    Kind = ""        // first start, or unknown
	Exit    Kind = "exit"    // with a code that isn't 0
	Signal  Kind = "signal"  // see LastExit.Signal
	OOM     Kind = "oom"     // killed by the kernel for memory
	Stall   Kind = "stall"   // killed by the supervisor: heartbeat overdue
	Upgrade Kind = "upgrade" // ended with code 0, as when asked to end
)

// LastExit is how the engine before this one ended.
type LastExit struct {
	Kind    Kind          `json:"kind"`
	Signal  int           `json:"signal,omitempty"`
	Code    int           `json:"code,omitempty"`
	Uptime  time.Duration `json:"uptime_ns"`
	Crashes int           `json:"crashes"`         // without progress, within a minute
	Loads   []Loading     `json:"loads,omitempty"` // in progress when it died, oldest first
	// Memory is what it found on accelerators, or an engine before it, if it didn't come to plan a KV cache.
	Memory []FoundMemory `json:"memory,omitempty"`
}

// Fault reports whether the engine probably died of a fault of its own: a crash, an error exit, or the kernel's kill
// for memory.
func (e LastExit) Fault() bool {
	switch e.Kind {
	case OOM:
		return true
	case Exit:
		return e.Code != 0
	case Signal:
		switch syscall.Signal(e.Signal) {
		case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE:
			return true
		}
	}
	return false
}

// Environment variables that a supervisor sets for its engine.
const (
	lastExitEnv  = "TANDEM_LAST_EXIT"
	heartbeatEnv = "TANDEM_HEARTBEAT_FILE"
)

// TakeLastExit reads the last exit from the environment and removes it there. Zero without a supervisor and at its
// first start.
func TakeLastExit() (LastExit, error) {
	var e LastExit
	text := os.Getenv(lastExitEnv)
	if text == "" {
		return e, nil
	}
	if err := os.Unsetenv(lastExitEnv); err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return LastExit{}, fmt.Errorf("read %s: %w", lastExitEnv, err)
	}
	return e, nil
}

// exitOf classifies an end. killedByUs: the supervisor sent SIGKILL for a stall; oomKills: kills for memory while the
// engine ran.
func exitOf(state *os.ProcessState, killedByUs bool, oomKills uint64) LastExit {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		if state.Success() {
			return LastExit{Kind: Upgrade}
		}
		return LastExit{Kind: Exit, Code: state.ExitCode()}
	}
	e := LastExit{Kind: Signal, Signal: int(status.Signal())}
	if status.Signal() == syscall.SIGKILL {
		switch {
		case killedByUs:
			e.Kind = Stall
		case oomKills > 0:
			e.Kind = OOM
		}
	}
	return e
}

// String is for logs.
func (e LastExit) String() string {
	switch e.Kind {
	case Exit:
		return fmt.Sprintf("exit code %d", e.Code)
	case Signal:
		return "signal " + syscall.Signal(e.Signal).String()
	case OOM:
		return "killed for memory"
	case Stall:
		return "killed because it hung"
	case Upgrade:
		return "asked to go"
	}
	return "unknown"
}
