package models

import (
	"strings"
	"sync"
	"time"
)

// Lease keeps a version loaded until Release.
type Lease struct {
	Model    string
	Version  string   // resolved
	Revision Revision // shared, must not be changed
	BaseKey  string   // name of the base at the executor, as given to Attach
	Base     Base
	Adapter  Adapter // nil for the base alone and for full models
	Defaults Defaults
	Counted  bool // false for a replay, which is neither hit nor miss
	Hit      bool // it was loaded when it was asked for

	once    sync.Once
	release func()
}

// Release gives the lease back. Idempotent, doesn't block.
func (l *Lease) Release() { l.once.Do(l.release) }

// grant makes a lease on a loaded entry. Called with mu held.
func (c *Cache) grant(e *entry, counted, hit bool) *Lease {
	e.leases++
	if len(e.revision) < fullRevision {
		e.revision = c.revision(e.src)
	}
	return &Lease{
		Model: e.src.model, Version: e.src.version, Revision: e.revision, BaseKey: e.base.key, Base: e.base.base,
		Adapter: e.adapter, Defaults: e.src.defaults, Counted: counted, Hit: hit && counted,
		release: func() { c.put(e) },
	}
}

// put takes a lease back.
func (c *Cache) put(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.leases--
	if c.closed {
		if e.leases == 0 && e.state == seatCondemned {
			c.evict(e, e.why)
		}
		return
	}
	if e.leases == 0 {
		c.plan()
	}
}

// Entry is one place of the cache for people and gauges.
type Entry struct {
	Model, Version string
	Bytes          int64 // that evicting it would free, the shared base not included
	Facts          Facts // of its base; empty while loading
	Loading        bool
	Leases         int
}

// Entries lists what has a place in the cache.
func (c *Cache) Entries() []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Entry
	for _, e := range c.entries {
		switch e.state {
		case seatQueued:
		case seatLoading:
			list = append(list, Entry{Model: e.src.model, Version: e.src.version, Loading: true})
		default:
			list = append(list, Entry{Model: e.src.model, Version: e.src.version, Bytes: e.bytes, Facts: e.base.facts, Leases: e.leases})
		}
	}
	return list
}

// Size is CACHE_SIZE.
func (c *Cache) Size() int { return c.opts.Size }

// LoadHeartbeat is the heartbeat of one load.
type LoadHeartbeat struct {
	Model, Version string
	Revision       Revision
	Phase          string
	Counter        uint64        // moves with every sign of progress
	Age            time.Duration // since Counter moved
}

// Loads gives the heartbeats of the loads in hand.
func (c *Cache) Loads() []LoadHeartbeat {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []LoadHeartbeat
	for _, e := range c.entries {
		if e.state == seatLoading {
			list = append(list, c.loadHeartbeat(e))
		}
	}
	return list
}

// loadHeartbeat is how far the load of an entry is. Called with mu held.
func (c *Cache) loadHeartbeat(e *entry) LoadHeartbeat {
	return LoadHeartbeat{
		Model: e.src.model, Version: e.src.version, Revision: c.revision(e.src),
		Phase: e.progress.Phase, Counter: e.counter, Age: time.Since(e.moved),
	}
}

// ModelOfKey gives the model's name that a base key belongs to.
func ModelOfKey(key string) string {
	if i := strings.IndexAny(key, "@#"); i >= 0 {
		return key[:i]
	}
	return key
}

// revision gives what is known of the content now.
func (c *Cache) revision(s *source) Revision {
	rev := append(Revision(nil), s.state[:]...)
	if sum := s.content(c.files.knownContent); sum != nil {
		rev = append(rev, sum...)
	}
	return rev
}
