package await

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if !For(time.Minute, func() bool { return time.Since(begun) >= 10*time.Second }) {
			t.Error("gave up on what came")
		}
		if took := time.Since(begun); took > 10*time.Second+every {
			t.Errorf("noticed after %v", took)
		}
		looks := 0
		begun = time.Now()
		if For(time.Minute, func() bool { looks++; return false }) {
			t.Error("says that it came")
		}
		if took := time.Since(begun); took < time.Minute || took > time.Minute+every {
			t.Errorf("gave up after %v", took)
		}
		if For(0, func() bool { looks++; return false }); looks < 2 {
			t.Error("didn't look at all")
		}
	})
}
