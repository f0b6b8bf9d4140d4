package models

import (
	"sync"
)

// Lease keeps a version loaded until Release.
type Lease struct {
	Model    string
	Version  string   // resolved
	Revision Revision // shared, must not be changed
	BaseKey  string   // the executor's name of the base, as passed to Attach
	Base     Base
	Adapter  Adapter // nil for the base alone and for full models
	Defaults Defaults
	Counted  bool // false for a replay, which is neither hit nor miss
	Hit      bool // it was loaded when it was requested

	once    sync.Once
	release func()
}

// Release ends the lease. Idempotent, doesn't block.
func (l *Lease) Release() { l.once.Do(l.release) }

// newLease makes a lease on a loaded entry. Called with mu held.
func (c *Cache) newLease(e *entry, counted, hit bool) *Lease {
	e.leases++
	if len(e.revision) < fullRevision {
		e.revision = c.revision(e.src)
	}
	return &Lease{
		Model: e.src.model, Version: e.src.version, Revision: e.revision, BaseKey: e.base.key, Base: e.base.base,
		Adapter: e.adapter, Defaults: e.src.defaults, Counted: counted, Hit: hit && counted,
		release: func() { c.releaseLease(e) },
	}
}

// releaseLease ends one lease of an entry.
func (c *Cache) releaseLease(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.leases--
	if c.closed {
		if e.leases == 0 && e.state == slotDraining {
			c.evict(e, e.evictReason)
		}
		return
	}
	if e.leases == 0 {
		c.plan()
	}
}
