package models

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// cacheTest is a Cache with a fakeBackend, over a directory with models a, b, c, d, each with versions v1 and v2.
type cacheTest struct {
	*testing.T
	dir   string
	reg   *Registry
	fake  *fakeBackend
	cache *Cache

	mu     sync.Mutex
	events []Event // guarded by mu
}

func newCacheTest(t *testing.T, change func(*CacheOptions)) *cacheTest {
	t.Helper()
	ct := &cacheTest{T: t, dir: t.TempDir(), fake: newFakeBackend(t)}
	for i, m := range []string{"a", "b", "c", "d"} {
		place(t, ct.dir, m+"/model.gguf", gguf("model", byte(i)))
		place(t, ct.dir, m+"/versions/v1.gguf", gguf("adapter", byte(i)))
		place(t, ct.dir, m+"/versions/v2.gguf", gguf("adapter", byte(i)))
	}
	ct.reg = newTestRegistry(t, RegistryOptions{Dir: ct.dir})
	o := CacheOptions{
		Registry: ct.reg, Backend: ct.fake, Size: 2, BusyWait: 10 * time.Second, LoadTimeout: time.Minute,
		Attach: ct.fake.attach, Detach: ct.fake.detach,
		OnEvent: func(e Event) {
			ct.mu.Lock()
			defer ct.mu.Unlock()
			ct.events = append(ct.events, e)
		},
	}
	if change != nil {
		change(&o)
	}
	ct.cache = NewCache(o)
	return ct
}

// close closes the cache and checks that nothing stays loaded; every lease must be released before.
func (ct *cacheTest) close() {
	ct.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if err := ct.cache.Close(ctx); err != nil {
		ct.Errorf("close: %v", err)
	}
	ct.fake.mu.Lock()
	defer ct.fake.mu.Unlock()
	for path, n := range ct.fake.loaded {
		if n != 0 {
			ct.Errorf("%s is still loaded", path)
		}
	}
	if len(ct.fake.attached) > 0 {
		ct.Errorf("still attached: %v", ct.fake.attached)
	}
}

func (ct *cacheTest) acquire(model, version string) *Lease {
	ct.Helper()
	l, err := ct.cache.Acquire(ct.Context(), model, version)
	if err != nil {
		ct.Fatalf("acquire %s@%s: %v", model, version, err)
	}
	if l.Model != model || l.Version != version {
		ct.Errorf("asked for %s@%s, got %s@%s", model, version, l.Model, l.Version)
	}
	return l
}

// use acquires and releases a version.
func (ct *cacheTest) use(model, version string) { ct.Helper(); ct.acquire(model, version).Release() }

// pendingAcquire is an Acquire in the background.
type pendingAcquire struct {
	done  chan struct{}
	lease *Lease
	err   error
	leave context.CancelFunc
}

// startAcquire begins to acquire a version in the background.
func (ct *cacheTest) startAcquire(model, version string) *pendingAcquire {
	ctx, leave := context.WithCancel(ct.Context())
	p := &pendingAcquire{done: make(chan struct{}), leave: leave}
	go func() {
		defer close(p.done)
		p.lease, p.err = ct.cache.Acquire(ctx, model, version)
	}()
	return p
}

func (ct *cacheTest) wantBackendCalls(want string) {
	ct.Helper()
	if got := ct.fake.takeCalls(); got != want {
		ct.Errorf("backend did %q, want %q", got, want)
	}
}

// withCacheTest runs a test in a synctest bubble and closes the cache at the end.
func withCacheTest(t *testing.T, change func(*CacheOptions), f func(ct *cacheTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ct := newCacheTest(t, change)
		f(ct)
		ct.close()
	})
}
