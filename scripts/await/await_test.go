package await

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !For(time.Minute, func() bool { return time.Since(start) >= 10*time.Second }) {
			t.Error("gave up on what came")
		}
		if took := time.Since(start); took > 10*time.Second+pollInterval {
			t.Errorf("noticed after %v", took)
		}
		calls := 0
		start = time.Now()
		if For(time.Minute, func() bool { calls++; return false }) {
			t.Error("says that it came")
		}
		if took := time.Since(start); took < time.Minute || took > time.Minute+pollInterval {
			t.Errorf("gave up after %v", took)
		}
		if For(0, func() bool { calls++; return false }); calls < 2 {
			t.Error("never called the condition")
		}
	})
}
