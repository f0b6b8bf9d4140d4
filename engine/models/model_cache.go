package models

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Defaults of CacheOptions.
const (
	defaultSize        = 5
	defaultLoadTimeout = 10 * time.Minute
	defaultBusyWait    = 30 * time.Second
	minResident        = 2 * time.Second // before a busy entry is drained to make room
	maxQueued          = 64              // loads that wait for a place
	brokenFor          = time.Minute     // before files that turned out to be broken are loaded again
)

// CacheOptions for NewCache. Registry and Backend must be given; zero values of the others mean the defaults.
type CacheOptions struct {
	Registry *Registry
	Backend  Backend
	Dir      string // CACHE_DIR for unpacked files and checksums; empty or read-only: nothing is kept
	Size     int    // CACHE_SIZE: entries, each version of a model is one; default 5

	Context  int // CONTEXT in tokens; 0: backend default
	Parallel int // sequences; 0: backend default
	MMap     bool
	// Attention is for what a model.yaml doesn't set.
	Attention Attention

	LoadTimeout time.Duration // for one load, unpacking included; default 10 min
	BusyWait    time.Duration // longest wait for a place; default 30 s

	// Attach registers a loaded base with the executor, Detach removes it before it is freed. Both are called without
	// locks.
	Attach func(ctx context.Context, key string, b Base) error
	Detach func(ctx context.Context, key string) error
	// OnEvent is called with every change, in order, on one goroutine of the cache. When it is slow, older progress is
	// dropped.
	OnEvent func(Event)
	// OnLoad is called by each load itself, without locks: before it does anything, and when it is over, before anybody
	// can use what was loaded. A process that dies between the two calls died in the load.
	OnLoad func(l LoadHeartbeat, loading bool)
	// MemoryFits reports whether weights of this size can be loaded without passing the memory watermark; with alone
	// (nothing else is loaded) whether free memory can hold them. False: idle entries are evicted one after the other,
	// and when none is left the load fails with out_of_memory. Nil: everything fits.
	MemoryFits func(bytes int64, alone bool) bool
	// HostRoom is how much of the host's memory a model may fill, and how much is free, each at least 1; 0: the backend
	// knows better. Nil: it does.
	HostRoom func() (room, free int64)
	Log      *slog.Logger
}

