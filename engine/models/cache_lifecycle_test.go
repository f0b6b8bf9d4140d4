package models

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestChangedFileIsServedAnew(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		old := ct.acquire("a", "v1")
		replace := func() {
			place(ct.T, ct.dir, "a/model.gguf", gguf("model", 99))
			now := time.Now()
			refresh(ct.T, ct.reg, now)
			refresh(ct.T, ct.reg, now.Add(settleTime))
			synctest.Wait()
		}
		replace()
		ct.fake.takeCalls()
		ct.fake.loaded = map[string]int{} // the old state has the same path
		fresh := ct.acquire("a", "v1")
		if fresh.Hit || fresh.BaseKey == old.BaseKey || fresh.Base == old.Base || SameRevision(fresh.Revision, old.Revision) {
			ct.Errorf("a request after the change got the old files: %+v", fresh)
		}
		if ModelOfKey(fresh.BaseKey) != "a" {
			ct.Errorf("key %q", fresh.BaseKey)
		}
		ct.wantBackendCalls("load a/model.gguf, load versions/v1.gguf")
		old.Release()
		synctest.Wait()
		ct.wantBackendCalls("close v1, close a/model.gguf")
		fresh.Release()
		ct.fake.loaded = map[string]int{}
		ct.fake.loaded[filepath.Join(ct.dir, "a/model.gguf")] = 1

		if err := os.RemoveAll(filepath.Join(ct.dir, "a")); err != nil {
			ct.Fatal(err)
		}
		refresh(ct.T, ct.reg, time.Now())
		synctest.Wait()
		ct.wantBackendCalls("close v1, close a/model.gguf")
		if _, err := ct.cache.Acquire(ct.Context(), "a", "v1"); reasonOf(err) != ReasonNotFound {
			ct.Errorf("error %v", err)
		}
	})
}

func TestFileThatChangesDuringTheLoad(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		open := ct.fake.gate("a/model.gguf")
		p := ct.startAcquire("a", "base")
		synctest.Wait()
		place(ct.T, ct.dir, "a/model.gguf", gguf("model", 99))
		open()
		<-p.done
		if !errors.Is(p.err, errChanged) {
			ct.Errorf("error %v", p.err)
		}
	})
}

func TestCloseWaitsForLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ct := newCacheTest(t, nil)
		l := ct.acquire("a", "v1")
		ct.fake.gate("b/model.gguf")
		p := ct.startAcquire("b", "base")
		synctest.Wait()
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := ct.cache.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close with a lease out: %v", err)
		}
		<-p.done
		if !errors.Is(p.err, ErrClosed) {
			t.Errorf("a load while closing: %v", p.err)
		}
		if _, err := ct.cache.Acquire(t.Context(), "a", "v1"); !errors.Is(err, ErrClosed) {
			t.Errorf("acquire after close: %v", err)
		}
		l.Release()
		ct.close()
	})
}

func TestDemoThroughTheCache(t *testing.T) {
	fake := newFakeBackend(t)
	reg := newTestRegistry(t, RegistryOptions{Demo: smallDemo(t)})
	c := NewCache(CacheOptions{Registry: reg, Backend: fake, Dir: t.TempDir(), Attach: fake.attach, Detach: fake.detach})
	l, err := c.Acquire(t.Context(), "demo", "v1.0")
	if err != nil {
		t.Fatal(err)
	}
	if l.Version != "v1.0" || len(l.Revision) != fullRevision {
		t.Errorf("lease %+v", l)
	}
	l.Release()
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestManyAtOnce lets callers come and go at random; the fake checks that nothing is used after it was freed or loaded
// twice.
func TestManyAtOnce(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 3 }, func(ct *cacheTest) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				for range 60 {
					ctx, stop := context.WithTimeout(ct.Context(), time.Duration(rng.IntN(8000))*time.Millisecond)
					l, err := ct.cache.Acquire(ctx, string(rune('a'+rng.IntN(4))), []string{"base", "v1", "v2"}[rng.IntN(3)])
					if err == nil {
						if n := len(ct.cache.Entries()); n > 3 {
							ct.Errorf("%d entries in 3 places", n)
						}
						time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
						l.Release()
					} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrModelBusy) {
						ct.Errorf("acquire: %v", err)
					}
					stop()
				}
			})
		}
		wg.Wait()
	})
}

