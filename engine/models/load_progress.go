package models

import (
	"context"
	"time"
)

// LoadHeartbeat is the heartbeat of one load.
type LoadHeartbeat struct {
	Model, Version string
	Revision       Revision
	Phase          string
	Counter        uint64        // grows with every sign of progress
	Age            time.Duration // since Counter grew
}

// Loads returns the heartbeats of the running loads.
func (c *Cache) Loads() []LoadHeartbeat {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []LoadHeartbeat
	for _, e := range c.entries {
		if e.state == slotLoading {
			list = append(list, c.loadHeartbeat(e))
		}
	}
	return list
}

// loadHeartbeat returns how far the load of an entry is. Called with mu held.
func (c *Cache) loadHeartbeat(e *entry) LoadHeartbeat {
	return LoadHeartbeat{
		Model: e.src.model, Version: e.src.version, Revision: c.revision(e.src),
		Phase: e.progress.Phase, Counter: e.progressCounter, Age: time.Since(e.progressAt),
	}
}

// baseProgress records progress of a base's load for every entry that waits for it.
func (c *Cache) baseProgress(baseID string, p Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if e.src.baseID == baseID {
			c.recordProgress(e, p)
		}
	}
}

// entryProgress records progress of one entry's load.
func (c *Cache) entryProgress(e *entry, p Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recordProgress(e, p)
}

// recordProgress is called with mu held.
func (c *Cache) recordProgress(e *entry, p Progress) {
	if e.progress == p || e.state != slotLoading {
		return
	}
	e.progress, e.progressCounter, e.progressAt = p, e.progressCounter+1, time.Now()
	c.events.add(Event{Kind: EventProgress, Model: e.src.model, Version: e.src.version, Progress: p})
}

// waitWithProgress waits on behalf of the loads of a base and records progress for them meanwhile, so that they don't
// count as hung: what they wait for has a heartbeat of its own.
func (c *Cache) waitWithProgress(ctx context.Context, baseID string, over <-chan struct{}) error {
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
				if e.src.baseID == baseID && e.state == slotLoading {
					e.progressCounter, e.progressAt = e.progressCounter+1, now
				}
			}
			c.mu.Unlock()
		}
	}
}
