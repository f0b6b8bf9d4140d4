package models

import (
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryWatermarkEvictsIdleModels(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 5 }, func(ct *cacheTest) {
		ct.use("a", "base")
		ct.use("b", "base")
		c := ct.acquire("c", "base")
		ct.fake.takeCalls()
		ct.cache.opts.MemoryFits = func(int64, bool) bool {
			ct.fake.mu.Lock()
			defer ct.fake.mu.Unlock()
			loaded := 0
			for _, n := range ct.fake.loaded {
				loaded += n
			}
			return loaded < 3
		}
		ct.use("d", "base")
		ct.wantBackendCalls("close a/model.gguf, load d/model.gguf")
		c.Release()
		synctest.Wait()
		ct.mu.Lock()
		defer ct.mu.Unlock()
		if !slices.ContainsFunc(ct.events, func(e Event) bool { return e.Kind == EventEvicted && e.Model == "a" && e.Reason == "memory" }) {
			ct.Errorf("events %+v", ct.events)
		}
	})
}

// limitMemory makes room for this many bytes; a loaded base takes 1100, whatever its file.
func (ct *cacheTest) limitMemory(most int64) {
	ct.cache.opts.MemoryFits = func(bytes int64, _ bool) bool {
		ct.fake.mu.Lock()
		defer ct.fake.mu.Unlock()
		for _, n := range ct.fake.loaded {
			bytes += 1100 * int64(n)
		}
		return bytes <= most
	}
}

// Each of two models fits, both together don't: the second waits for the first, and doesn't look hung meanwhile.
func TestLoadsThatDontFitTogetherFollowEachOther(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size, o.LoadTimeout = 5, time.Hour }, func(ct *cacheTest) {
		ct.limitMemory(int64(len(gguf("model", 0))) * 3 / 2)
		open := ct.fake.gate("a/model.gguf")
		a := ct.startAcquire("a", "base")
		synctest.Wait()
		b := ct.startAcquire("b", "base")
		time.Sleep(10 * time.Minute)
		for _, l := range ct.cache.Loads() {
			if l.Model == "b" && l.Age > 2*time.Second {
				ct.Errorf("%s looks hung: %+v", l.Model, l)
			}
		}
		ct.wantBackendCalls("")
		open()
		<-a.done
		<-b.done
		if reasonOf(b.err) != ReasonOutOfMemory { // a is in use now
			ct.Errorf("error %v", b.err)
		}
		a.lease.Release()
		ct.use("b", "base")
		ct.wantBackendCalls("load a/model.gguf, close a/model.gguf, load b/model.gguf")
	})
}

func TestAModelThatNeverFitsEvictsOthersOnlyOnce(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 5 }, func(ct *cacheTest) {
		ct.limitMemory(100)
		if _, err := ct.cache.Acquire(ct.Context(), "d", "base"); reasonOf(err) != ReasonOutOfMemory {
			ct.Errorf("error %v", err)
		}
		ct.limitMemory(1 << 30)
		ct.use("a", "base")
		ct.fake.takeCalls()
		ct.limitMemory(100)
		if _, err := ct.cache.Acquire(ct.Context(), "d", "base"); reasonOf(err) != ReasonOutOfMemory {
			ct.Errorf("the second time: error %v", err)
		}
		ct.wantBackendCalls("")
		ct.limitMemory(1 << 30)
		time.Sleep(brokenFor)
		ct.use("d", "base")
	})
}

// Beside a model in use, a model may have no room even when all idle ones have gone for it. They don't go again until
// that one is idle.
func TestAModelThatDoesntFitBesideOneInUseEvictsOthersOnlyOnce(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 5 }, func(ct *cacheTest) {
		a := ct.acquire("a", "base")
		ct.use("b", "base")
		ct.limitMemory(int64(len(gguf("model", 0))))
		refused := func() {
			ct.Helper()
			if _, err := ct.cache.Acquire(ct.Context(), "c", "base"); reasonOf(err) != ReasonOutOfMemory {
				ct.Errorf("error %v", err)
			}
		}
		refused()
		ct.wantBackendCalls("load a/model.gguf, load b/model.gguf, close b/model.gguf")
		ct.limitMemory(1 << 30)
		ct.use("b", "base")
		ct.fake.takeCalls()
		ct.limitMemory(int64(len(gguf("model", 0))))
		for range 50 {
			refused()
			time.Sleep(time.Second) // fake time
		}
		ct.wantBackendCalls("")
		a.Release()
		ct.use("c", "base")
		ct.wantBackendCalls("close a/model.gguf, close b/model.gguf, load c/model.gguf")
	})
}

// The same for a version that has no room on its base's device, whatever the host has.
func TestAnAdapterThatDoesntFitBesideAModelInUseEvictsOthersOnlyOnce(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 5 }, func(ct *cacheTest) {
		a, b := ct.acquire("a", "base"), ct.acquire("b", "base")
		ct.fake.adapterRoom = func() bool { return false }
		for range 50 {
			ct.use("c", "base")
			if _, err := ct.cache.Acquire(ct.Context(), "a", "v1"); reasonOf(err) != ReasonOutOfMemory {
				ct.Errorf("error %v", err)
			}
			time.Sleep(time.Second) // fake time
		}
		ct.wantBackendCalls("load a/model.gguf, load b/model.gguf, load c/model.gguf, close c/model.gguf, load c/model.gguf")
		ct.fake.adapterRoom = nil
		time.Sleep(memoryAnswerTTL)
		ct.use("a", "v1")
		a.Release()
		b.Release()
	})
}

