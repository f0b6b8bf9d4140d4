// Package await waits in tests for what sends no event: a file that another process writes, a port, an HTTP endpoint. It is the
// only place where a test looks again and again; what has a channel, a condition or a fake clock is waited for by those.
package await

import (
	"testing"
	"time"
)

// every is the pause between two looks.
const every = 5 * time.Millisecond

// Until looks until done gives true. After within it fails the test, naming what was waited for.
func Until(t testing.TB, within time.Duration, what string, done func() bool) {
	t.Helper()
	if !For(within, done) {
		t.Fatalf("waited %v in vain: %s", within, what)
	}
}

// For looks until done gives true and returns true, or false after within.
func For(within time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(within); ; time.Sleep(every) {
		if done() {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
	}
}