// A wrong checksum is mended in model.yaml, which is looked at without waiting for brokenFor.
func TestACorrectedChecksumCountsAtOnce(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		setChecksum := func(sum string, after time.Duration) {
			place(ct.T, ct.dir, "a/model.yaml", []byte("checksums: {model.gguf: "+sum+"}\n"))
			refresh(ct.T, ct.reg, time.Now().Add(after))
			refresh(ct.T, ct.reg, time.Now().Add(after+settleTime))
			synctest.Wait()
		}
		ct.use("a", "base")
		setChecksum(sha256Hex([]byte("something else")), time.Hour)
		ct.wantBackendCalls("load a/model.gguf, close a/model.gguf") // it was never verified
		if _, err := ct.cache.Acquire(ct.Context(), "a", "base"); reasonOf(err) != ReasonBadFormat {
			ct.Errorf("with a wrong checksum: error %v", err)
		}
		setChecksum(sha256Hex(gguf("model", 0)), 2*time.Hour)
		if p := problem(ct.T, ct.reg, "a", "base"); p != "" {
			ct.Errorf("problem %q", p)
		}
		ct.use("a", "base")
	})
}

// Defaults are changed in model.yaml: the next request has them, and nothing is loaded again.
func TestChangedDefaultsReachALoadedModel(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		ct.use("a", "base")
		place(ct.T, ct.dir, "a/model.yaml", []byte("defaults: {max_new_tokens: 7}\n"))
		refresh(ct.T, ct.reg, time.Now().Add(time.Hour))
		refresh(ct.T, ct.reg, time.Now().Add(time.Hour+settleTime))
		synctest.Wait()
		a := ct.acquire("a", "base")
		defer a.Release()
		if n := a.Defaults.MaxNewTokens; n == nil || *n != 7 {
			ct.Errorf("defaults of a lease: %+v", a.Defaults)
		}
		ct.wantBackendCalls("load a/model.gguf")
	})
}

// The names of files change while a load of them waits for a place.
func TestAQueuedLoadOpensARenamedLink(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 1 }, func(ct *cacheTest) {
		link := func(name string) { symlink(ct.T, filepath.Join(ct.dir, "b/model.gguf"), ct.dir, name) }
		link("x/old.gguf")
		refresh(ct.T, ct.reg, time.Now())
		refresh(ct.T, ct.reg, time.Now().Add(settleTime))
		a := ct.acquire("a", "base")
		p := ct.startAcquire("x", "base")
		synctest.Wait()
		link("x/model.gguf")
		if err := os.Remove(filepath.Join(ct.dir, "x/old.gguf")); err != nil {
			ct.Fatal(err)
		}
		refresh(ct.T, ct.reg, time.Now())
		synctest.Wait()
		a.Release()
		<-p.done
		if p.err != nil {
			ct.Fatal(p.err)
		}
		ct.wantBackendCalls("load a/model.gguf, close a/model.gguf, load x/model.gguf")
		p.lease.Release()
	})
}

// CACHE_DIR doesn't grow with each file that replaces another, not even by those that are still in use.
func TestUnpackedFilesOfReplacedModelsAreRemoved(t *testing.T) {
	cache := t.TempDir()
	withCacheTest(t, func(o *CacheOptions) { o.Dir, o.Size = cache, 5 }, func(ct *cacheTest) {
		var leases []*Lease
		for i := range 3 {
			place(ct.T, ct.dir, "p/model.gguf.xz", packed(ct.T, gguf("model", byte(i))))
			now := time.Now().Add(time.Duration(i) * time.Hour)
			refresh(ct.T, ct.reg, now)
			refresh(ct.T, ct.reg, now.Add(settleTime))
			synctest.Wait()
			leases = append(leases, ct.acquire("p", "base"))
			if l := unpackedFiles(ct.T, cache); len(l) != 1 {
				ct.Errorf("file %d: cache holds %v", i, l)
			}
		}
		for _, l := range leases {
			l.Release()
		}
	})
}

