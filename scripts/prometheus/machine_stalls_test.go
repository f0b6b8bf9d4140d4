package prometheus

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	stallSampleInterval = 20 * time.Millisecond
	relevantStall       = 400 * time.Millisecond // nearly the timeout of a scrape
)

// stallWatch measures whether this machine lets programs run at all; shared machines pause for seconds now and then.
type stallWatch struct{ longestNanos atomic.Int64 }

func watchStalls(ctx context.Context) *stallWatch {
	s := new(stallWatch)
	go func() { // ends with ctx
		last := time.Now()
		tick := time.NewTicker(stallSampleInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				now := time.Now()
				s.longestNanos.Store(max(s.longestNanos.Load(), int64(now.Sub(last)-stallSampleInterval)))
				last = now
			}
		}
	}()
	return s
}

// longest is the longest time that this program did not run.
func (s *stallWatch) longest() time.Duration { return time.Duration(s.longestNanos.Load()) }
