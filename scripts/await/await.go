// Package await polls in tests for what sends no event: a file that another process writes, a port, an HTTP endpoint.
// It is the only place where a test polls; whatever has a channel, a condition or a fake clock is waited for by those.
package await

import (
	"testing"
	"time"
)

// pollInterval is the pause between two calls of a condition that costs little.
const pollInterval = 5 * time.Millisecond

// Until polls until done returns true. After within it fails the test, naming what was waited for.
func Until(t testing.TB, within time.Duration, what string, done func() bool) {
	t.Helper()
	if !For(within, done) {
		t.Fatalf("waited %v in vain: %s", within, what)
	}
}

// For polls until done returns true and returns true itself, or false after within.
func For(within time.Duration, done func() bool) bool { return Every(pollInterval, within, done) }

// Every is For with a longer pause, for a condition that starts a process or asks a server for much.
func Every(interval, within time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(within); ; time.Sleep(interval) {
		if done() {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
	}
}
