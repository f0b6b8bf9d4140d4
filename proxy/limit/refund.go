package limit

import (
	"hash/maphash"
	"time"
)

// Refund takes back one request of id that Allow let pass with d and that was then refused for a reason of ours. The new decision says
// how things stand now. An id that was forgotten meanwhile, or is counted with others for want of room, gets nothing.
func (l *Limiter) Refund(id string, d Decision, now time.Time) Decision {
	if d.Rate.Off() {
		return Decision{Allowed: true}
	}
	at := int64(now.Sub(l.start))
	s := &l.shards[maphash.String(l.seed, id)%shards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.buckets[id]
	if !ok {
		return d.Rate.decision(true, 0)
	}
	return b.giveBack(d.Rate, at)
}

// giveBack never makes a bucket fuller than full.
func (b *bucket) giveBack(rate Rate, at int64) Decision {
	interval := int64(rate.interval())
	for {
		old := b.fullAt.Load()
		next := max(old-interval, at)
		if old <= at {
			next = old
		}
		if b.fullAt.CompareAndSwap(old, next) {
			return rate.decision(true, time.Duration(max(next-at, 0)))
		}
	}
}
