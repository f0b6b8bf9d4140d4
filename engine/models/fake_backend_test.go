package models

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeBackend loads instantly unless a test says otherwise, and checks that nothing is used after it was closed.
type fakeBackend struct {
	t *testing.T

	mu             sync.Mutex
	calls          []string                 // guarded by mu
	loaded         map[string]int           // guarded by mu; loaded bases by path
	fail           map[string]error         // guarded by mu; by the end of a path
	gates          map[string]chan struct{} // guarded by mu; loads of these files wait
	ignoresContext bool                     // guarded by mu; loads at a gate don't heed their context
	attached       map[string]bool          // guarded by mu
	hostRoom       int64                    // guarded by mu; BaseSpec.HostRoom of the last load
	hostFree       int64                    // guarded by mu; BaseSpec.HostFree of the last load
	attention      Attention                // guarded by mu; BaseSpec.Attention of the last load
	adapterRoom    func() bool              // guarded by mu; what bases say of room for an adapter; nil: there is
}

func newFakeBackend(t *testing.T) *fakeBackend {
	return &fakeBackend{t: t, loaded: map[string]int{}, fail: map[string]error{}, gates: map[string]chan struct{}{}, attached: map[string]bool{}}
}

func lastTwoElements(path string) string {
	parts := strings.Split(path, string(filepath.Separator))
	if n := len(parts); n >= 2 {
		return parts[n-2] + "/" + parts[n-1]
	}
	return path
}

func (f *fakeBackend) record(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
}

func (f *fakeBackend) takeCalls() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.calls, ", ")
	f.calls = nil
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

func (f *fakeBackend) waitAtGate(ctx context.Context, path string) error {
	f.mu.Lock()
	g, ignoresContext := f.gates[lastTwoElements(path)], f.ignoresContext
	f.mu.Unlock()
	switch {
	case g != nil && ignoresContext:
		<-g
	case g != nil:
		select {
		case <-g:
		case <-ctx.Done():
			// This is what a native library's error looks like.
			return &LoadError{Reason: ReasonOther, What: lastTwoElements(path), Err: errors.New("aborted")}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail[lastTwoElements(path)]
}

func (f *fakeBackend) LoadBase(ctx context.Context, spec BaseSpec, progress func(Progress)) (Base, error) {
	progress(Progress{Phase: "weights", Ratio: 0.5})
	if err := f.waitAtGate(ctx, spec.Path); err != nil {
		return nil, err
	}
	f.record("load " + lastTwoElements(spec.Path))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loaded[spec.Path]++
	f.hostRoom, f.hostFree, f.attention = spec.HostRoom, spec.HostFree, spec.Attention
	if f.loaded[spec.Path] > 1 {
		f.t.Errorf("%s is loaded twice at a time", spec.Path)
	}
	return &fakeBase{backend: f, path: spec.Path}, nil
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
	backend  *fakeBackend
	path     string
	mu       sync.Mutex
	adapters int  // guarded by mu
	closed   bool // guarded by mu
}

func (b *fakeBase) WriteOut([]int32) []byte { return nil }

func (b *fakeBase) NewParser([]byte) (Parser, error) { return nil, nil }

func (b *fakeBase) Facts() Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Facts{WeightBytes: 1000, CacheBytes: 100, Memory: []DeviceMemory{{Device: "fake", WeightBytes: 1000, CacheBytes: 100, AdapterBytes: 10 * int64(b.adapters)}}}
}

func (b *fakeBase) Render(context.Context, Input) (Prompt, error) {
	return Prompt{}, errors.New("not part of these tests")
}

func (b *fakeBase) AdapterFits(int64, int64, bool) bool {
	b.backend.mu.Lock()
	defer b.backend.mu.Unlock()
	return b.backend.adapterRoom == nil || b.backend.adapterRoom()
}

func (b *fakeBase) LoadAdapter(ctx context.Context, spec AdapterSpec) (Adapter, error) {
	if err := b.backend.waitAtGate(ctx, spec.Path); err != nil {
		return nil, err
	}
	b.backend.record("load " + lastTwoElements(spec.Path))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		b.backend.t.Errorf("adapter %s loaded on a closed base", spec.Path)
	}
	b.adapters++
	return &fakeAdapter{base: b, name: spec.Name}, nil
}

func (b *fakeBase) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.adapters > 0 {
		b.backend.t.Errorf("%s closed (before: %v) with %d adapters", b.path, b.closed, b.adapters)
	}
	b.closed = true
	b.backend.record("close " + lastTwoElements(b.path))
	b.backend.mu.Lock()
	defer b.backend.mu.Unlock()
	b.backend.loaded[b.path]--
	for key := range b.backend.attached {
		if strings.HasPrefix(key, "only-") {
			b.backend.t.Errorf("%s is freed while attached", key)
		}
	}
	return nil
}

type fakeAdapter struct {
	base *fakeBase
	name string
}

func (a *fakeAdapter) Name() string { return a.name }
func (a *fakeAdapter) Bytes() int64 { return 10 }
func (a *fakeAdapter) Close() error {
	a.base.mu.Lock()
	defer a.base.mu.Unlock()
	if a.base.closed {
		a.base.backend.t.Errorf("adapter %s outlives its base", a.name)
	}
	a.base.adapters--
	a.base.backend.record("close " + a.name)
	return nil
}
