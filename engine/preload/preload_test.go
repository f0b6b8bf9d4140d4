package preload

import (
	"testing"
	"time"
)

// A default that seems to be broken is tried again, too: the fault may have been the disk's.
func TestABrokenDefaultIsTriedAgainLessOften(t *testing.T) {
	for _, tt := range []struct {
		before  time.Duration
		problem string
		want    time.Duration
	}{
		{0, "", time.Second},
		{time.Second, "", 2 * time.Second},
		{20 * time.Second, "", 30 * time.Second},
		{0, "bad", time.Minute},
		{30 * time.Second, "bad", time.Minute},
		{time.Minute, "bad", 2 * time.Minute},
		{8 * time.Minute, "bad", 10 * time.Minute},
		{10 * time.Minute, "", 30 * time.Second}, // mended
	} {
		if got := nextPause(tt.before, tt.problem); got != tt.want {
			t.Errorf("after %v with problem %q: %v, want %v", tt.before, tt.problem, got, tt.want)
		}
	}
}
