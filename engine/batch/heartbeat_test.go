package batch

import (
	"sync/atomic"
	"testing"
	"time"
)

// A long call that has its time isn't hung at the moment when a short phase follows it, whoever looks just then.
func TestAHeartbeatIsNeverHungBetweenTwoPhases(t *testing.T) {
	const floor = time.Second
	var h heartbeat
	h.init(floor)
	var clock atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for now := time.Duration(0); ; {
			select {
			case <-stop:
				return
			default:
			}
			h.begin(now, PhaseCall, 0)
			now += callFactor*floor - 1
			clock.Store(int64(now))
			h.begin(now, PhaseStep, 0)
		}
	}()
	for range 1_000_000 {
		if b := h.at(time.Duration(clock.Load())); b.Age > b.Budget {
			t.Errorf("%v of a budget of %v", b.Age, b.Budget)
			break
		}
	}
	close(stop)
	<-stopped
}
