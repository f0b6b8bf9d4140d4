package models

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// memoryReservations are the bytes that running loads are about to fill, so that two that don't fit together don't
// start together.
type memoryReservations struct {
	mu    sync.Mutex
	bytes int64         // guarded by mu
	freed chan struct{} // guarded by mu; closed when bytes shrinks
}

// reserve adds bytes when they fit beside those of the other loads. Otherwise wait is closed when one of these is over;
// nil: there is none.
func (r *memoryReservations) reserve(bytes int64, fits func(int64) bool) (ok bool, wait <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if fits(r.bytes + bytes) {
		r.bytes += bytes
		return true, nil
	}
	if r.bytes == 0 {
		return false, nil
	}
	if r.freed == nil {
		r.freed = make(chan struct{})
	}
	return false, r.freed
}

func (r *memoryReservations) release(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= bytes
	if r.freed != nil {
		close(r.freed)
		r.freed = nil
	}
}

var errExceedsFreeMemory = errors.New("free memory can't hold it although nothing else is loaded")

// noRoomError says that a load has no room beside bases in use, though all others have gone for it.
type noRoomError struct{ inUse []string } // by source.baseID

func (*noRoomError) Error() string {
	return "it would pass the memory watermark and no idle model can make room"
}

// reserveMemory waits for other loads and then evicts idle entries of other bases until the new weights fit. besides is
// the base of an adapter, nil for a base itself. done must be called when they are loaded.
func (c *Cache) reserveMemory(ctx context.Context, src *source, bytes int64, besides Base) (done func(), err error) {
	for {
		onlyBase := c.isOnlyBase(src.baseID)
		ok, wait := c.reservations.reserve(bytes, func(all int64) bool {
			return c.opts.MemoryFits(all, onlyBase) && (besides == nil || besides.AdapterFits(bytes, src.adapter.slotBytes(), onlyBase))
		})
		if ok {
			return func() { c.reservations.release(bytes) }, nil
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if wait == nil {
			victim, inUse := c.evictIdlest(src.baseID)
			if victim == nil {
				why := errExceedsFreeMemory
				if len(inUse) > 0 {
					why = &noRoomError{inUse}
				}
				return nil, &LoadError{Reason: ReasonOutOfMemory, What: label(src.model, src.version), Err: why}
			}
			wait = victim.gone
		}
		if err := c.waitWithProgress(ctx, src.baseID, wait); err != nil {
			return nil, err
		}
	}
}

// isOnlyBase reports whether no other base is loaded or being loaded.
func (c *Cache) isOnlyBase(baseID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isOnlyBaseLocked(baseID)
}

// isOnlyBaseLocked is isOnlyBase with mu held.
func (c *Cache) isOnlyBaseLocked(baseID string) bool {
	return !slices.ContainsFunc(c.entries, func(e *entry) bool { return e.src.baseID != baseID && e.state != slotQueued })
}

// Pauses between two attempts at a load that was refused for memory, however often it is requested.
const (
	firstMemoryRetryPause = 500 * time.Millisecond
	maxMemoryRetryPause   = 5 * time.Second
	memoryAnswerTTL       = time.Second // how long an answer of MemoryFits counts
)

// refusedForMemory reports whether a load failed for memory after others had gone for it.
func (e *LoadError) refusedForMemory() bool {
	_, noRoom := errors.AsType[*noRoomError](e)
	return noRoom || errors.Is(e, errExceedsFreeMemory)
}

// mayRetryForMemory reports whether a load that was refused for memory may be tried again without others being evicted
// for it in vain: there are none, it fits beside them, or a base that was in use isn't any more. Called with mu held.
func (c *Cache) mayRetryForMemory(src *source, b brokenLoad, now time.Time) bool {
	if !b.err.refusedForMemory() {
		return false
	}
	if noRoom, ok := errors.AsType[*noRoomError](b.err); ok && !c.areInUse(noRoom.inUse) {
		return true
	}
	if now.Before(b.retryAt) {
		return false
	}
	b.retryAt = now.Add(memoryAnswerTTL)
	c.brokenLoads[src.brokenKey()] = b
	return c.isOnlyBaseLocked(src.baseID) || c.fitsBesideOthers(src)
}

// fitsBesideOthers reports whether what of src isn't loaded fits below the watermark now. Called with mu held.
func (c *Cache) fitsBesideOthers(src *source) bool {
	if src.adapter == nil {
		return c.opts.MemoryFits(src.base.bytes, false)
	}
	if b := c.bases[src.baseID]; b != nil && b.base != nil {
		return c.opts.MemoryFits(src.adapter.bytes, false) && b.base.AdapterFits(src.adapter.bytes, src.adapter.slotBytes(), false)
	}
	return c.opts.MemoryFits(src.base.bytes+src.adapter.bytes, false)
}

// areInUse reports whether each of these bases has an entry that can't be evicted. Called with mu held.
func (c *Cache) areInUse(baseIDs []string) bool {
	for _, id := range baseIDs {
		if !slices.ContainsFunc(c.entries, func(e *entry) bool { return e.src.baseID == id && e.isInUse() }) {
			return false
		}
	}
	return true
}

// isInUse reports whether the entry has memory, or is about to, that can't be freed at once. Called with mu held.
func (e *entry) isInUse() bool {
	return e.state == slotLoading || (e.state == slotResident || e.state == slotDraining) && e.leases > 0
}

// evictIdlest starts the eviction of the least recently requested idle entry of another base, or returns one that is
// being evicted already. inUse are the other bases whose entries can't be evicted.
func (c *Cache) evictIdlest(baseID string) (victim *entry, inUse []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if e.src.baseID == baseID {
			continue
		}
		switch {
		case e.state == slotUnloading:
			return e, nil
		case e.isInUse():
			inUse = append(inUse, e.src.baseID)
		case e.state == slotResident && (victim == nil || e.lastRequest.Before(victim.lastRequest)):
			victim = e
		}
	}
	if victim != nil {
		c.evict(victim, evictedMemory)
	}
	return victim, inUse
}
