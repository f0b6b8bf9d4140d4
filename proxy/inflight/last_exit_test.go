package inflight

import (
	"syscall"
	"testing"
	"time"
)

func TestExitIsAttributable(t *testing.T) {
	tests := []struct {
		name   string
		exit   LastExit
		fault  bool
		reason string
	}{
		{"abort", killedBy(syscall.SIGABRT), true, "crash"},
		{"segmentation fault", killedBy(syscall.SIGSEGV), true, "crash"},
		{"bus error", killedBy(syscall.SIGBUS), true, "crash"},
		{"illegal instruction", killedBy(syscall.SIGILL), true, "crash"},
		{"arithmetic", killedBy(syscall.SIGFPE), true, "crash"},
		{"killed from outside", killedBy(syscall.SIGKILL), false, "crash"},
		{"asked to go by a signal", killedBy(syscall.SIGTERM), false, "upgrade"},
		{"exit with an error", LastExit{Kind: ExitCode, Code: 2}, true, "crash"},
		{"clean exit", LastExit{Kind: ExitCode}, false, "upgrade"},
		{"out of memory", LastExit{Kind: ExitOOM}, true, "oom"},
		{"stall", LastExit{Kind: ExitStall}, false, "stall"},
		{"upgrade", LastExit{Kind: ExitUpgrade}, false, "upgrade"},
		{"nobody knows", LastExit{}, false, "unknown"},
		{"a kind of a newer engine", LastExit{Kind: 99}, false, "unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.exit.isAttributable(); got != tt.fault {
				t.Errorf("fault: %v", got)
			}
			if got := tt.exit.restartReason(); got != tt.reason {
				t.Errorf("reason %q, want %q", got, tt.reason)
			}
		})
	}
}

func TestMatchesUptime(t *testing.T) {
	for _, tt := range []struct {
		uptime, attached time.Duration
		want             bool
	}{{time.Minute, time.Minute - time.Second, true}, {2 * time.Second, time.Minute, false}, {0, time.Hour, true}, {time.Second, 1500 * time.Millisecond, true}} {
		if got := (LastExit{Uptime: tt.uptime}).matchesUptime(tt.attached); got != tt.want {
			t.Errorf("up %v, attached %v: %v", tt.uptime, tt.attached, got)
		}
	}
}

func TestSecondEngineIsAnUpgrade(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		table.attach(LastExit{})
		table.attach(LastExit{})
		table.wantMetric(1, "llm_engine_restarts_total", "reason=upgrade")
	})
}

// A new version that crashes beside the engine that it is to replace is no upgrade.
func TestCrashBesideAnotherEngineIsACrash(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		table.attach(LastExit{})
		g := table.attach(LastExit{})
		table.lose(g)
		table.attach(killedBy(syscall.SIGSEGV))
		table.wantMetric(1, "llm_engine_restarts_total", "reason=upgrade")
		table.wantMetric(1, "llm_engine_restarts_total", "reason=crash")
	})
}

// An engine that connects again reports the same exit again, also when another one came meanwhile.
func TestReconnectedEngineIsNoRestart(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		table.lose(table.attach(LastExit{}))
		f := table.attach(killedBy(syscall.SIGSEGV))
		hello := table.lastHello
		table.attach(LastExit{})
		table.lose(f)
		table.Attached(&fakeEngine{}, hello)
		table.wantMetric(1, "llm_engine_restarts_total", "reason=upgrade")
		table.wantMetric(1, "llm_engine_restarts_total", "reason=crash")
		table.wantMetric(1, "llm_ipc_reconnects_total")
	})
}
