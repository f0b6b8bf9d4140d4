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

func TestMemoryWatermarkEvictsIdleModels(t *testing.T) {
	inBubble(t, func(o *CacheOptions) { o.Size = 5 }, func(r *rig) {
		r.use("a", "base")
		r.use("b", "base")
		c := r.acquire("c", "base")
		r.fake.take()
		r.cache.opts.Fits = func(int64, bool) bool {
			r.fake.mu.Lock()
			defer r.fake.mu.Unlock()
			loaded := 0
			for _, n := range r.fake.open {
				loaded += n
			}
			return loaded < 3
		}
		r.use("d", "base")
		r.wantLog("close a/model.gguf, load d/model.gguf")
		c.Release()
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if !slices.ContainsFunc(r.events, func(e Event) bool { return e.Kind == EventEvicted && e.Model == "a" && e.Reason == "memory" }) {
			r.Errorf("events %+v", r.events)
		}
	})
}

// holds makes the machine large enough for so many bytes; a loaded base has 1100, whatever its file.
func (r *rig) holds(most int64) {
	r.cache.opts.Fits = func(bytes int64, _ bool) bool {
		r.fake.mu.Lock()
		defer r.fake.mu.Unlock()
		for _, n := range r.fake.open {
			bytes += 1100 * int64(n)
		}
		return bytes <= most
	}
}

// Each of two models fits, both together don't: the second waits for the first, and is no more hung than that one.
func TestLoadsThatDontFitTogetherFollowEachOther(t *testing.T) {
	inBubble(t, func(o *CacheOptions) { o.Size, o.LoadTimeout = 5, time.Hour }, func(r *rig) {
		r.holds(int64(len(gguf("model", 0))) * 3 / 2)
		open := r.fake.gate("a/model.gguf")
		a := r.start("a", "base")
		synctest.Wait()
		b := r.start("b", "base")
		time.Sleep(10 * time.Minute)
		for _, l := range r.cache.Loads() {
			if l.Model == "b" && l.Age > 2*time.Second {
				r.Errorf("%s looks hung: %+v", l.Model, l)
			}
		}
		r.wantLog("")
		open()
		<-a.done
		<-b.done
		if reasonOf(b.err) != ReasonOutOfMemory { // a is in use now
			r.Errorf("error %v", b.err)
		}
		a.lease.Release()
		r.use("b", "base")
		r.wantLog("load a/model.gguf, close a/model.gguf, load b/model.gguf")
	})
}

func TestAModelThatNeverFitsPushesOthersOutOnlyOnce(t *testing.T) {
	inBubble(t, func(o *CacheOptions) { o.Size = 5 }, func(r *rig) {
		r.holds(100)
		if _, err := r.cache.Acquire(r.Context(), "d", "base"); reasonOf(err) != ReasonOutOfMemory {
			r.Errorf("error %v", err)
		}
		r.holds(1 << 30)
		r.use("a", "base")
		r.fake.take()
		r.holds(100)
		if _, err := r.cache.Acquire(r.Context(), "d", "base"); reasonOf(err) != ReasonOutOfMemory {
			r.Errorf("the second time: error %v", err)
		}
		r.wantLog("")
		r.holds(1 << 30)
		time.Sleep(brokenFor)
		r.use("d", "base")
	})
}

// As after the death of an engine whose memory isn't returned yet. However often clients ask, few attempts are real ones.
func TestALoadThatWasRefusedForMemoryIsTriedAgain(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.holds(100)
		for range 1000 {
			if _, err := r.cache.Acquire(r.Context(), "a", "base"); reasonOf(err) != ReasonOutOfMemory {
				r.Errorf("error %v", err)
			}
			time.Sleep(20 * time.Millisecond) // fake time, 20 s in all
		}
		synctest.Wait()
		r.mu.Lock()
		n := 0
		for _, e := range r.events {
			if e.Kind == EventLoading {
				n++
			}
		}
		r.mu.Unlock()
		if n < 4 || n > 8 {
			r.Errorf("%d attempts in 20 s", n)
		}
		r.holds(1 << 30)
		time.Sleep(lastRoomPause)
		r.use("a", "base")
	})
}

// Asking for free memory may be slow, and the cache stands still meanwhile.
func TestMemoryIsNotAskedForAtEachRequest(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.holds(100)
		_, _ = r.cache.Acquire(r.Context(), "a", "base")
		r.holds(1 << 30)
		b := r.acquire("b", "base")
		asked := 0
		r.cache.opts.Fits = func(int64, bool) bool { asked++; return false }
		for range 100 {
			if _, err := r.cache.Acquire(r.Context(), "a", "base"); reasonOf(err) != ReasonOutOfMemory {
				r.Errorf("error %v", err)
			}
			time.Sleep(50 * time.Millisecond) // fake time, 5 s in all
		}
		if asked > 6 {
			r.Errorf("asked %d times in 5 s", asked)
		}
		b.Release()
	})
}

