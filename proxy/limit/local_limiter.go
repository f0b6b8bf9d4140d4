package limit

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

const (
	shardCount       = 16
	minSweepInterval = 100 * time.Millisecond // a full shard is swept at most this often
)

// LocalLimiter counts requests by id, for this process alone. A bucket is one number: the time at which it will be full
// again (GCRA). Ids outlive a reload of the key file, and so do their counts; a new rate for an id applies to what the
// old one left.
type LocalLimiter struct {
	start  time.Time // times are nanoseconds since start, so that a change of the wall clock has no effect
	seed   maphash.Seed
	shards [shardCount]shard
}

// shard holds a part of the buckets. Requests of known ids hold the lock shared and change their bucket by
// compare-and-swap; only a new id locks it exclusively.
type shard struct {
	mu             sync.RWMutex
	buckets        map[string]*bucket
	capacity       int
	nextSweep      int64
	overflowBucket bucket // counts all ids together for which there is no room
}

// NewLocal makes a limiter that tracks about maxIDs ids. When it is full, it forgets ids whose bucket is full again,
// which changes no decision; if there is none, ids without room are counted together until there is room.
func NewLocal(maxIDs int, now time.Time) *LocalLimiter {
	l := &LocalLimiter{start: now, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].buckets = map[string]*bucket{}
		l.shards[i].capacity = max((maxIDs+shardCount-1)/shardCount, 1)
	}
	return l
}

// Allow counts one request of id and decides whether it is allowed. A denied request isn't counted. It is safe from any
// goroutine and keeps nothing of id, which may be part of a buffer that is reused.
func (l *LocalLimiter) Allow(id string, rate Rate, now time.Time) Decision {
	return l.AllowN(id, rate, 1, now)
}

// AllowN is Allow for n of what the rate counts, all of them or none. More than the whole burst counts as the burst.
func (l *LocalLimiter) AllowN(id string, rate Rate, n int, now time.Time) Decision {
	n = rate.atMostBurst(n)
	if rate.Unlimited() {
		return Decision{Allowed: true}
	}
	at := int64(now.Sub(l.start))
	s := &l.shards[maphash.String(l.seed, id)%shardCount]
	s.mu.RLock()
	if b, ok := s.buckets[id]; ok {
		// Under the shared lock, since sweep must not remove a bucket while a request is counted in it.
		d := b.take(rate, n, at)
		s.mu.RUnlock()
		return d
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bucketFor(id, at).take(rate, n, at)
}

// Refund takes back one request of id that Allow allowed with d and that was then rejected for a reason on the server's
// side. The new decision has the state after that. An id that was swept meanwhile, or is counted in the overflow
// bucket, gets nothing back.
func (l *LocalLimiter) Refund(id string, d Decision, now time.Time) Decision {
	return l.Correct(id, d, -1, now)
}

// Correct counts n more of what AllowN allowed with d, whether that is allowed or not, or takes -n back. A bucket
// becomes at most empty, or full.
func (l *LocalLimiter) Correct(id string, d Decision, n int, now time.Time) Decision {
	n = d.Rate.atMostBurst(n)
	if d.Rate.Unlimited() {
		return Decision{Allowed: true}
	}
	at := int64(now.Sub(l.start))
	s := &l.shards[maphash.String(l.seed, id)%shardCount]
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.buckets[id]
	if !ok {
		return d.Rate.decision(true, 1, 0)
	}
	return b.correct(d.Rate, n, at)
}

// Len is the number of ids that are tracked.
func (l *LocalLimiter) Len() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		n += len(s.buckets)
		s.mu.RUnlock()
	}
	return n
}

// bucketFor finds or makes the bucket of id. The caller holds the lock exclusively.
func (s *shard) bucketFor(id string, at int64) *bucket {
	if b, ok := s.buckets[id]; ok {
		return b
	}
	if len(s.buckets) >= s.capacity && at >= s.nextSweep {
		s.sweep(at)
	}
	if len(s.buckets) >= s.capacity {
		return &s.overflowBucket
	}
	b := &bucket{}
	b.fullAt.Store(at)
	s.buckets[strings.Clone(id)] = b
	return b
}

// sweep removes the buckets that are full at a time, and notes the time before which sweeping again is useless.
func (s *shard) sweep(at int64) {
	earliest := int64(1<<63 - 1)
	for id, b := range s.buckets {
		if fullAt := b.fullAt.Load(); fullAt <= at {
			delete(s.buckets, id)
		} else {
			earliest = min(earliest, fullAt)
		}
	}
	s.nextSweep = at + int64(minSweepInterval)
	if earliest != 1<<63-1 {
		s.nextSweep = max(s.nextSweep, earliest)
	}
}
