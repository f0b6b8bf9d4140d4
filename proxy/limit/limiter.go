package limit

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shards     = 16
	sweepPause = 100 * time.Millisecond // a full shard is searched for room at most this often
	clockSkew  = time.Second            // callers that read the clock a little before others don't give time back
)

// Limiter counts requests by id, for this process. A bucket is one number: the time at which it will be full again (GCRA). Since ids outlive a reload
// of the key file, so do the counts; a new rate for an id applies to what the old one left.
type Limiter struct {
	start  time.Time // times are kept as nanoseconds since, so that a change of the wall clock moves nothing
	seed   maphash.Seed
	shards [shards]shard
}

// shard holds a part of the buckets. Requests of known ids share the lock and change their bucket by compare-and-swap; only a new
// id takes it alone.
type shard struct {
	mu        sync.RWMutex
	buckets   map[string]*bucket
	capacity  int
	nextSweep int64
	overflow  bucket // counts all ids that there is no room for together
}

type bucket struct{ fullAt atomic.Int64 }

// Decision is what a request is told.
type Decision struct {
	Allowed    bool
	Rate       Rate
	Remaining  int           // requests that would pass now
	ResetAfter time.Duration // until the whole burst is there again
	RetryAfter time.Duration // until one request would pass; 0 when Allowed
	Shared     bool          // counted in the store as well
}

// decision says what a bucket of the rate means for a request, by the time that the bucket needs to be full again.
func (r Rate) decision(allowed bool, needs time.Duration) Decision {
	interval, burst := r.interval(), r.burst()
	if !allowed {
		return Decision{Rate: r, ResetAfter: needs, RetryAfter: needs + interval - burst}
	}
	return Decision{Allowed: true, Rate: r, Remaining: int(max(burst-needs, 0) / interval), ResetAfter: needs}
}

// New makes a limiter that tracks about maxIDs ids. When it is full, ids whose burst is whole again are forgotten, which changes no
// decision; if there is none, the ids that find no room are counted together until there is.
func New(maxIDs int, now time.Time) *Limiter {
	l := &Limiter{start: now, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].buckets = map[string]*bucket{}
		l.shards[i].capacity = max((maxIDs+shards-1)/shards, 1)
	}
	return l
}

// Allow counts one request of id and says whether it may pass. A refused request costs nothing. It is safe from any goroutine and
// keeps nothing of id, which may be part of a buffer that is reused.
func (l *Limiter) Allow(id string, rate Rate, now time.Time) Decision {
	if rate.Off() {
		return Decision{Allowed: true}
	}
	at := int64(now.Sub(l.start))
	s := &l.shards[maphash.String(l.seed, id)%shards]
	s.mu.RLock()
	if b, ok := s.buckets[id]; ok {
		// Under the shared lock: a bucket that is being counted in isn't forgotten meanwhile.
		d := b.take(rate, at)
		s.mu.RUnlock()
		return d
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bucketFor(id, at).take(rate, at)
}

// Len is how many ids are tracked.
func (l *Limiter) Len() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		n += len(s.buckets)
		s.mu.RUnlock()
	}
	return n
}

// bucketFor finds or makes the bucket of id. The caller holds the lock alone.
func (s *shard) bucketFor(id string, at int64) *bucket {
	if b, ok := s.buckets[id]; ok {
		return b
	}
	if len(s.buckets) >= s.capacity && at >= s.nextSweep {
		s.sweep(at)
	}
	if len(s.buckets) >= s.capacity {
		return &s.overflow
	}
	b := &bucket{}
	b.fullAt.Store(at)
	s.buckets[strings.Clone(id)] = b
	return b
}

// sweep forgets the buckets that are full at a time, and notes before when it needn't look again.
func (s *shard) sweep(at int64) {
	earliest := int64(1<<63 - 1)
	for id, b := range s.buckets {
		if fullAt := b.fullAt.Load(); fullAt <= at {
			delete(s.buckets, id)
		} else {
			earliest = min(earliest, fullAt)
		}
	}
	s.nextSweep = at + int64(sweepPause)
	if earliest != 1<<63-1 {
		s.nextSweep = max(s.nextSweep, earliest)
	}
}

// take decides at a time. Of any number of calls at one time on a full bucket, exactly rate.Requests are allowed.
func (b *bucket) take(rate Rate, at int64) Decision {
	interval, burst := int64(rate.interval()), int64(rate.burst())
	for {
		old := b.fullAt.Load()
		from := max(old, at)
		if from > at+burst+int64(clockSkew) { // counted by a slower rate: an empty bucket of this one is the most that it owes
			b.fullAt.CompareAndSwap(old, at+burst)
			continue
		}
		next := from + interval
		if next-at > burst {
			return rate.decision(false, time.Duration(from-at))
		}
		if b.fullAt.CompareAndSwap(old, next) {
			return rate.decision(true, time.Duration(next-at))
		}
	}
}
