package models

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeBackend loads instantly unless told otherwise, and checks that nothing is used after it was closed.
type fakeBackend struct {
	t *testing.T

	mu       sync.Mutex
	log      []string                 // guarded by mu
	open     map[string]int           // guarded by mu; loaded bases by path
	fail     map[string]error         // guarded by mu; by the end of a path
	gates    map[string]chan struct{} // guarded by mu; loads wait for these
	deaf     bool                     // guarded by mu; gates are waited for whatever the context says
	attached map[string]bool          // guarded by mu
	free     int64                    // guarded by mu; of the last load
}

func newFake(t *testing.T) *fakeBackend {
	return &fakeBackend{t: t, open: map[string]int{}, fail: map[string]error{}, gates: map[string]chan struct{}{}, attached: map[string]bool{}}
}

func short(path string) string {
	parts := strings.Split(path, string(filepath.Separator))
	if n := len(parts); n >= 2 {
		return parts[n-2] + "/" + parts[n-1]
	}
	return path
}

func (f *fakeBackend) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, what)
}

func (f *fakeBackend) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.log, ", ")
	f.log = nil
	return s
}

// gate makes loads of this file wait until the returned function is called.
func (f *fakeBackend) gate(file string) (open func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := make(chan struct{})
	f.gates[file] = g
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.gates, file)
		close(g)
	}
}

func (f *fakeBackend) pass(ctx context.Context, path string) error {
	f.mu.Lock()
	g, deaf := f.gates[short(path)], f.deaf
	f.mu.Unlock()
	switch {
	case g != nil && deaf:
		<-g
	case g != nil:
		select {
		case <-g:
		case <-ctx.Done():
			return &LoadError{Reason: ReasonOther, What: short(path), Err: errors.New("aborted")} // as a native library says it
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail[short(path)]
}

func (f *fakeBackend) LoadBase(ctx context.Context, spec BaseSpec, progress func(Progress)) (Base, error) {
	progress(Progress{Phase: "weights", Ratio: 0.5})
	if err := f.pass(ctx, spec.Path); err != nil {
		return nil, err
	}
	f.note("load " + short(spec.Path))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[spec.Path]++
	f.free = spec.FreeBytes
	if f.open[spec.Path] > 1 {
		f.t.Errorf("%s is loaded twice at a time", spec.Path)
	}
	return &fakeBase{f: f, path: spec.Path}, nil
}

func (f *fakeBackend) attach(_ context.Context, key string, _ Base) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attached[key] {
		f.t.Errorf("%s attached twice", key)
	}
	f.attached[key] = true
	return nil
}

func (f *fakeBackend) detach(_ context.Context, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.attached[key] {
		f.t.Errorf("%s detached and wasn't attached", key)
	}
	delete(f.attached, key)
	return nil
}

type fakeBase struct {
	f        *fakeBackend
	path     string
	mu       sync.Mutex
	adapters int  // guarded by mu
	closed   bool // guarded by mu
}

func (b *fakeBase) Facts() Facts { return Facts{WeightBytes: 1000, CacheBytes: 100} }

func (b *fakeBase) Render(context.Context, Input) (Prompt, error) {
	return Prompt{}, errors.New("not part of these tests")
}

func (b *fakeBase) LoadAdapter(ctx context.Context, spec AdapterSpec) (Adapter, error) {
	if err := b.f.pass(ctx, spec.Path); err != nil {
		return nil, err
	}
	b.f.note("load " + short(spec.Path))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		b.f.t.Errorf("adapter %s loaded on a closed base", spec.Path)
	}
	b.adapters++
	return &fakeAdapter{b: b, name: spec.Name}, nil
}

func (b *fakeBase) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.adapters > 0 {
		b.f.t.Errorf("%s closed (before: %v) with %d adapters", b.path, b.closed, b.adapters)
	}
	b.closed = true
	b.f.note("close " + short(b.path))
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	b.f.open[b.path]--
	for key := range b.f.attached {
		if strings.HasPrefix(key, "only-") {
			b.f.t.Errorf("%s is freed while attached", key)
		}
	}
	return nil
}

type fakeAdapter struct {
	b    *fakeBase
	name string
}

func (a *fakeAdapter) Name() string { return a.name }
func (a *fakeAdapter) Bytes() int64 { return 10 }
func (a *fakeAdapter) Close() error {
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	if a.b.closed {
		a.b.f.t.Errorf("adapter %s outlives its base", a.name)
	}
	a.b.adapters--
	a.b.f.note("close " + a.name)
	return nil
}

// rig is a cache over a directory with models a, b, c, d, each with versions v1 and v2.
type rig struct {
	*testing.T
	dir   string
	reg   *Registry
	fake  *fakeBackend
	cache *Cache

	mu     sync.Mutex
	events []Event // guarded by mu
}

func newRig(t *testing.T, change func(*CacheOptions)) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), fake: newFake(t)}
	for i, m := range []string{"a", "b", "c", "d"} {
		place(t, r.dir, m+"/model.gguf", gguf("model", byte(i)))
		place(t, r.dir, m+"/versions/v1.gguf", gguf("adapter", byte(i)))
		place(t, r.dir, m+"/versions/v2.gguf", gguf("adapter", byte(i)))
	}
	r.reg = mustRegistry(t, RegistryOptions{Dir: r.dir})
	o := CacheOptions{
		Registry: r.reg, Backend: r.fake, Size: 2, BusyWait: 10 * time.Second, LoadTimeout: time.Minute,
		Attach: r.fake.attach, Detach: r.fake.detach,
		OnEvent: func(e Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	}
	if change != nil {
		change(&o)
	}
	r.cache = NewCache(o)
	return r
}

// close must find every lease released.
func (r *rig) close() {
	r.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if err := r.cache.Close(ctx); err != nil {
		r.Errorf("close: %v", err)
	}
	r.fake.mu.Lock()
	defer r.fake.mu.Unlock()
	for path, n := range r.fake.open {
		if n != 0 {
			r.Errorf("%s is still loaded", path)
		}
	}
	if len(r.fake.attached) > 0 {
		r.Errorf("still attached: %v", r.fake.attached)
	}
}

func (r *rig) acquire(model, version string) *Lease {
	r.Helper()
	l, err := r.cache.Acquire(r.Context(), model, version)
	if err != nil {
		r.Fatalf("acquire %s@%s: %v", model, version, err)
	}
	if l.Model != model || l.Version != version {
		r.Errorf("asked for %s@%s, got %s@%s", model, version, l.Model, l.Version)
	}
	return l
}

// use acquires and releases.
func (r *rig) use(model, version string) { r.Helper(); r.acquire(model, version).Release() }

// pending is an Acquire in the background.
type pending struct {
	done  chan struct{}
	lease *Lease
	err   error
	leave context.CancelFunc
}

func (r *rig) start(model, version string) *pending {
	ctx, leave := context.WithCancel(r.Context())
	p := &pending{done: make(chan struct{}), leave: leave}
	go func() {
		defer close(p.done)
		p.lease, p.err = r.cache.Acquire(ctx, model, version)
	}()
	return p
}

func (r *rig) wantLog(want string) {
	r.Helper()
	if got := r.fake.take(); got != want {
		r.Errorf("backend did %q, want %q", got, want)
	}
}
