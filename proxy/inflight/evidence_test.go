package inflight

import (
	"syscall"
	"testing"
	"time"
)

func signalled(s syscall.Signal) LastExit { return LastExit{Kind: ExitSignal, Signal: int(s)} }

func TestWhatADeathSaysOfTheRequests(t *testing.T) {
	tests := []struct {
		name   string
		exit   LastExit
		fault  bool
		reason string
	}{
		{"abort", signalled(syscall.SIGABRT), true, "crash"},
		{"segmentation fault", signalled(syscall.SIGSEGV), true, "crash"},
		{"bus error", signalled(syscall.SIGBUS), true, "crash"},
		{"illegal instruction", signalled(syscall.SIGILL), true, "crash"},
		{"arithmetic", signalled(syscall.SIGFPE), true, "crash"},
		{"killed from outside", signalled(syscall.SIGKILL), false, "crash"},
		{"asked to go by a signal", signalled(syscall.SIGTERM), false, "upgrade"},
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
			if got := tt.exit.fault(); got != tt.fault {
				t.Errorf("fault: %v", got)
			}
			if got := tt.exit.restartReason(); got != tt.reason {
				t.Errorf("reason %q, want %q", got, tt.reason)
			}
		})
	}
}

func TestDeathOfAnotherEngine(t *testing.T) {
	for _, tt := range []struct {
		uptime, attached time.Duration
		want             bool
	}{{time.Minute, time.Minute - time.Second, true}, {2 * time.Second, time.Minute, false}, {0, time.Hour, true}, {time.Second, 1500 * time.Millisecond, true}} {
		if got := (LastExit{Uptime: tt.uptime}).about(tt.attached); got != tt.want {
			t.Errorf("up %v, attached %v: %v", tt.uptime, tt.attached, got)
		}
	}
}

func TestCrashLoop(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	tests := []struct {
		name   string
		deaths []int // seconds
		asked  int
		want   bool
	}{
		{"four", []int{0, 1, 2, 3}, 4, false},
		{"five", []int{0, 1, 2, 3, 4}, 4, true},
		{"five, a minute after the first", []int{0, 1, 2, 3, 4}, 60, false},
		{"five over a longer time", []int{0, 20, 40, 60, 80}, 80, false},
		{"the newest five count", []int{0, 50, 100, 101, 102, 103, 104}, 105, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c crashLoop
			for _, d := range tt.deaths {
				c.died(at(d))
			}
			if got := c.on(at(tt.asked)); got != tt.want {
				t.Errorf("on: %v", got)
			}
			c.progressed()
			if c.on(at(tt.asked)) {
				t.Error("still a loop after progress")
			}
		})
	}
}