func (o *CacheOptions) fill() {
	o.Size = cmp.Or(max(o.Size, 0), defaultSize)
	o.LoadTimeout = cmp.Or(o.LoadTimeout, defaultLoadTimeout)
	o.BusyWait = cmp.Or(o.BusyWait, defaultBusyWait)
	if o.Attach == nil {
		o.Attach = func(context.Context, string, Base) error { return nil }
	}
	if o.Detach == nil {
		o.Detach = func(context.Context, string) error { return nil }
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.OnLoad == nil {
		o.OnLoad = func(LoadHeartbeat, bool) {}
	}
	if o.MemoryFits == nil {
		o.MemoryFits = func(int64, bool) bool { return true }
	}
	if o.HostRoom == nil {
		o.HostRoom = func() (room, free int64) { return 0, 0 }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Cache keeps (model, version) entries loaded. Loads belong to the cache: a caller that leaves doesn't stop them.
type Cache struct {
	opts         CacheOptions
	fileCache    *fileCache
	events       *eventQueue
	ctx          context.Context // of loads
	stop         context.CancelCauseFunc
	reservations memoryReservations
	wg           sync.WaitGroup // loads, unloads, checksums and the goroutine of followRegistry

	mu          sync.Mutex
	entries     []*entry               // guarded by mu; queued ones in the order of their requests
	bases       map[string]*sharedBase // guarded by mu; by source.baseID
	loadCounts  map[string]int         // guarded by mu; how often a base of this name was loaded
	brokenLoads map[string]brokenLoad  // guarded by mu; by source.brokenKey
	closed      bool                   // guarded by mu
	planTimer   *time.Timer            // guarded by mu; calls plan
}

// entry is one (model, version) on its way into, in, or out of the cache. Its fields are guarded by Cache.mu.
type entry struct {
	src         *source
	state       slotState
	evictReason string // of the eviction to come; only for draining and unloading entries
	problemKey  string // what the registry files the problem of a broken load under; empty: the source's identity
	// evictWhenLoaded is for loading entries whose files changed or whose time is over.
	evictWhenLoaded bool
	leases          int
	waiters         []*waiter
	lastRequest     time.Time
	loadedAt        time.Time
	queueDeadline   time.Time     // queued: when its waiters get ErrModelBusy
	gone            chan struct{} // closed when it has left the cache
	progress        Progress
	progressCounter uint64    // grows with every sign of progress
	progressAt      time.Time // when progressCounter grew last

	base     *sharedBase // nil until loaded
	adapter  Adapter
	bytes    int64
	revision Revision
}

// waiter is one Acquire that waits for a load.
type waiter struct {
	ready   chan struct{} // closed when lease or err is set
	lease   *Lease
	err     error
	counted bool
}

// NewCache starts the goroutines of the cache, which follow the registry and deliver events; Close ends them.
func NewCache(o CacheOptions) *Cache {
	o.fill()
	ctx, stop := context.WithCancelCause(context.Background())
	c := &Cache{
		opts: o, fileCache: openFileCache(o.Dir, o.Log), events: newEventQueue(o.OnEvent), ctx: ctx, stop: stop,
		bases: map[string]*sharedBase{}, loadCounts: map[string]int{}, brokenLoads: map[string]brokenLoad{},
	}
	c.fileCache.prune(o.Registry.unpackedNames())
	c.wg.Go(c.followRegistry)
	return c
}

// Acquire returns a lease on a loaded version, loading it when necessary. An empty version means the model's default
// one, else base. Errors are *LoadError, ErrModelBusy, ErrClosed or the context's.
func (c *Cache) Acquire(ctx context.Context, model, version string) (*Lease, error) {
	return c.acquire(ctx, model, version, true)
}

// AcquireReplay is Acquire for a request that was counted as a hit or a miss before.
func (c *Cache) AcquireReplay(ctx context.Context, model, version string) (*Lease, error) {
	return c.acquire(ctx, model, version, false)
}

// AwaitEvents waits until the events so far are delivered, or the context ends. Who answers for a version only after it
// never answers for one that the receiver of the events still takes to be loading.
func (c *Cache) AwaitEvents(ctx context.Context) { c.events.await(ctx) }

func (c *Cache) acquire(ctx context.Context, model, version string, counted bool) (*Lease, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	// With mu held, so that reconcile runs after any change of the registry that is missed here.
	src, err := c.findSource(model, version)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	now := time.Now()
	e := c.usableEntry(src)
	if e != nil && e.state == slotResident {
		e.lastRequest = now
		l := c.newLease(e, counted, true)
		c.mu.Unlock()
		return l, nil
	}
	if e == nil {
		if e, err = c.enqueue(src, now); err != nil {
			c.mu.Unlock()
			return nil, err
		}
	}
	e.lastRequest = now
	w := &waiter{ready: make(chan struct{}), counted: counted}
	e.waiters = append(e.waiters, w)
	c.plan()
	c.mu.Unlock()
	return c.await(ctx, e, w)
}

func (c *Cache) await(ctx context.Context, e *entry, w *waiter) (*Lease, error) {
	select {
	case <-w.ready:
		return w.lease, w.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	answered := true // at the same moment; then this waiter is in e.waiters no more
	select {
	case <-w.ready:
	default:
		answered = false
		e.waiters = slices.DeleteFunc(e.waiters, func(o *waiter) bool { return o == w })
		if e.state == slotQueued && len(e.waiters) == 0 {
			c.removeEntry(e)
			c.plan()
		}
	}
	c.mu.Unlock()
	if answered && w.lease != nil {
		w.lease.Release()
	}
	return nil, context.Cause(ctx)
}

// findSource looks the names up in the registry, which knows what they mean on disk.
func (c *Cache) findSource(model, version string) (*source, error) {
	if version == "" {
		if m, ok := c.opts.Registry.Find(model); ok {
			version = m.Resolve("")
		}
	}
	what := label(model, version)
	src := c.opts.Registry.source(model, version)
	if src == nil {
		return nil, &LoadError{Reason: ReasonNotFound, What: what, Err: errors.New("not installed")}
	}
	return src, nil
}

// label names an entry for people. The names may come from a request.
func label(model, version string) string {
	const most = 200
	s := model + "@" + version
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// usableEntry returns the entry that a request for src may use or wait for.
func (c *Cache) usableEntry(src *source) *entry {
	for _, e := range c.entries {
		if e.state <= slotResident && !e.evictWhenLoaded && e.src.identity == src.identity && e.src.model == src.model && e.src.version == src.version {
			return e
		}
	}
	return nil
}

// removeEntry removes an entry from the cache. Its place is free from here on.
func (c *Cache) removeEntry(e *entry) {
	c.entries = slices.DeleteFunc(c.entries, func(o *entry) bool { return o == e })
	close(e.gone)
}

// failWaiters answers the waiters of an entry with an error.
func (e *entry) failWaiters(err error) {
	for _, w := range e.waiters {
		w.err = err
		close(w.ready)
	}
	e.waiters = nil
}

// Close refuses new work, aborts loads, and waits until every lease is released and everything is freed. When ctx ends
// first, what is still in use stays loaded and the context's error is returned.
func (c *Cache) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	if c.planTimer != nil {
		c.planTimer.Stop()
	}
	c.stop(ErrClosed)
	var rest []*entry
	for _, e := range slices.Clone(c.entries) {
		switch e.state {
		case slotQueued:
			e.failWaiters(ErrClosed)
			c.removeEntry(e)
			continue
		case slotResident, slotDraining:
			e.state, e.evictReason = slotDraining, evictedAdmin
			if e.leases == 0 {
				c.evict(e, evictedAdmin)
			}
		}
		rest = append(rest, e)
	}
	c.mu.Unlock()
	for _, e := range rest {
		select {
		case <-e.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.wg.Wait()
	c.events.close()
	c.fileCache.close()
	return nil
}

// Entry is what occupies a place in the cache, for people and gauges.
type Entry struct {
	Model, Version string
	Bytes          int64 // that evicting it would free, without the shared base
	Facts          Facts // of its base; empty while loading
	Loading        bool
	Leases         int
}

// Entries lists the entries that have a place in the cache.
func (c *Cache) Entries() []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Entry
	for _, e := range c.entries {
		switch e.state {
		case slotQueued:
		case slotLoading:
			list = append(list, Entry{Model: e.src.model, Version: e.src.version, Loading: true})
		default:
			list = append(list, Entry{Model: e.src.model, Version: e.src.version, Bytes: e.bytes, Facts: e.base.facts, Leases: e.leases})
		}
	}
	return list
}

// Size is CACHE_SIZE.
func (c *Cache) Size() int { return c.opts.Size }

// ContextBeforeLoad is how many tokens one request of a model may have as far as its file and the settings tell; a load
// may find less memory. 0: they don't tell, since a file is packed, or its positions are scaled.
func (c *Cache) ContextBeforeLoad(m *Model) int {
	rope := m.Attention.Or(c.opts.Attention).Rope
	if rope.Type == RopeAuto {
		rope.Type = ""
	}
	if rope != (RopeScaling{}) || c.opts.Context == 0 {
		return 0
	}
	return min(m.TrainContext, c.opts.Context)
}
