package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// held is one loaded base, shared by the entries of its versions. base, facts, key and err are set before ready is closed.
type held struct {
	id    string // source.baseID
	key   string // name at the executor
	refs  int    // guarded by Cache.mu; entries that use or want it
	dying bool   // guarded by Cache.mu; being freed
	ready chan struct{}
	gone  chan struct{} // closed when it was freed

	base  Base
	facts Facts
	err   error
}

// begin starts the load of a queued entry. Called with mu held.
func (c *Cache) begin(e *entry, now time.Time) {
	e.state, e.moved = seatLoading, now
	c.events.add(Event{Kind: EventLoading, Model: e.src.model, Version: e.src.version})
	c.wg.Go(func() { c.load(e) })
}

// load fills an entry and answers its waiters. A backend that doesn't heed its context keeps the place, but not the waiters.
func (c *Cache) load(e *entry) {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(c.ctx, c.opts.LoadTimeout, errLoadTimeout)
	defer cancel()
	giveUp := context.AfterFunc(ctx, func() { c.giveUp(e, context.Cause(ctx)) })
	c.mu.Lock()
	heartbeat := c.loadHeartbeat(e)
	c.mu.Unlock()
	c.opts.OnLoad(heartbeat, true)
	err := c.fetch(ctx, e)
	c.opts.OnLoad(heartbeat, false)
	giveUp()
	if err != nil && ctx.Err() != nil { // whatever the backend calls it
		err = abandoned(context.Cause(ctx), err, label(e.src.model, e.src.version))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed(e, loadError(err, label(e.src.model, e.src.version)))
		return
	}
	c.opts.Registry.learn(e.src.baseID, "")
	c.opts.Registry.learn(e.src.identity, "")
	e.state, e.resident = seatResident, time.Now()
	took := e.resident.Sub(start)
	c.events.add(Event{Kind: EventLoaded, Model: e.src.model, Version: e.src.version, Took: took, Bytes: e.bytes, Facts: e.base.facts})
	for _, w := range e.waiters {
		w.lease = c.grant(e, w.counted, false)
		close(w.ready)
	}
	e.waiters = nil
	if e.doomed { // its files changed meanwhile, or its time was over at this very moment
		e.state, e.why = seatCondemned, cmp.Or(e.why, evictedLRU)
	}
	c.afterLoad(e)
}

// abandoned tells why a load whose context ended came to nothing.
func abandoned(cause, err error, what string) error {
	if errors.Is(err, cause) {
		return &LoadError{Reason: loadError(cause, what).Reason, What: what, Err: cause}
	}
	return &LoadError{Reason: loadError(cause, what).Reason, What: what, Err: fmt.Errorf("%w: %w", cause, err)}
}

// afterLoad starts what follows a good load. Called with mu held.
func (c *Cache) afterLoad(e *entry) {
	if c.closed {
		e.state, e.why = seatCondemned, evictedAdmin
		if e.leases == 0 {
			c.evict(e, evictedAdmin)
		}
		return
	}
	src := e.src
	c.wg.Go(func() { c.checksum(src) })
	c.plan()
}

// giveUp answers the waiters of a load whose context ended before the backend came back.
func (c *Cache) giveUp(e *entry, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.state != seatLoading {
		return
	}
	e.doomed = true
	if errors.Is(cause, ErrClosed) {
		e.answer(ErrClosed)
	} else {
		e.answer(loadError(cause, label(e.src.model, e.src.version)))
	}
}

// failed removes an entry that couldn't be loaded. Called with mu held.
func (c *Cache) failed(e *entry, err *LoadError) {
	err = c.explained(e.src, err)
	closing := c.closed && errors.Is(err, ErrClosed)
	news := true
	if err.brokenFiles() { // listed before the answer, so that who is refused can look it up
		news = c.opts.Registry.learn(cmp.Or(e.blame, e.src.identity), err.Public)
	}
	if closing {
		e.answer(ErrClosed)
	} else {
		e.answer(err)
		c.remember(e.src, err)
	}
	c.tellFailed(e.src, err, closing || !news)
	c.drop(e)
	c.plan()
}

// tellFailed reports a failed load. told: the log has it already, or needn't.
func (c *Cache) tellFailed(src *source, err *LoadError, told bool) {
	c.events.add(Event{Kind: EventLoadFailed, Model: src.model, Version: src.version, Reason: string(err.Reason), Message: err.Err.Error(), Told: told})
}

// maxPublic bounds what clients are told of a failed load, in bytes.
const maxPublic = 300

// anyPath is an absolute path as the native library's messages may hold it, up to its last part.
var anyPath = regexp.MustCompile(`(^|[\s'"(=:])/(?:[^/\s'"]+/)+`)

// explained adds what clients may be told: the error's text with the files' names only.
func (c *Cache) explained(src *source, err *LoadError) *LoadError {
	text := err.Err.Error()
	for _, a := range []*artefact{src.base, src.adapter} {
		if a == nil {
			continue
		}
		for _, p := range a.parts {
			text = strings.ReplaceAll(text, filepath.Dir(p.open)+"/", "")
			text = strings.ReplaceAll(text, filepath.Dir(p.path)+"/", "")
		}
	}
	if c.files.dir != "" {
		text = strings.ReplaceAll(text, filepath.Join(c.files.dir, unpackedDir)+"/", "")
	}
	text = anyPath.ReplaceAllString(text, "$1")
	told := *err // the error may be shared with other waiters
	told.Public = strings.ToValidUTF8(text[:min(len(text), maxPublic)], "")
	return &told
}