func TestWithNothingElseLoadedOnlyFreeMemoryCounts(t *testing.T) {
	inBubble(t, func(o *CacheOptions) { o.Size = 5 }, func(r *rig) {
		r.cache.opts.Fits = func(_ int64, alone bool) bool { return alone } // everything passes the watermark
		a := r.acquire("a", "v1")
		a2 := r.acquire("a", "v2")
		if _, err := r.cache.Acquire(r.Context(), "b", "base"); reasonOf(err) != ReasonOutOfMemory {
			r.Errorf("beside a model in use: error %v", err)
		}
		a.Release()
		a2.Release()
		r.fake.take()
		r.use("b", "base")
		r.wantLog("close v1, close v2, close a/model.gguf, load b/model.gguf")
	})
}

func TestTheBackendHearsWhatIsLeftForTheCache(t *testing.T) {
	inBubble(t, func(o *CacheOptions) { o.Left = func(bytes int64) int64 { return 10_000 - bytes } }, func(r *rig) {
		r.use("a", "base")
		if got, want := r.fake.free, 10_000-int64(len(gguf("model", 0))); got != want {
			r.Errorf("%d bytes, want %d", got, want)
		}
	})
}

func TestChangedFileIsServedAnew(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		old := r.acquire("a", "v1")
		replace := func() {
			place(r.T, r.dir, "a/model.gguf", gguf("model", 99))
			now := time.Now()
			refresh(r.T, r.reg, now)
			refresh(r.T, r.reg, now.Add(settleTime))
			synctest.Wait()
		}
		replace()
		r.fake.take()
		r.fake.open = map[string]int{} // the old state has the same path
		fresh := r.acquire("a", "v1")
		if fresh.Hit || fresh.BaseKey == old.BaseKey || fresh.Base == old.Base || SameRevision(fresh.Revision, old.Revision) {
			r.Errorf("a request after the change got the old files: %+v", fresh)
		}
		if ModelOfKey(fresh.BaseKey) != "a" {
			r.Errorf("key %q", fresh.BaseKey)
		}
		r.wantLog("load a/model.gguf, load versions/v1.gguf")
		old.Release()
		synctest.Wait()
		r.wantLog("close v1, close a/model.gguf")
		fresh.Release()
		r.fake.open = map[string]int{}
		r.fake.open[filepath.Join(r.dir, "a/model.gguf")] = 1

		if err := os.RemoveAll(filepath.Join(r.dir, "a")); err != nil {
			r.Fatal(err)
		}
		refresh(r.T, r.reg, time.Now())
		synctest.Wait()
		r.wantLog("close v1, close a/model.gguf")
		if _, err := r.cache.Acquire(r.Context(), "a", "v1"); reasonOf(err) != ReasonNotFound {
			r.Errorf("error %v", err)
		}
	})
}

func TestFileThatChangesDuringTheLoad(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		open := r.fake.gate("a/model.gguf")
		p := r.start("a", "base")
		synctest.Wait()
		place(r.T, r.dir, "a/model.gguf", gguf("model", 99))
		open()
		<-p.done
		if !errors.Is(p.err, errChanged) {
			r.Errorf("error %v", p.err)
		}
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fake.fail["b/model.gguf"] = errors.New("no idea")
		r.use("a", "v1")
		if _, err := r.cache.Acquire(r.Context(), "b", "base"); err == nil {
			t.Error("no error")
		}
		r.close()
		var got []string
		for _, e := range r.events {
			if e.Kind == EventProgress {
				continue
			}
			got = append(got, fmt.Sprintf("%d %s@%s %s %d %d", e.Kind, e.Model, e.Version, e.Reason, e.Bytes, e.Facts.WeightBytes))
		}
		want := []string{"1 a@v1  0 0", "3 a@v1  10 1000", "1 b@base  0 0", "4 b@base other 0 0", "5 a@v1 admin 0 0"}
		if !slices.Equal(got, want) {
			t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestTimeoutIsToldAsSuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fake.gate("a/model.gguf")
		if _, err := r.cache.Acquire(t.Context(), "a", "base"); reasonOf(err) != ReasonTimeout {
			t.Errorf("error %v", err)
		}
		r.close()
		last := r.events[len(r.events)-1]
		if last.Kind != EventLoadFailed || last.Reason != string(ReasonTimeout) {
			t.Errorf("event %+v", last)
		}
	})
}

func TestASlowReceiverOfEventsHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var seen []Event
		r := newRig(t, func(o *CacheOptions) { o.OnEvent = func(e Event) { <-gate; seen = append(seen, e) } })
		for range 20 {
			r.use("a", "v1")
			r.use("b", "v1")
			r.use("c", "v1")
		}
		close(gate)
		r.close()
		loading, loaded := 0, 0
		for _, e := range seen {
			switch e.Kind {
			case EventLoading:
				loading++
			case EventLoaded:
				loaded++
			}
		}
		if loading != loaded || loaded < 3 {
			t.Errorf("%d loads began, %d ended", loading, loaded)
		}
	})
}

func TestCloseWaitsForLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		l := r.acquire("a", "v1")
		r.fake.gate("b/model.gguf")
		p := r.start("b", "base")
		synctest.Wait()
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := r.cache.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close with a lease out: %v", err)
		}
		<-p.done
		if !errors.Is(p.err, ErrClosed) {
			t.Errorf("a load while closing: %v", p.err)
		}
		if _, err := r.cache.Acquire(t.Context(), "a", "v1"); !errors.Is(err, ErrClosed) {
			t.Errorf("acquire after close: %v", err)
		}
		l.Release()
		r.close()
	})
}

func TestDemoThroughTheCache(t *testing.T) {
	fake := newFake(t)
	reg := mustRegistry(t, RegistryOptions{Demo: smallDemo(t)})
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

// TestManyAtOnce lets callers come and go at random; the fake checks that nothing is used after it was freed or loaded twice.
func TestManyAtOnce(t *testing.T) {
	inBubble(t, func(o *CacheOptions) { o.Size = 3 }, func(r *rig) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				for range 60 {
					ctx, stop := context.WithTimeout(r.Context(), time.Duration(rng.IntN(8000))*time.Millisecond)
					l, err := r.cache.Acquire(ctx, string(rune('a'+rng.IntN(4))), []string{"base", "v1", "v2"}[rng.IntN(3)])
					if err == nil {
						if n := len(r.cache.Entries()); n > 3 {
							r.Errorf("%d entries in 3 places", n)
						}
						time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
						l.Release()
					} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrModelBusy) {
						r.Errorf("acquire: %v", err)
					}
					stop()
				}
			})
		}
		wg.Wait()
	})
}

func TestWhatALoadFindsBrokenIsListed(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		path := filepath.Join(r.dir, "a/model.gguf")
		r.fake.fail["a/model.gguf"] = &LoadError{Reason: ReasonBadFormat, What: "a", Err: fmt.Errorf("failed to open '%s': unknown architecture in /some where/else.gguf", path)}
		changed := r.reg.Changes()
		_, err := r.cache.Acquire(r.Context(), "a", "v1")
		const want = "failed to open 'model.gguf': unknown architecture in"
		if le, _ := errors.AsType[*LoadError](err); le == nil || !strings.HasPrefix(le.Public, want) || strings.Contains(le.Public, r.dir) {
			r.Errorf("clients are told %+v", le)
		}
		select {
		case <-changed:
		default:
			r.Error("no word of it")
		}
		for _, version := range []string{"base", "v1", "v2"} { // the base's fault is everybody's
			if p := problem(r.T, r.reg, "a", version); !strings.HasPrefix(p, want) {
				r.Errorf("a@%s: problem %q", version, p)
			}
		}
		if p := problem(r.T, r.reg, "b", "base"); p != "" {
			r.Errorf("b: problem %q", p)
		}
		refresh(r.T, r.reg, time.Now().Add(time.Hour))
		if p := problem(r.T, r.reg, "a", "base"); p == "" {
			r.Error("forgotten at the next look")
		}
		delete(r.fake.fail, "a/model.gguf")
		time.Sleep(brokenFor)
		r.use("a", "base")
		if p := problem(r.T, r.reg, "a", "base"); p != "" {
			r.Errorf("after a good load: problem %q", p)
		}
	})
}

func TestABrokenAdapterDoesNotMarkItsBase(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.fake.fail["versions/v1.gguf"] = &LoadError{Reason: ReasonAdapterMismatch, What: "v1", Err: errors.New("other base")}
		if _, err := r.cache.Acquire(r.Context(), "a", "v1"); reasonOf(err) != ReasonAdapterMismatch {
			r.Errorf("error %v", err)
		}
		if base, v1 := problem(r.T, r.reg, "a", "base"), problem(r.T, r.reg, "a", "v1"); base != "" || v1 != "other base" {
			r.Errorf("problems %q and %q", base, v1)
		}
	})
}
