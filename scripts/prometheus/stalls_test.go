package prometheus

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	stallTick    = 20 * time.Millisecond
	stallMatters = 400 * time.Millisecond // nearly the timeout of a scrape
)

// stalls watches whether this machine lets programs run at all; shared ones pause for seconds now and then.
type stalls struct{ worst atomic.Int64 }

func watchStalls(ctx context.Context) *stalls {
	s := new(stalls)
	go func() { // ends with ctx
		last := time.Now()
		tick := time.NewTicker(stallTick)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				now := time.Now()
				s.worst.Store(max(s.worst.Load(), int64(now.Sub(last)-stallTick)))
				last = now
			}
		}
	}()
	return s
}

// longest time that this program did not run.
func (s *stalls) longest() time.Duration { return time.Duration(s.worst.Load()) }
