package models

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// enqueue adds an entry that waits for a place, unless too many wait or the files are known to be broken.
func (c *Cache) enqueue(src *source, now time.Time) (*entry, error) {
	if b, ok := c.brokenLoads[src.brokenKey()]; ok && now.Before(b.until) && !c.mayRetryForMemory(src, b, now) {
		return nil, b.err
	}
	if src.problem != "" {
		return nil, c.rejectBroken(src)
	}
	queued := 0
	for _, e := range c.entries {
		if e.state == slotQueued {
			queued++
		}
	}
	if queued >= maxQueued {
		return nil, ErrModelBusy
	}
	e := &entry{src: src, queueDeadline: now.Add(c.opts.BusyWait), gone: make(chan struct{})}
	c.entries = append(c.entries, e)
	return e, nil
}

// plan decides with planSlots what happens to the entries and starts it. Called with mu held after every change.
func (c *Cache) plan() {
	if c.closed {
		return
	}
	now := time.Now()
	next := c.expireQueued(now)
	slots := make([]cacheSlot, len(c.entries))
	for i, e := range c.entries {
		slots[i] = cacheSlot{
			state: e.state, leases: e.leases, lastRequest: e.lastRequest, loadedAt: e.loadedAt,
			drainingForRoom: e.evictReason == evictedLRU,
		}
	}
	plan := planSlots(c.opts.Size, slots, now, minResident)
	entries := slices.Clone(c.entries)
	for _, i := range plan.load {
		c.startLoad(entries[i], now)
	}
	for _, i := range plan.drain {
		entries[i].state, entries[i].evictReason = slotDraining, evictedLRU
	}
	for _, i := range plan.keep {
		entries[i].state, entries[i].evictReason = slotResident, ""
	}
	for _, i := range plan.evict {
		c.evict(entries[i], cmp.Or(entries[i].evictReason, evictedLRU))
	}
	if !plan.replanAt.IsZero() && (next.IsZero() || plan.replanAt.Before(next)) {
		next = plan.replanAt
	}
	c.planAt(next, now)
}

// expireQueued fails the waiters that have waited too long for a place, and returns when the next ones will have.
func (c *Cache) expireQueued(now time.Time) (next time.Time) {
	for _, e := range slices.Clone(c.entries) {
		if e.state != slotQueued {
			continue
		}
		if !e.queueDeadline.After(now) {
			e.failWaiters(ErrModelBusy)
			c.removeEntry(e)
		} else if next.IsZero() || e.queueDeadline.Before(next) {
			next = e.queueDeadline
		}
	}
	return next
}

// planAt calls plan at a later time; zero: never. Called with mu held.
func (c *Cache) planAt(at, now time.Time) {
	if c.planTimer != nil {
		c.planTimer.Stop()
		c.planTimer = nil
	}
	if !at.IsZero() {
		c.planTimer = time.AfterFunc(at.Sub(now), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.plan()
		})
	}
}

// Eviction reasons, as in Event.Reason.
const (
	evictedLRU     = "lru"
	evictedMemory  = "memory"
	evictedChanged = "changed"
	evictedAdmin   = "admin"
)

// evict frees an entry without leases in the background. Called with mu held.
func (c *Cache) evict(e *entry, reason string) {
	e.state, e.evictReason = slotUnloading, reason
	c.wg.Go(func() { c.unload(e) })
}

// followRegistry evicts entries whose files, or the checksums that these must have, changed, or which were removed.
func (c *Cache) followRegistry() {
	for {
		changed := c.opts.Registry.Changes()
		c.reconcile()
		c.removeReplacedFiles()
		select {
		case <-c.ctx.Done():
			return
		case <-changed:
		}
	}
}

// removeReplacedFiles removes what was unpacked of files that are no longer installed. Only loads still need it.
func (c *Cache) removeReplacedFiles() {
	unpacked := c.fileCache.unpackedHere() // first: what loads of the new files unpack meanwhile isn't part of it
	keep := c.opts.Registry.unpackedNames()
	c.mu.Lock()
	for _, e := range c.entries {
		if e.state == slotLoading {
			e.src.addUnpackedNames(keep)
		}
	}
	c.mu.Unlock()
	for _, name := range unpacked {
		if !keep[name] {
			c.fileCache.removeUnpacked(name)
		}
	}
}

func (c *Cache) reconcile() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range slices.Clone(c.entries) {
		src := c.opts.Registry.source(e.src.model, e.src.version)
		usable := src != nil && src.problem == ""
		if usable && e.state == slotQueued {
			e.src = src // the files may only have other names now
			continue
		}
		if usable && src.identity == e.src.identity {
			if e.state == slotResident { // a load reads its source without mu, and takes the newer one when it ends
				e.src = src
			}
			continue
		}
		switch e.state {
		case slotQueued:
			e.failWaiters(&LoadError{Reason: ReasonNotFound, What: label(e.src.model, e.src.version), Err: errors.New("it was removed")})
			c.removeEntry(e)
		case slotLoading:
			e.evictWhenLoaded, e.evictReason = true, evictedChanged
		case slotResident, slotDraining:
			e.state, e.evictReason = slotDraining, evictedChanged
		}
	}
	c.plan()
}