// A load that goes on when its files are replaced still opens what was unpacked for it.
func TestUnpackedFilesOfARunningLoadStay(t *testing.T) {
	cache := t.TempDir()
	withCacheTest(t, func(o *CacheOptions) { o.Dir = cache }, func(ct *cacheTest) {
		place(ct.T, ct.dir, "p/model.gguf.xz", packed(ct.T, gguf("model", 1)))
		now := time.Now()
		refresh(ct.T, ct.reg, now)
		refresh(ct.T, ct.reg, now.Add(settleTime))
		name := ct.reg.source("p", "base").base.unpackedName()
		open := ct.fake.gate(unpackedSubdir + "/" + name)
		p := ct.startAcquire("p", "base")
		synctest.Wait()
		if err := os.RemoveAll(filepath.Join(ct.dir, "p")); err != nil {
			ct.Fatal(err)
		}
		refresh(ct.T, ct.reg, time.Now())
		synctest.Wait()
		if l := unpackedFiles(ct.T, cache); len(l) != 1 {
			ct.Errorf("cache holds %v", l)
		}
		open()
		<-p.done
		if p.err == nil {
			ct.Error("a model that was removed is loaded")
			p.lease.Release()
		}
	})
}

// A model that stays broken is loaded again now and then. Its log line is written once.
func TestTheSameProblemIsLoggedOnce(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		ct.fake.fail["a/model.gguf"] = &LoadError{Reason: ReasonBadFormat, What: "a", Err: errors.New("unknown architecture")}
		for range 2 {
			if _, err := ct.cache.Acquire(ct.Context(), "a", "base"); err == nil {
				ct.Error("a broken model was loaded")
			}
			time.Sleep(brokenFor)
		}
		var logged []bool
		ct.mu.Lock()
		defer ct.mu.Unlock()
		for _, e := range ct.events {
			if e.Kind == EventLoadFailed {
				logged = append(logged, e.Logged)
			}
		}
		if !slices.Equal(logged, []bool{false, true}) {
			ct.Errorf("logged before: %v", logged)
		}
	})
}

func TestWhatALoadFindsBrokenIsListed(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		path := filepath.Join(ct.dir, "a/model.gguf")
		ct.fake.fail["a/model.gguf"] = &LoadError{Reason: ReasonBadFormat, What: "a", Err: fmt.Errorf("failed to open '%s': unknown architecture in /some where/else.gguf", path)}
		changed := ct.reg.Changes()
		_, err := ct.cache.Acquire(ct.Context(), "a", "v1")
		const want = "failed to open 'model.gguf': unknown architecture in"
		if le, _ := errors.AsType[*LoadError](err); le == nil || !strings.HasPrefix(le.Public, want) || strings.Contains(le.Public, ct.dir) {
			ct.Errorf("clients are told %+v", le)
		}
		select {
		case <-changed:
		default:
			ct.Error("no word of it")
		}
		for _, version := range []string{"base", "v1", "v2"} { // the base's fault is everybody's
			if p := problem(ct.T, ct.reg, "a", version); !strings.HasPrefix(p, want) {
				ct.Errorf("a@%s: problem %q", version, p)
			}
		}
		if p := problem(ct.T, ct.reg, "b", "base"); p != "" {
			ct.Errorf("b: problem %q", p)
		}
		refresh(ct.T, ct.reg, time.Now().Add(time.Hour))
		if p := problem(ct.T, ct.reg, "a", "base"); p == "" {
			ct.Error("forgotten at the next look")
		}
		delete(ct.fake.fail, "a/model.gguf")
		time.Sleep(brokenFor)
		ct.use("a", "base")
		if p := problem(ct.T, ct.reg, "a", "base"); p != "" {
			ct.Errorf("after a good load: problem %q", p)
		}
	})
}

func TestABrokenAdapterDoesNotMarkItsBase(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		ct.fake.fail["versions/v1.gguf"] = &LoadError{Reason: ReasonAdapterMismatch, What: "v1", Err: errors.New("other base")}
		if _, err := ct.cache.Acquire(ct.Context(), "a", "v1"); reasonOf(err) != ReasonAdapterMismatch {
			ct.Errorf("error %v", err)
		}
		if base, v1 := problem(ct.T, ct.reg, "a", "base"), problem(ct.T, ct.reg, "a", "v1"); base != "" || v1 != "other base" {
			ct.Errorf("problems %q and %q", base, v1)
		}
	})
}
