package models

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// claims are the bytes that loads in hand are about to fill, so that two that don't fit together don't begin together.
type claims struct {
	mu    sync.Mutex
	bytes int64         // guarded by mu
	freed chan struct{} // guarded by mu; closed when bytes shrinks
}

// claim takes bytes when they fit beside those of the other loads. Otherwise wait is closed when one of these is over; nil: there is none.
func (c *claims) claim(bytes int64, fits func(int64) bool) (ok bool, wait <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fits(c.bytes + bytes) {
		c.bytes += bytes
		return true, nil
	}
	if c.bytes == 0 {
		return false, nil
	}
	if c.freed == nil {
		c.freed = make(chan struct{})
	}
	return false, c.freed
}

func (c *claims) giveBack(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= bytes
	if c.freed != nil {
		close(c.freed)
		c.freed = nil
	}
}

var (
	errNoRoom = errors.New("it would pass the memory watermark and no idle model can make room")
	errTooBig = errors.New("free memory can't hold it although nothing else is loaded")
)

// roomInMemory waits for other loads and then evicts idle entries of other bases until the new weights fit. done must be called when they
// are loaded.
func (c *Cache) roomInMemory(ctx context.Context, src *source, bytes int64) (done func(), err error) {
	for {
		nothingElse := c.nothingElse(src.baseID)
		ok, wait := c.claims.claim(bytes, func(all int64) bool { return c.opts.Fits(all, nothingElse) })
		if ok {
			return func() { c.claims.giveBack(bytes) }, nil
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if wait == nil {
			victim, alone := c.idlest(src.baseID)
			if victim == nil {
				why := errNoRoom
				if alone {
					why = errTooBig
				}
				return nil, &LoadError{Reason: ReasonOutOfMemory, What: label(src.model, src.version), Err: why}
			}
			wait = victim.gone
		}
		if err := c.waitAlive(ctx, src.baseID, wait); err != nil {
			return nil, err
		}
	}
}

// nothingElse tells whether no other base is loaded or about to be.
func (c *Cache) nothingElse(baseID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.alone(baseID)
}

// alone is called with mu held.
func (c *Cache) alone(baseID string) bool {
	return !slices.ContainsFunc(c.entries, func(e *entry) bool { return e.src.baseID != baseID && e.state != seatQueued })
}

// Pauses between two attempts at a load that was refused for memory with nothing else loaded, however often it is asked for.
const (
	firstRoomPause = 500 * time.Millisecond
	lastRoomPause  = 5 * time.Second
	fitsFor        = time.Second // how long an answer about memory counts
)

// roomAgain tells whether a load that was refused for memory may be tried again although others would be pushed out for it in vain: there
// are none, or it fits beside them. Called with mu held.
func (c *Cache) roomAgain(src *source, b brokenLoad, now time.Time) bool {
	if !errors.Is(b.err, errTooBig) || now.Before(b.askAgain) {
		return false
	}
	b.askAgain = now.Add(fitsFor)
	c.broken[src.brokenKey()] = b
	bytes := src.base.bytes
	if src.adapter != nil {
		bytes += src.adapter.bytes
	}
	return c.alone(src.baseID) || c.opts.Fits(bytes, false)
}

// waitAlive waits on behalf of the loads of a base, which don't count as hung meanwhile: what they wait for is watched itself.
func (c *Cache) waitAlive(ctx context.Context, baseID string, over <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			c.mu.Lock()
			for _, e := range c.entries {
				if e.src.baseID == baseID && e.state == seatLoading {
					e.counter, e.moved = e.counter+1, now
				}
			}
			c.mu.Unlock()
		}
	}
}

// idlest starts the eviction of the least recently requested idle entry of another base, or gives one that is being evicted already.
// alone: there is no entry of another base.
func (c *Cache) idlest(baseID string) (victim *entry, alone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	alone = true
	for _, e := range c.entries {
		if e.src.baseID == baseID || e.state == seatQueued {
			continue
		}
		alone = false
		switch {
		case e.state == seatClosing:
			return e, false
		case e.state == seatResident && e.leases == 0 && (victim == nil || e.requested.Before(victim.requested)):
			victim = e
		}
	}
	if victim != nil {
		c.evict(victim, evictedMemory)
	}
	return victim, alone
}
