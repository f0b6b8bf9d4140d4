package inflight

import (
	"syscall"
	"time"
)

// Limits of what is held against requests, loads and engines.
const (
	suspectAt    = 2 // deaths after which a request goes alone
	quarantineAt = 3 // deaths, the last one alone, after which it is refused
	loadDeathsAt = 2 // deaths inside its load after which a model is refused
)

// fault tells whether a death speaks against what the engine worked on: it aborted, faulted, exited with an error or was killed for
// memory. A kill from outside, a stall or a lost connection doesn't.
func (l LastExit) fault() bool {
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

// restartReason is the value of llm_engine_restarts_total{reason} for the death before.
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

// about tells whether l can be the death of an engine that was attached for so long: one that ran shorter is another.
func (l LastExit) about(attachedFor time.Duration) bool {
	return l.Uptime == 0 || l.Uptime+time.Second >= attachedFor
}

// crashLoop remembers deaths without progress.
type crashLoop struct{ deaths []time.Time }

// Five deaths in a minute are a loop; the same numbers make the engine's supervisor give up.
const (
	loopDeaths = 5
	loopWindow = time.Minute
)

// died records a death. It needs no more than the newest ones.
func (c *crashLoop) died(now time.Time) {
	c.deaths = append(c.deaths, now)
	if extra := len(c.deaths) - loopDeaths; extra > 0 {
		c.deaths = append(c.deaths[:0], c.deaths[extra:]...)
	}
}

// progressed forgets the deaths: an engine did some work.
func (c *crashLoop) progressed() { c.deaths = c.deaths[:0] }

// near tells whether one more death makes it a loop.
func (c *crashLoop) near(now time.Time) bool {
	i := len(c.deaths) - (loopDeaths - 1)
	return i >= 0 && now.Sub(c.deaths[i]) < loopWindow
}

// on tells whether engines die one after the other.
func (c *crashLoop) on(now time.Time) bool {
	return len(c.deaths) == loopDeaths && now.Sub(c.deaths[0]) < loopWindow
}