// fetch loads base and adapter of an entry.
func (c *Cache) fetch(ctx context.Context, e *entry) error {
	tell := func(p Progress) { c.progress(e, p) }
	b, err := c.baseFor(ctx, e.src)
	if err != nil {
		c.mu.Lock()
		e.blame = e.src.baseID
		c.mu.Unlock()
		return err
	}
	var adapter Adapter
	if e.src.adapter != nil {
		adapter, err = c.fetchAdapter(ctx, b, e.src, tell)
	}
	if err == nil {
		err = context.Cause(ctx) // too late is too late
	}
	if err != nil {
		if adapter != nil {
			err = errors.Join(err, adapter.Close())
		}
		c.letGo(b)
		return err
	}
	bytes := b.facts.WeightBytes + b.facts.CacheBytes
	if adapter != nil {
		bytes = adapter.Bytes()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.base, e.adapter, e.bytes = b, adapter, bytes
	return nil
}

func (c *Cache) fetchAdapter(ctx context.Context, b *held, src *source, tell func(Progress)) (Adapter, error) {
	what := label(src.model, src.version)
	path, err := c.files.ready(ctx, src.adapter, what, tell)
	if err != nil {
		return nil, err
	}
	done, err := c.roomInMemory(ctx, src, src.adapter.bytes)
	if err != nil {
		return nil, err
	}
	defer done()
	tell(Progress{Phase: "adapter"})
	adapter, err := b.base.LoadAdapter(ctx, AdapterSpec{Name: src.version, Path: path})
	if err != nil {
		return nil, err
	}
	if err := src.adapter.unchanged(); err != nil {
		return nil, errors.Join(err, adapter.Close())
	}
	return adapter, nil
}

// baseProgress notes a sign of life of a base's load for every entry that waits for it.
func (c *Cache) baseProgress(baseID string, p Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if e.src.baseID == baseID {
			c.moves(e, p)
		}
	}
}

// progress notes a sign of life of one entry's load.
func (c *Cache) progress(e *entry, p Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moves(e, p)
}

// moves is called with mu held.
func (c *Cache) moves(e *entry, p Progress) {
	if e.progress == p || e.state != seatLoading {
		return
	}
	e.progress, e.counter, e.moved = p, e.counter+1, time.Now()
	c.events.add(Event{Kind: EventProgress, Model: e.src.model, Version: e.src.version, Progress: p})
}

// baseFor joins or starts the load of the base that src needs. The caller owes a letGo when there is no error.
func (c *Cache) baseFor(ctx context.Context, src *source) (*held, error) {
	for {
		c.mu.Lock()
		b := c.bases[src.baseID]
		switch {
		case b == nil:
			b = c.newHeld(src)
			c.mu.Unlock()
			return b, c.loadBase(ctx, b, src)
		case b.dying:
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
				c.letGo(b)
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

// newHeld makes the place for a base. Its key is the model's name, with @version for a full model that is a version, and #n from its
// second load on, so that two states of one base can be told apart.
func (c *Cache) newHeld(src *source) *held {
	key := src.model
	if src.adapter == nil && src.version != BaseVersion {
		key += "@" + src.version
	}
	c.generation[key]++
	if n := c.generation[key]; n > 1 {
		key = fmt.Sprintf("%s#%d", key, n)
	}
	b := &held{id: src.baseID, key: key, refs: 1, ready: make(chan struct{}), gone: make(chan struct{})}
	c.bases[b.id] = b
	return b
}

// loadBase loads what newHeld made a place for; on an error nobody holds it any more.
func (c *Cache) loadBase(ctx context.Context, b *held, src *source) error {
	base, err := c.readBase(ctx, b, src)
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

func (c *Cache) readBase(ctx context.Context, b *held, src *source) (Base, error) {
	tell := func(p Progress) { c.baseProgress(b.id, p) }
	path, err := c.files.ready(ctx, src.base, label(src.model, src.version), tell)
	if err != nil {
		return nil, err
	}
	done, err := c.roomInMemory(ctx, src, src.base.bytes)
	if err != nil {
		return nil, err
	}
	defer done()
	tell(Progress{Phase: "weights"})
	base, err := c.opts.Backend.LoadBase(ctx, BaseSpec{
		Name: src.model, Path: path, Context: c.opts.Context, Parallel: c.opts.Parallel, MMap: c.opts.MMap, Template: src.template,
		FreeBytes: c.opts.Left(src.base.bytes),
	}, tell)
	if err != nil {
		return nil, err
	}
	if err = src.base.unchanged(); err == nil {
		err = c.opts.Attach(ctx, b.key, base)
	}
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return base, nil
}

// letGo gives one use of a base back and frees it after the last one.
func (c *Cache) letGo(b *held) {
	c.mu.Lock()
	b.refs--
	last := b.refs == 0 && b.base != nil
	b.dying = b.dying || last
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

// unload frees an empty entry.
func (c *Cache) unload(e *entry) {
	if e.adapter != nil {
		if err := e.adapter.Close(); err != nil {
			c.opts.Log.Error("adapter couldn't be freed", "model", e.src.model, "version", e.src.version, "err", err)
		}
	}
	c.letGo(e.base)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events.add(Event{Kind: EventEvicted, Model: e.src.model, Version: e.src.version, Reason: e.why})
	c.drop(e)
	c.plan()
}

// checksum computes the content's sha256 in the background, for revisions that outlast a copy to another machine.
func (c *Cache) checksum(src *source) {
	for _, a := range []*artefact{src.base, src.adapter} {
		if a == nil {
			continue
		}
		if _, err := c.files.content(c.ctx, a); err != nil && c.ctx.Err() == nil {
			c.opts.Log.Warn("checksum of a loaded model", "file", a.name(), "err", err)
		}
	}
}
