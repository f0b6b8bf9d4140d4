package limit

import (
	"hash/maphash"
	"time"
)

// Refund takes back one request of id that Allow let pass and that was then refused for a reason of ours. The decision says how things
// stand now. An id that was forgotten meanwhile, or is counted with others for want of room, gets nothing.
func (l *Limiter) Refund(id string, rate Rate, now time.Time) Decision {
	if rate.Off() {
		return Decision{Allowed: true}
	}
	at := int64(now.Sub(l.start))
	s := &l.shards[maphash.String(l.seed, id)%shards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.buckets[id]
	if !ok {
		return Decision{Allowed: true, Rate: rate, Remaining: rate.Requests}
	}
	return b.giveBack(rate, at)
}

// giveBack never makes a bucket fuller than full.
func (b *bucket) giveBack(rate Rate, at int64) Decision {
	interval := int64(rate.interval())
	burst := interval * int64(rate.Requests)
	for {
		old := b.fullAt.Load()
		next := max(old-interval, at)
		if old <= at {
			next = old
		}
		if b.fullAt.CompareAndSwap(old, next) {
			taken := max(next-at, 0)
			return Decision{Allowed: true, Rate: rate, Remaining: int(max(burst-taken, 0) / interval), ResetAfter: time.Duration(taken)}
		}
	}
}
