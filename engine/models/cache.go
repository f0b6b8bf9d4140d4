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
	minResident        = 2 * time.Second // before a busy entry has to make room
	maxQueued          = 64              // loads that wait for a place
	brokenFor          = time.Minute     // before files that turned out to be broken are tried again
)

// CacheOptions for NewCache. Registry and Backend must be given; zero values of the others mean the defaults.
type CacheOptions struct {
	Registry *Registry
	Backend  Backend
	Dir      string // CACHE_DIR for unpacked files and checksums; empty or read-only: nothing is kept
	Size     int    // CACHE_SIZE: entries, a model's versions counted singly; default 5

	Context  int // CONTEXT in tokens; 0: backend default
	Parallel int // sequences; 0: backend default
	MMap     bool

	LoadTimeout time.Duration // for one load, unpacking included; default 10 min
	BusyWait    time.Duration // for a place; default 30 s

	// Attach gives a loaded base to the executor, Detach takes it back before it is freed. Both are called without locks.
	Attach func(ctx context.Context, key string, b Base) error
	Detach func(ctx context.Context, key string) error
	// OnEvent hears of every change in order, on one goroutine of the cache. Progress may be left out when it is slow.
	OnEvent func(Event)
	// OnLoad is called without locks by each load itself: before it does anything, and when it is over, before anybody can use what was
	// loaded. A process that dies between the two calls died in the load.
	OnLoad func(l LoadHeartbeat, loading bool)
	// Fits tells whether weights of this size can be loaded without passing the memory watermark; alone: nothing else is loaded, so
	// whether free memory can hold them. False: idle entries are evicted one after the other, and when there are none left the load fails
	// with out_of_memory. Nil: everything fits.
	Fits func(bytes int64, alone bool) bool
	// Left is how much memory is left for the KV cache beside weights of this size, at least 1; 0: the backend knows better. Nil: it does.
	Left func(bytes int64) int64
	Log  *slog.Logger
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
	if o.Fits == nil {
		o.Fits = func(int64, bool) bool { return true }
	}
	if o.Left == nil {
		o.Left = func(int64) int64 { return 0 }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Cache keeps loaded (model, version) entries. Loads belong to the cache: a caller that leaves doesn't stop them.
type Cache struct {
	opts   CacheOptions
	files  *files
	events *eventQueue
	ctx    context.Context // of loads
	stop   context.CancelCauseFunc
	claims claims
	wg     sync.WaitGroup // loads, unloads, checksums and the goroutine that follows the registry

	mu         sync.Mutex
	entries    []*entry              // guarded by mu; queued ones in the order of arrival
	bases      map[string]*held      // guarded by mu; by source.baseID
	generation map[string]int        // guarded by mu; how often a base of this name was loaded
	broken     map[string]brokenLoad // guarded by mu; by source.brokenKey
	closed     bool                  // guarded by mu
	timer      *time.Timer           // guarded by mu; calls plan
}

// entry is one (model, version) on its way into, in, or out of the cache. Its fields are guarded by Cache.mu.
type entry struct {
	src       *source
	state     seatState
	why       string // reason of the eviction to come; only for condemned and closing entries
	blame     string // what the registry learns a broken load by; empty: the source's identity
	doomed    bool   // loading only: its files changed or its time is over; it goes as soon as it is loaded
	leases    int
	waiters   []*waiter
	requested time.Time
	resident  time.Time
	deadline  time.Time // queued: when its waiters are sent away
	gone      chan struct{}
	progress  Progress
	counter   uint64    // moves with every sign of progress
	moved     time.Time // when counter moved last

	base     *held // nil until loaded
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

// NewCache starts the goroutines that follow the registry and deliver events; Close ends them.
func NewCache(o CacheOptions) *Cache {
	o.fill()
	ctx, stop := context.WithCancelCause(context.Background())
	c := &Cache{
		opts: o, files: openFiles(o.Dir, o.Log), events: newEventQueue(o.OnEvent), ctx: ctx, stop: stop,
		bases: map[string]*held{}, generation: map[string]int{}, broken: map[string]brokenLoad{},
	}
	c.files.prune(o.Registry.packed())
	c.wg.Go(c.follow)
	return c
}

// Acquire gives a lease on a loaded version, loading it when necessary. An empty version means the model's default one, else base. It
// returns *LoadError, ErrModelBusy, ErrClosed or the context's error.
func (c *Cache) Acquire(ctx context.Context, model, version string) (*Lease, error) {
	return c.acquire(ctx, model, version, true)
}

// AcquireReplay is Acquire for a request that was counted as hit or miss before.
func (c *Cache) AcquireReplay(ctx context.Context, model, version string) (*Lease, error) {
	return c.acquire(ctx, model, version, false)
}

func (c *Cache) acquire(ctx context.Context, model, version string, counted bool) (*Lease, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	src, err := c.find(model, version) // with mu held, so that reconcile comes after every change that is missed here
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	now := time.Now()
	e := c.usable(src)
	if e != nil && e.state == seatResident {
		e.requested = now
		l := c.grant(e, counted, true)
		c.mu.Unlock()
		return l, nil
	}
	if e == nil {
		if e, err = c.enqueue(src, now); err != nil {
			c.mu.Unlock()
			return nil, err
		}
	}
	e.requested = now
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
	answered := true // at the same moment; then the entry is no business of this one any more
	select {
	case <-w.ready:
	default:
		answered = false
		e.waiters = slices.DeleteFunc(e.waiters, func(o *waiter) bool { return o == w })
		if e.state == seatQueued && len(e.waiters) == 0 {
			c.drop(e)
			c.plan()
		}
	}
	c.mu.Unlock()
	if answered && w.lease != nil {
		w.lease.Release()
	}
	return nil, context.Cause(ctx)
}

// find looks the names up; what they mean on disk is the registry's business.
func (c *Cache) find(model, version string) (*source, error) {
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

// refuse answers a request for files that the registry found broken. It counts as a failed load, once in brokenFor. Called with mu held.
func (c *Cache) refuse(src *source) *LoadError {
	err := &LoadError{Reason: ReasonBadFormat, What: label(src.model, src.version), Err: errors.New(src.problem), Public: src.problem}
	c.remember(src, err)
	c.tellFailed(src, err, true) // the registry has told
	return err
}

// label names an entry for people. The names may come from a request.
func label(model, version string) string {
	const most = 200
	s := model + "@" + version
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// usable gives the entry that a request for src may use or wait for.
func (c *Cache) usable(src *source) *entry {
	for _, e := range c.entries {
		if e.state <= seatResident && !e.doomed && e.src.identity == src.identity && e.src.model == src.model && e.src.version == src.version {
			return e
		}
	}
	return nil
}

// enqueue adds an entry that waits for a place, unless too many wait or the files are known to be broken.
func (c *Cache) enqueue(src *source, now time.Time) (*entry, error) {
	if b, ok := c.broken[src.brokenKey()]; ok && now.Before(b.until) && !c.roomAgain(src, b, now) {
		return nil, b.err
	}
	if src.problem != "" {
		return nil, c.refuse(src)
	}
	queued := 0
	for _, e := range c.entries {
		if e.state == seatQueued {
			queued++
		}
	}
	if queued >= maxQueued {
		return nil, ErrModelBusy
	}
	e := &entry{src: src, deadline: now.Add(c.opts.BusyWait), gone: make(chan struct{})}
	c.entries = append(c.entries, e)
	return e, nil
}

// brokenLoad remembers a failure that is the files' fault, or that is certain to come again, so that requests for them don't push good
// models out again and again.
type brokenLoad struct {
	err      *LoadError
	until    time.Time
	pause    time.Duration // of roomAgain
	askAgain time.Time
}

func (c *Cache) remember(src *source, err *LoadError) {
	if !err.brokenFiles() && !errors.Is(err, errTooBig) {
		return
	}
	key, now := src.brokenKey(), time.Now()
	b := brokenLoad{err: err, until: now.Add(brokenFor), pause: firstRoomPause}
	if old, ok := c.broken[key]; ok && now.Before(old.until) {
		b.pause = min(2*old.pause, lastRoomPause)
	}
	b.askAgain = now.Add(b.pause)
	if len(c.broken) >= maxModels {
		clear(c.broken)
	}
	c.broken[key] = b
}

// drop removes an entry from the cache. Its place is free from here on.
func (c *Cache) drop(e *entry) {
	c.entries = slices.DeleteFunc(c.entries, func(o *entry) bool { return o == e })
	close(e.gone)
}

// answer releases the waiters of an entry with an error.
func (e *entry) answer(err error) {
	for _, w := range e.waiters {
		w.err = err
		close(w.ready)
	}
	e.waiters = nil
}

// plan decides and starts what follows. Called with mu held after every change.
func (c *Cache) plan() {
	if c.closed {
		return
	}
	now := time.Now()
	next := c.expire(now)
	seats := make([]seat, len(c.entries))
	for i, e := range c.entries {
		seats[i] = seat{state: e.state, leases: e.leases, requested: e.requested, resident: e.resident, reprieve: e.why == evictedLRU}
	}
	v := decide(c.opts.Size, seats, now, minResident)
	entries := slices.Clone(c.entries)
	for _, i := range v.start {
		c.begin(entries[i], now)
	}
	for _, i := range v.condemn {
		entries[i].state, entries[i].why = seatCondemned, evictedLRU
	}
	for _, i := range v.pardon {
		entries[i].state, entries[i].why = seatResident, ""
	}
	for _, i := range v.evict {
		c.evict(entries[i], cmp.Or(entries[i].why, evictedLRU))
	}
	if !v.wake.IsZero() && (next.IsZero() || v.wake.Before(next)) {
		next = v.wake
	}
	c.wakeAt(next, now)
}

// expire sends away who has waited too long for a place, and tells when the next one will have.
func (c *Cache) expire(now time.Time) (next time.Time) {
	for _, e := range slices.Clone(c.entries) {
		if e.state != seatQueued {
			continue
		}
		if !e.deadline.After(now) {
			e.answer(ErrModelBusy)
			c.drop(e)
		} else if next.IsZero() || e.deadline.Before(next) {
			next = e.deadline
		}
	}
	return next
}

func (c *Cache) wakeAt(at, now time.Time) {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if !at.IsZero() {
		c.timer = time.AfterFunc(at.Sub(now), func() {
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

// evict frees an empty entry in the background.
func (c *Cache) evict(e *entry, why string) {
	e.state, e.why = seatClosing, why
	c.wg.Go(func() { c.unload(e) })
}

// follow evicts entries whose files changed or went.
func (c *Cache) follow() {
	for {
		changed := c.opts.Registry.Changes()
		c.reconcile()
		select {
		case <-c.ctx.Done():
			return
		case <-changed:
		}
	}
}

func (c *Cache) reconcile() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range slices.Clone(c.entries) {
		src := c.opts.Registry.source(e.src.model, e.src.version)
		if src != nil && src.identity == e.src.identity && src.problem == "" {
			continue
		}
		switch e.state {
		case seatQueued:
			if src != nil && src.problem == "" {
				e.src = src
				continue
			}
			e.answer(&LoadError{Reason: ReasonNotFound, What: label(e.src.model, e.src.version), Err: errors.New("it was removed")})
			c.drop(e)
		case seatLoading:
			e.doomed, e.why = true, evictedChanged
		case seatResident, seatCondemned:
			e.state, e.why = seatCondemned, evictedChanged
		}
	}
	c.plan()
}

// Close refuses new work, aborts loads, waits until every lease is released and everything is freed. When ctx ends first, what is still
// in use stays loaded and the context's error is returned.
func (c *Cache) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.stop(ErrClosed)
	var rest []*entry
	for _, e := range slices.Clone(c.entries) {
		switch e.state {
		case seatQueued:
			e.answer(ErrClosed)
			c.drop(e)
			continue
		case seatResident, seatCondemned:
			e.state, e.why = seatCondemned, evictedAdmin
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
	c.files.close()
	return nil
}
