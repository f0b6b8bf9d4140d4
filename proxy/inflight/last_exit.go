package inflight

import (
	"syscall"
	"time"
)

// isAttributable reports whether what the engine worked on may have caused its end: it aborted, faulted, exited with an
// error or was killed for using too much memory. A kill from outside, a stall or a lost connection isn't attributable.
func (l LastExit) isAttributable() bool {
	switch l.Kind {
	case ExitOOM:
		return true
	case ExitCode:
		return l.Code != 0
	case ExitSignal:
		switch syscall.Signal(l.Signal) {
		case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE:
			return true
		}
	}
	return false
}

// restartReason is the value of llm_engine_restarts_total{reason} after this exit.
func (l LastExit) restartReason() string {
	switch l.Kind {
	case ExitOOM:
		return "oom"
	case ExitStall:
		return "stall"
	case ExitUpgrade:
		return "upgrade"
	case ExitCode:
		if l.Code == 0 {
			return "upgrade"
		}
		return "crash"
	case ExitSignal:
		if syscall.Signal(l.Signal) == syscall.SIGTERM {
			return "upgrade"
		}
		return "crash"
	}
	return "unknown"
}

// matchesUptime reports whether l can be the exit of an engine that was attached for so long: an engine that ran for
// less time is another one.
func (l LastExit) matchesUptime(attachedFor time.Duration) bool {
	return l.Uptime == 0 || l.Uptime+time.Second >= attachedFor
}
