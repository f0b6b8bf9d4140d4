package limit

import (
	"testing"
	"time"
)

func TestRefund(t *testing.T) {
	rate := Rate{3, time.Minute} // one comes back each 20 s
	l := New(10, start)
	l.Allow("key", rate, start)
	d := l.Allow("key", rate, start)
	for range 5 {
		l.Refund("key", d, start)
	}
	passed := 0
	for range 10 {
		if l.Allow("key", rate, start).Allowed {
			passed++
		}
	}
	if passed != 3 {
		t.Errorf("%d passed after too many refunds, want the burst of 3", passed)
	}
	if got := l.Refund("nobody", d, start); got.Remaining != 3 || l.Len() != 1 {
		t.Errorf("a refund to an unknown id: %+v, %d tracked", got, l.Len())
	}
	if got := l.Refund("key", Decision{Allowed: true}, start); !got.Allowed {
		t.Errorf("without a limit: %+v", got)
	}
}
