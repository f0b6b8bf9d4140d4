package models

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// startLoad starts the load of a queued entry. Called with mu held.
func (c *Cache) startLoad(e *entry, now time.Time) {
	e.state, e.progressAt = slotLoading, now
	c.events.add(Event{Kind: EventLoading, Model: e.src.model, Version: e.src.version})
	c.wg.Go(func() { c.runLoad(e) })
}

// runLoad loads an entry and answers its waiters. A backend that ignores its context keeps the place in the cache busy,
// but not the waiters.
func (c *Cache) runLoad(e *entry) {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(c.ctx, c.opts.LoadTimeout, errLoadTimeout)
	defer cancel()
	stopAbandon := context.AfterFunc(ctx, func() { c.abandonLoad(e, context.Cause(ctx)) })
	c.mu.Lock()
	heartbeat := c.loadHeartbeat(e)
	c.mu.Unlock()
	c.opts.OnLoad(heartbeat, true)
	err := c.loadEntry(ctx, e)
	c.opts.OnLoad(heartbeat, false)
	stopAbandon()
	if err != nil && ctx.Err() != nil { // whatever error the backend made of it
		err = interruptedLoad(context.Cause(ctx), err, label(e.src.model, e.src.version))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.loadFailed(e, asLoadError(err, label(e.src.model, e.src.version)))
		return
	}
	c.opts.Registry.setLoadProblem(e.src.baseID, "")
	c.opts.Registry.setLoadProblem(e.src.identity, "")
	if src := c.opts.Registry.source(e.src.model, e.src.version); src != nil && src.identity == e.src.identity {
		e.src = src // its defaults may have changed meanwhile
	}
	e.state, e.loadedAt = slotResident, time.Now()
	took := e.loadedAt.Sub(start)
	c.events.add(Event{Kind: EventLoaded, Model: e.src.model, Version: e.src.version, Took: took, Bytes: e.bytes, Facts: e.base.facts})
	for _, w := range e.waiters {
		w.lease = c.newLease(e, w.counted, false)
		close(w.ready)
	}
	e.waiters = nil
	if e.evictWhenLoaded { // its files changed meanwhile, or its time was over at this very moment
		e.state, e.evictReason = slotDraining, cmp.Or(e.evictReason, evictedLRU)
	}
	c.afterLoad(e)
}

// afterLoad starts what follows a load that succeeded. Called with mu held.
func (c *Cache) afterLoad(e *entry) {
	if c.closed {
		e.state, e.evictReason = slotDraining, evictedAdmin
		if e.leases == 0 {
			c.evict(e, evictedAdmin)
		}
		return
	}
	src := e.src
	c.wg.Go(func() { c.computeChecksums(src) })
	c.plan()
}

// abandonLoad answers the waiters of a load whose context ended before the backend returned.
func (c *Cache) abandonLoad(e *entry, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.state != slotLoading {
		return
	}
	e.evictWhenLoaded = true
	if errors.Is(cause, ErrClosed) {
		e.failWaiters(ErrClosed)
	} else {
		e.failWaiters(asLoadError(cause, label(e.src.model, e.src.version)))
	}
}

// loadFailed removes an entry that couldn't be loaded. Called with mu held.
func (c *Cache) loadFailed(e *entry, err *LoadError) {
	err = c.withPublicText(e.src, err)
	closing := c.closed && errors.Is(err, ErrClosed)
	isNew := true
	if err.filesAreBroken() { // listed before the waiters are answered, who may then look it up
		isNew = c.opts.Registry.setLoadProblem(cmp.Or(e.problemKey, e.src.identity), err.Public)
	}
	c.reportLoadFailure(e.src, err, closing || !isNew) // before the waiters are answered, who may await its delivery
	if closing {
		e.failWaiters(ErrClosed)
	} else {
		e.failWaiters(err)
		c.rememberBroken(e.src, err)
	}
	c.removeEntry(e)
	c.plan()
}

// reportLoadFailure sends the event of a failed load. logged: the log has it already, or needn't have it.
func (c *Cache) reportLoadFailure(src *source, err *LoadError, logged bool) {
	c.events.add(Event{
		Kind: EventLoadFailed, Model: src.model, Version: src.version,
		Reason: string(err.Reason), Message: err.Err.Error(), Logged: logged,
	})
}

// loadEntry loads the base and the adapter of an entry.
func (c *Cache) loadEntry(ctx context.Context, e *entry) error {
	report := func(p Progress) { c.entryProgress(e, p) }
	b, err := c.acquireBase(ctx, e.src)
	if err != nil {
		c.mu.Lock()
		e.problemKey = e.src.baseID
		c.mu.Unlock()
		return err
	}
	var adapter Adapter
	if e.src.adapter != nil {
		adapter, err = c.loadAdapter(ctx, b, e.src, report)
	}
	if err == nil {
		err = context.Cause(ctx) // a load that finishes after its timeout has failed, too
	}
	if err != nil {
		if adapter != nil {
			err = errors.Join(err, adapter.Close())
		}
		c.releaseBase(b)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b.facts = b.base.Facts()
	bytes := b.facts.WeightBytes + b.facts.CacheBytes
	if adapter != nil {
		bytes = adapter.Bytes()
	}
	e.base, e.adapter, e.bytes = b, adapter, bytes
	return nil
}

func (c *Cache) loadAdapter(ctx context.Context, b *sharedBase, src *source, report func(Progress)) (Adapter, error) {
	what := label(src.model, src.version)
	path, err := c.fileCache.prepare(ctx, src.adapter, what, report)
	if err != nil {
		return nil, err
	}
	release, err := c.reserveMemory(ctx, src, src.adapter.bytes, b.base)
	if err != nil {
		return nil, err
	}
	defer release()
	report(Progress{Phase: "adapter"})
	adapter, err := b.base.LoadAdapter(ctx, AdapterSpec{Name: src.version, Path: path})
	if err != nil {
		return nil, err
	}
	if err := src.adapter.checkUnchanged(); err != nil {
		return nil, errors.Join(err, adapter.Close())
	}
	return adapter, nil
}

// unload frees an entry without leases.
func (c *Cache) unload(e *entry) {
	if e.adapter != nil {
		if err := e.adapter.Close(); err != nil {
			c.opts.Log.Error("adapter couldn't be freed", "model", e.src.model, "version", e.src.version, "err", err)
		}
		c.mu.Lock()
		e.base.facts = e.base.base.Facts()
		c.mu.Unlock()
	}
	c.releaseBase(e.base)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events.add(Event{Kind: EventEvicted, Model: e.src.model, Version: e.src.version, Reason: e.evictReason})
	c.removeEntry(e)
	c.plan()
}

// computeChecksums computes the content's sha256 in the background: with it, revisions are the same on another machine
// that has a copy of the files.
func (c *Cache) computeChecksums(src *source) {
	if err := lowerPriority(); err != nil {
		c.opts.Log.Debug("checksums are computed with the usual priority", "err", err)
	}
	for _, a := range []*weightsFile{src.base, src.adapter} {
		if a == nil {
			continue
		}
		if _, err := c.fileCache.contentHash(c.ctx, a); err != nil && c.ctx.Err() == nil {
			c.opts.Log.Warn("checksum of a loaded model", "file", a.name(), "err", err)
		}
	}
}
