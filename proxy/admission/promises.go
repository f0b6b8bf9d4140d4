package admission

import (
	"math"
	"time"
)

const (
	// minRetry is the shortest time after which a refused client is told to try again, and maxRetry the longest: client
	// libraries follow no longer one (those of OpenAI and Anthropic try again within seconds then).
	minRetry, maxRetry = time.Second, time.Minute
	// promisedEach is how much of each second of an engine is promised: estimates wander.
	promisedEach = 900 * time.Millisecond

	retrySeconds = int(maxRetry / time.Second)
	manyPromises = 64 // keys; above that those are forgotten whose promises have passed
)

// Promises says to refused clients of one base when to come back: each when room for its own work will be free, after
// the work that waits and beside that of clients of the same key who were told to come back then. So a crowd comes back
// at the rate at which it can be served. A promise passes with its time, whether or not the client comes: room that it
// leaves is for whoever comes first. The zero value has promised nothing. It isn't safe for concurrent use.
type Promises struct {
	byKey map[uint64]*calendar
	start time.Time // of the seconds that calendars count
}

// calendar is how much of the engine's time in each of the seconds to come one key's clients were promised.
type calendar struct {
	now      int // the second that is running
	promised [retrySeconds + 1]time.Duration
}

// Next promises a client of a key room, and returns when it should come back, in whole seconds: wait is until it would
// be let in if nobody else came, takes the engine's time for its work. Where all is promised for a minute the client is
// told a minute without a promise.
func (p *Promises) Next(key uint64, wait, takes time.Duration, now time.Time) (retryAfter time.Duration) {
	first := int(math.Ceil(max(wait, minRetry).Seconds()))
	c := p.calendar(key, now)
	for after := first; after <= retrySeconds; after++ {
		if *c.at(after) < promisedEach {
			c.promise(after, takes)
			return time.Duration(after) * time.Second
		}
	}
	return maxRetry
}

// calendar returns a key's calendar as of now.
func (p *Promises) calendar(key uint64, now time.Time) *calendar {
	if p.byKey == nil {
		p.byKey, p.start = make(map[uint64]*calendar), now
	}
	second := int(max(now.Sub(p.start), 0) / time.Second)
	c := p.byKey[key]
	if c == nil {
		if len(p.byKey) >= manyPromises {
			p.forgetPassed(second)
		}
		c = &calendar{now: second}
		p.byKey[key] = c
	}
	c.pass(second)
	return c
}

// forgetPassed forgets the keys whose promises have passed.
func (p *Promises) forgetPassed(second int) {
	for key, c := range p.byKey {
		if second-c.now > retrySeconds {
			delete(p.byKey, key)
		}
	}
}

// at is what was promised of the second that begins so many seconds after the running one.
func (c *calendar) at(after int) *time.Duration { return &c.promised[(c.now+after)%len(c.promised)] }

// pass lets time pass until a second.
func (c *calendar) pass(until int) {
	for range min(max(until-c.now, 0), len(c.promised)) {
		*c.at(0) = 0
		c.now++
	}
	c.now = max(c.now, until)
}

// promise takes so much of the engine's time, from a second on.
func (c *calendar) promise(after int, takes time.Duration) {
	for ; takes > 0 && after <= retrySeconds; after++ {
		promised := c.at(after)
		part := min(takes, promisedEach-*promised)
		*promised += part
		takes -= part
	}
}