// As after a crash of an engine whose memory isn't freed yet. However often clients ask, there are few real attempts.
func TestALoadThatWasRefusedForMemoryIsTriedAgain(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		ct.limitMemory(100)
		for range 1000 {
			if _, err := ct.cache.Acquire(ct.Context(), "a", "base"); reasonOf(err) != ReasonOutOfMemory {
				ct.Errorf("error %v", err)
			}
			time.Sleep(20 * time.Millisecond) // fake time, 20 s in all
		}
		synctest.Wait()
		ct.mu.Lock()
		n := 0
		for _, e := range ct.events {
			if e.Kind == EventLoading {
				n++
			}
		}
		ct.mu.Unlock()
		if n < 4 || n > 8 {
			ct.Errorf("%d attempts in 20 s", n)
		}
		ct.limitMemory(1 << 30)
		time.Sleep(maxMemoryRetryPause)
		ct.use("a", "base")
	})
}

// MemoryFits may be slow, and the cache is locked meanwhile.
func TestMemoryIsNotMeasuredAtEachRequest(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		ct.limitMemory(100)
		_, _ = ct.cache.Acquire(ct.Context(), "a", "base")
		ct.limitMemory(1 << 30)
		b := ct.acquire("b", "base")
		asked := 0
		ct.cache.opts.MemoryFits = func(int64, bool) bool { asked++; return false }
		for range 100 {
			if _, err := ct.cache.Acquire(ct.Context(), "a", "base"); reasonOf(err) != ReasonOutOfMemory {
				ct.Errorf("error %v", err)
			}
			time.Sleep(50 * time.Millisecond) // fake time, 5 s in all
		}
		if asked > 6 {
			ct.Errorf("asked %d times in 5 s", asked)
		}
		b.Release()
	})
}

// The device on which a base lies may be full while others aren't: idle models go, and without any the version is
// refused.
func TestAnAdapterNeedsRoomBesideItsBase(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 5 }, func(ct *cacheTest) {
		ct.use("b", "base")
		a := ct.acquire("a", "base")
		ct.fake.takeCalls()
		ct.fake.adapterRoom = func() bool { return ct.fake.loaded[filepath.Join(ct.dir, "b/model.gguf")] == 0 }
		ct.use("a", "v1")
		ct.wantBackendCalls("close b/model.gguf, load versions/v1.gguf")
		ct.fake.adapterRoom = func() bool { return false }
		if _, err := ct.cache.Acquire(ct.Context(), "a", "v2"); reasonOf(err) != ReasonOutOfMemory {
			ct.Errorf("with no room for it: error %v", err)
		}
		ct.fake.adapterRoom = nil
		time.Sleep(brokenFor)
		ct.use("a", "v2")
		a.Release()
	})
}

// What is told of a base counts the adapters that are loaded now.
func TestFactsCountAdapters(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 2 }, func(ct *cacheTest) {
		adapters := func() (list []int64) {
			for _, e := range ct.cache.Entries() {
				list = append(list, e.Facts.Memory[0].AdapterBytes)
			}
			return list
		}
		ct.use("a", "base")
		ct.use("a", "v1")
		if got := adapters(); !slices.Equal(got, []int64{10, 10}) {
			ct.Errorf("with an adapter: %v", got)
		}
		ct.use("a", "v2") // in the place of the base's own entry
		if got := adapters(); !slices.Equal(got, []int64{20, 20}) {
			ct.Errorf("with two adapters: %v", got)
		}
		ct.use("a", "base") // in the place of v1
		if got := adapters(); !slices.Equal(got, []int64{10, 10}) {
			ct.Errorf("after one went: %v", got)
		}
	})
}

func TestWithNothingElseLoadedOnlyFreeMemoryCounts(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 5 }, func(ct *cacheTest) {
		ct.cache.opts.MemoryFits = func(_ int64, alone bool) bool { return alone } // everything passes the watermark
		a := ct.acquire("a", "v1")
		a2 := ct.acquire("a", "v2")
		if _, err := ct.cache.Acquire(ct.Context(), "b", "base"); reasonOf(err) != ReasonOutOfMemory {
			ct.Errorf("beside a model in use: error %v", err)
		}
		a.Release()
		a2.Release()
		ct.fake.takeCalls()
		ct.use("b", "base")
		ct.wantBackendCalls("close v1, close v2, close a/model.gguf, load b/model.gguf")
	})
}

func TestTheBackendGetsTheRoomOfTheHost(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.HostRoom = func() (room, free int64) { return 10_000, 20_000 } }, func(ct *cacheTest) {
		ct.use("a", "base")
		if room, free := ct.fake.hostRoom, ct.fake.hostFree; room != 10_000 || free != 20_000 {
			ct.Errorf("room for %d, %d free; want 10000 and 20000", room, free)
		}
	})
}
