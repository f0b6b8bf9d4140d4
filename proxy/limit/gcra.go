package limit

import (
	"sync/atomic"
	"time"
)

// maxClockSkew keeps callers that read the clock a little earlier than others from being given time back.
const maxClockSkew = time.Second

// Decision is the result of a rate-limit check.
type Decision struct {
	Allowed        bool
	Rate           Rate
	Remaining      int           // requests that would be allowed now
	ResetAfter     time.Duration // until the whole burst is available again
	RetryAfter     time.Duration // until the request would be allowed; 0 when Allowed
	CountedInStore bool          // counted in the shared store as well
}

// decision makes the Decision about n of what the rate counts, for a bucket that needs so long to be full again.
func (r Rate) decision(allowed bool, n int, needs time.Duration) Decision {
	interval, fillTime := r.interval(), r.fillTime()
	if !allowed {
		return Decision{Rate: r, Remaining: int(max(fillTime-needs, 0) / interval), ResetAfter: needs, RetryAfter: needs + time.Duration(n)*interval - fillTime}
	}
	return Decision{Allowed: true, Rate: r, Remaining: int(max(fillTime-needs, 0) / interval), ResetAfter: needs}
}

// interval is the time after which one more request is allowed, at least a nanosecond.
func (r Rate) interval() time.Duration { return max(r.Unit/time.Duration(r.Requests), 1) }

// fillTime is the time in which an empty bucket fills.
func (r Rate) fillTime() time.Duration { return r.interval() * time.Duration(r.Requests) }

// bucket is the state of one id: the time at which it will be full again (GCRA), in nanoseconds since
// LocalLimiter.start.
type bucket struct{ fullAt atomic.Int64 }

// take counts n at a time, at most rate.Requests, and decides about them. Of any number of calls for one at one time on
// a full bucket, exactly rate.Requests are allowed.
func (b *bucket) take(rate Rate, n int, at int64) Decision {
	interval, fillTime := int64(rate.interval()), int64(rate.fillTime())
	for {
		old := b.fullAt.Load()
		from := max(old, at)
		// This was counted at a slower rate. At this rate it counts as an empty bucket at most.
		if from > at+fillTime+int64(maxClockSkew) {
			b.fullAt.CompareAndSwap(old, at+fillTime)
			continue
		}
		next := from + int64(n)*interval
		if next-at > fillTime {
			return rate.decision(false, n, time.Duration(from-at))
		}
		if b.fullAt.CompareAndSwap(old, next) {
			return rate.decision(true, n, time.Duration(next-at))
		}
	}
}

// correct counts n more without asking whether they are allowed, or takes -n back. It never makes a bucket fuller than
// full, nor emptier than empty.
func (b *bucket) correct(rate Rate, n int, at int64) Decision {
	interval, fillTime := int64(rate.interval()), int64(rate.fillTime())
	for {
		old := b.fullAt.Load()
		next := max(old, at) + int64(n)*interval
		switch {
		case n < 0:
			next = max(next, at)
		case next > at+fillTime:
			next = max(old, at+fillTime)
		}
		if n < 0 && old <= at {
			next = old
		}
		if b.fullAt.CompareAndSwap(old, next) {
			return rate.decision(true, 1, time.Duration(max(next-at, 0)))
		}
	}
}
