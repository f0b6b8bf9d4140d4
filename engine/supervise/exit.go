package supervise

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Kind says how an engine ended.
type Kind string

// Kinds of an end.
const (
	None    Kind = ""        // first start, or nobody knows
	Exit    Kind = "exit"    // with a code that isn't 0
	Signal  Kind = "signal"  // see LastExit.Signal
	OOM     Kind = "oom"     // killed by the kernel for memory
	Stall   Kind = "stall"   // killed by the supervisor: heartbeat overdue
	Upgrade Kind = "upgrade" // asked to go, went
)

// LastExit tells an engine how the one before it ended.
type LastExit struct {
	Kind    Kind          `json:"kind"`
	Signal  int           `json:"signal,omitempty"`
	Code    int           `json:"code,omitempty"`
	Uptime  time.Duration `json:"uptime_ns"`
	Crashes int           `json:"crashes"`         // without progress, within a minute
	Loads   []Loading     `json:"loads,omitempty"` // it died inside of these, oldest first
}

// Fault tells whether the engine died of itself, as far as anybody can tell: a fault, an error, or the kernel's kill for memory.
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

// The environment that a supervisor gives an engine.
const (
	lastExitVariable  = "TANDEM_LAST_EXIT"
	heartbeatVariable = "TANDEM_HEARTBEAT_FILE"
)

// TakeLastExit reads what the supervisor said and removes it from the environment. Zero without a supervisor and at its first start.
func TakeLastExit() (LastExit, error) {
	var e LastExit
	text := os.Getenv(lastExitVariable)
	if text == "" {
		return e, nil
	}
	if err := os.Unsetenv(lastExitVariable); err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return LastExit{}, fmt.Errorf("read %s: %w", lastExitVariable, err)
	}
	return e, nil
}

// classify names an end. killed: the supervisor sent SIGKILL for a stall; oomKills: how many kills for memory there were meanwhile.
func classify(state *os.ProcessState, killed bool, oomKills uint64) LastExit {
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
		case killed:
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
