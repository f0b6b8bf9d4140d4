package models

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// sharedBase is one loaded base, shared by the entries of its versions. base, key and err are set before ready is
// closed.
type sharedBase struct {
	id          string        // source.baseID
	key         string        // name at the executor
	refs        int           // guarded by Cache.mu; entries that use it or wait for it
	isUnloading bool          // guarded by Cache.mu
	ready       chan struct{} // closed when the load is over
	gone        chan struct{} // closed when it was freed

	base  Base
	facts Facts // guarded by Cache.mu; brought up to date when an adapter came or went
	err   error
}

// acquireBase joins or starts the load of the base that src needs. Without an error the caller must call releaseBase.
func (c *Cache) acquireBase(ctx context.Context, src *source) (*sharedBase, error) {
	for {
		c.mu.Lock()
		b := c.bases[src.baseID]
		switch {
		case b == nil:
			b = c.newSharedBase(src)
			c.mu.Unlock()
			return b, c.loadBase(ctx, b, src)
		case b.isUnloading:
			c.mu.Unlock()
			if err := waitFor(ctx, b.gone); err != nil {
				return nil, err
			}
		default:
			b.refs++
			c.mu.Unlock()
			err := waitFor(ctx, b.ready)
			if err == nil {
				err = b.err
			}
			if err != nil {
				c.releaseBase(b)
				return nil, err
			}
			return b, nil
		}
	}
}

func waitFor(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// newSharedBase adds a base that isn't loaded yet. Its key is the model's name, with @version for a full model that is
// a version, and #n from its second load on, which distinguishes two states of one base. Called with mu held.
func (c *Cache) newSharedBase(src *source) *sharedBase {
	key := src.model
	if src.adapter == nil && src.version != BaseVersion {
		key += "@" + src.version
	}
	c.loadCounts[key]++
	if n := c.loadCounts[key]; n > 1 {
		key = fmt.Sprintf("%s#%d", key, n)
	}
	b := &sharedBase{id: src.baseID, key: key, refs: 1, ready: make(chan struct{}), gone: make(chan struct{})}
	c.bases[b.id] = b
	return b
}

// loadBase loads a base that newSharedBase added; after an error it is removed again.
func (c *Cache) loadBase(ctx context.Context, b *sharedBase, src *source) error {
	base, err := c.openBase(ctx, b, src)
	c.mu.Lock()
	if err != nil {
		b.err = err
		delete(c.bases, b.id)
		close(b.gone)
	} else {
		b.base, b.facts = base, base.Facts()
	}
	c.mu.Unlock()
	close(b.ready)
	return err
}

// openBase prepares the files, reserves the memory, loads the base and attaches it.
func (c *Cache) openBase(ctx context.Context, b *sharedBase, src *source) (Base, error) {
	attention := src.attention.Or(c.opts.Attention)
	if err := attention.Check(); err != nil { // model.yaml and the settings are good, but not together
		return nil, &LoadError{Reason: ReasonBadFormat, What: label(src.model, src.version), Err: fmt.Errorf("model.yaml with the engine's settings: %w", err)}
	}
	report := func(p Progress) { c.baseProgress(b.id, p) }
	path, err := c.fileCache.prepare(ctx, src.base, label(src.model, src.version), report)
	if err != nil {
		return nil, err
	}
	release, err := c.reserveMemory(ctx, src, src.base.bytes, nil)
	if err != nil {
		return nil, err
	}
	defer release()
	report(Progress{Phase: "weights"})
	room, free := c.opts.HostRoom()
	base, err := c.opts.Backend.LoadBase(ctx, BaseSpec{
		Name: src.model, Key: b.key, Path: path, WeightBytes: src.base.bytes, Context: c.opts.Context, Parallel: c.opts.Parallel, MMap: c.opts.MMap,
		Template: src.template, Pooling: src.pooling, Attention: attention, HostRoom: room, HostFree: free,
		MoreFits: func(bytes int64) bool { return c.opts.MemoryFits(bytes, c.isOnlyBase(src.baseID)) },
	}, report)
	if err != nil {
		return nil, err
	}
	if err = src.base.checkUnchanged(); err == nil {
		err = c.opts.Attach(ctx, b.key, base)
	}
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return base, nil
}

// releaseBase ends one use of a base and frees it after the last one.
func (c *Cache) releaseBase(b *sharedBase) {
	c.mu.Lock()
	b.refs--
	last := b.refs == 0 && b.base != nil
	b.isUnloading = b.isUnloading || last
	c.mu.Unlock()
	if !last {
		return
	}
	if err := c.opts.Detach(context.WithoutCancel(c.ctx), b.key); err != nil {
		c.opts.Log.Error("base couldn't be taken from the executor", "base", b.key, "err", err)
	}
	if err := b.base.Close(); err != nil {
		c.opts.Log.Error("base couldn't be freed", "base", b.key, "err", err)
	}
	c.mu.Lock()
	delete(c.bases, b.id)
	c.mu.Unlock()
	close(b.gone)
}

// ModelOfKey returns the name of the model that a base key belongs to.
func ModelOfKey(key string) string {
	if i := strings.IndexAny(key, "@#"); i >= 0 {
		return key[:i]
	}
	return key
}
