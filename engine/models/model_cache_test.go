package models

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHitsAndMisses(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		l := ct.acquire("a", "base")
		if l.Hit || !l.Counted || l.Adapter != nil || l.BaseKey != "a" {
			ct.Errorf("first: %+v", l)
		}
		again := ct.acquire("a", "base")
		if !again.Hit {
			ct.Error("a loaded version isn't a hit")
		}
		replay, err := ct.cache.AcquireReplay(ct.Context(), "a", "base")
		if err != nil || replay.Counted || replay.Hit {
			ct.Errorf("replay: %+v, %v", replay, err)
		}
		l.Release()
		l.Release() // idempotent
		if n := ct.cache.Entries()[0].Leases; n != 2 {
			ct.Errorf("%d leases, want 2", n)
		}
		again.Release()
		replay.Release()
		ct.wantBackendCalls("load a/model.gguf")
	})
}

func TestOnLoadIsCalledAroundTheLoad(t *testing.T) {
	var mu sync.Mutex
	loading := map[string]bool{}
	var calls int
	ct := newCacheTest(t, func(o *CacheOptions) {
		o.OnLoad = func(l LoadHeartbeat, begins bool) {
			mu.Lock()
			defer mu.Unlock()
			loading[l.Model+"@"+l.Version] = begins
			calls++
		}
		attach := o.Attach
		o.Attach = func(ctx context.Context, key string, b Base) error {
			mu.Lock()
			defer mu.Unlock()
			if !loading["a@v1"] {
				t.Error("a base is attached outside of any load")
			}
			return attach(ctx, key, b)
		}
	})
	defer ct.close()
	lease, err := ct.cache.Acquire(t.Context(), "a", "v1")
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if loading["a@v1"] || calls != 2 {
		t.Errorf("with the lease in hand: loading %v after %d calls", loading["a@v1"], calls)
	}
	mu.Unlock()
	lease.Release()
}

func TestVersionsShareTheirBase(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 3 }, func(ct *cacheTest) {
		one, two := ct.acquire("a", "v1"), ct.acquire("a", "v2")
		if one.Base != two.Base || one.BaseKey != two.BaseKey || one.Adapter.Name() != "v1" || two.Adapter.Name() != "v2" {
			ct.Error("versions of one model don't share its weights")
		}
		one.Release()
		two.Release()
		ct.wantBackendCalls("load a/model.gguf, load versions/v1.gguf, load versions/v2.gguf")
		ct.use("b", "base")
		ct.use("c", "base") // v1 goes, its base stays for v2
		synctest.Wait()
		ct.wantBackendCalls("load b/model.gguf, close v1, load c/model.gguf")
		ct.use("d", "base") // v2 goes, and its base with it
		synctest.Wait()
		ct.wantBackendCalls("close v2, close a/model.gguf, load d/model.gguf")
	})
}

func TestJoinersOfALoadAreMisses(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		open := ct.fake.gate("a/model.gguf")
		var list []*pendingAcquire
		for range 10 {
			list = append(list, ct.startAcquire("a", "base"), ct.startAcquire("a", "v1"))
		}
		synctest.Wait()
		if loads := ct.cache.Loads(); len(loads) != 2 || loads[0].Counter == 0 || loads[0].Phase != "weights" {
			ct.Errorf("loads %+v", loads)
		}
		open()
		for _, p := range list {
			<-p.done
			if p.err != nil || p.lease.Hit || !p.lease.Counted {
				ct.Fatalf("%+v, %v", p.lease, p.err)
			}
			p.lease.Release()
		}
		ct.wantBackendCalls("load a/model.gguf, load versions/v1.gguf")
	})
}

func TestLoadOutlivesItsCaller(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		open := ct.fake.gate("a/model.gguf")
		p := ct.startAcquire("a", "base")
		synctest.Wait()
		p.leave()
		<-p.done
		if !errors.Is(p.err, context.Canceled) {
			ct.Errorf("error %v", p.err)
		}
		open()
		synctest.Wait()
		l := ct.acquire("a", "base")
		if !l.Hit {
			ct.Error("the load ended with its caller")
		}
		l.Release()
	})
}

func TestLoadsDontWaitForEachOther(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		open := ct.fake.gate("a/model.gguf")
		slow := ct.startAcquire("a", "base")
		synctest.Wait()
		ct.use("b", "v1")
		open()
		<-slow.done
		slow.lease.Release()
	})
}

func TestEntriesInUseStay(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		a, b := ct.acquire("a", "base"), ct.acquire("b", "base")
		p := ct.startAcquire("c", "base")
		synctest.Wait()
		ct.wantBackendCalls("load a/model.gguf, load b/model.gguf")

		// a was requested first, so it takes no new sequences once it has been loaded for two seconds.
		time.Sleep(minResident)
		synctest.Wait()
		if hit := ct.acquire("b", "base"); !hit.Hit {
			ct.Error("the other entry took no new sequence")
		} else {
			hit.Release()
		}
		again := ct.startAcquire("a", "base")
		synctest.Wait()
		select {
		case <-again.done:
			ct.Error("an entry that has to go took a new sequence")
		default:
		}
		a.Release()
		<-p.done
		if p.err != nil {
			ct.Fatal(p.err)
		}
		ct.wantBackendCalls("close a/model.gguf, load c/model.gguf")
		p.lease.Release() // c is idle now and makes room for a
		<-again.done
		if again.err != nil || again.lease.Hit {
			ct.Errorf("%+v, %v", again.lease, again.err)
		}
		ct.wantBackendCalls("close c/model.gguf, load a/model.gguf")
		again.lease.Release()
		b.Release()
	})
}

func TestWaitingForAPlaceIsBounded(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		a, b := ct.acquire("a", "base"), ct.acquire("b", "base")
		start := time.Now()
		_, err := ct.cache.Acquire(ct.Context(), "c", "base")
		if !errors.Is(err, ErrModelBusy) {
			ct.Errorf("error %v", err)
		}
		if waited := time.Since(start); waited != 10*time.Second {
			ct.Errorf("waited %v", waited)
		}
		// Nobody waits any more: the draining entry may stay.
		l := ct.acquire("a", "base")
		if !l.Hit {
			ct.Error("it went although nobody needed the place")
		}
		l.Release()
		a.Release()
		b.Release()
		ct.wantBackendCalls("load a/model.gguf, load b/model.gguf")
	})
}

func TestAWaiterThatLeavesFreesItsTurn(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		a, b := ct.acquire("a", "base"), ct.acquire("b", "base")
		p := ct.startAcquire("c", "base")
		synctest.Wait()
		p.leave()
		<-p.done
		time.Sleep(5 * time.Second)
		ct.use("a", "base")
		a.Release()
		b.Release()
		synctest.Wait()
		ct.wantBackendCalls("load a/model.gguf, load b/model.gguf")
	})
}

// A client's own timeout may well be as long as MODEL_BUSY_WAIT: then both end at the same moment.
func TestAWaiterMayLeaveAtTheMomentItTimesOut(t *testing.T) {
	for range 20 {
		withCacheTest(t, func(o *CacheOptions) { o.Size = 1 }, func(ct *cacheTest) {
			a := ct.acquire("a", "base")
			ctx, stop := context.WithTimeout(ct.Context(), ct.cache.opts.BusyWait)
			defer stop()
			if _, err := ct.cache.Acquire(ctx, "b", "base"); !errors.Is(err, ErrModelBusy) && !errors.Is(err, context.DeadlineExceeded) {
				ct.Errorf("error %v", err)
			}
			a.Release()
		})
	}
}

func TestTooManyWaitingLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ct := newCacheTest(t, func(o *CacheOptions) { o.Size = 1 })
		for i := range maxQueued + 1 {
			place(t, ct.dir, fmt.Sprintf("x%d/model.gguf", i), gguf("model", byte(i)))
		}
		now := time.Now()
		refresh(t, ct.reg, now)
		refresh(t, ct.reg, now.Add(3*time.Second))
		a := ct.acquire("a", "base")
		var list []*pendingAcquire
		for i := range maxQueued {
			list = append(list, ct.startAcquire(fmt.Sprintf("x%d", i), "base"))
		}
		synctest.Wait()
		if _, err := ct.cache.Acquire(ct.Context(), fmt.Sprintf("x%d", maxQueued), "base"); !errors.Is(err, ErrModelBusy) {
			t.Errorf("error %v", err)
		}
		for _, p := range list {
			p.leave()
			<-p.done
		}
		a.Release()
		ct.close()
	})
}

func TestLoadFailures(t *testing.T) {
	mismatch := &LoadError{Reason: ReasonAdapterMismatch, What: "v1", Err: errors.New("other base")}
	tests := []struct {
		name, model, version string
		prepare              func(ct *cacheTest)
		want                 Reason
	}{
		{"unknown model", "x", "base", nil, ReasonNotFound},
		{"unknown version", "a", "v9", nil, ReasonNotFound},
		{"hostile name", "../../etc/passwd", "base", nil, ReasonNotFound},
		{"backend", "a", "base", func(ct *cacheTest) { ct.fake.fail["a/model.gguf"] = errors.New("no idea") }, ReasonOther},
		{"adapter", "a", "v1", func(ct *cacheTest) { ct.fake.fail["versions/v1.gguf"] = mismatch }, ReasonAdapterMismatch},
		{"attach", "a", "base", func(ct *cacheTest) {
			ct.cache.opts.Attach = func(context.Context, string, Base) error { return errors.New("no") }
			ct.cache.opts.Detach = func(context.Context, string) error { return errors.New("was never attached") }
		}, ReasonOther},
		{"never ends", "a", "base", func(ct *cacheTest) { ct.fake.gate("a/model.gguf") }, ReasonTimeout},
		{"memory", "a", "base", func(ct *cacheTest) { ct.cache.opts.MemoryFits = func(int64, bool) bool { return false } }, ReasonOutOfMemory},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withCacheTest(t, nil, func(ct *cacheTest) {
				if tt.prepare != nil {
					tt.prepare(ct)
				}
				_, err := ct.cache.Acquire(ct.Context(), tt.model, tt.version)
				if reasonOf(err) != tt.want {
					ct.Errorf("error %v, want reason %s", err, tt.want)
				}
				synctest.Wait()
				if n := len(ct.cache.Entries()); n != 0 {
					ct.Errorf("%d entries are left", n)
				}
			})
		})
	}
}

func TestFailedAdapterDoesntHarmAnother(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		ct.fake.fail["versions/v1.gguf"] = errors.New("bad")
		open := ct.fake.gate("a/model.gguf")
		bad, good := ct.startAcquire("a", "v1"), ct.startAcquire("a", "v2")
		synctest.Wait()
		open()
		<-bad.done
		<-good.done
		if bad.err == nil || good.err != nil {
			ct.Errorf("bad: %v, good: %v", bad.err, good.err)
		}
		good.lease.Release()
	})
}

func TestBrokenFilesDontEvictOthers(t *testing.T) {
	withCacheTest(t, func(o *CacheOptions) { o.Size = 1 }, func(ct *cacheTest) {
		ct.fake.fail["a/model.gguf"] = &LoadError{Reason: ReasonBadFormat, What: "a", Err: errors.New("bad")}
		if _, err := ct.cache.Acquire(ct.Context(), "a", "base"); reasonOf(err) != ReasonBadFormat {
			ct.Errorf("error %v", err)
		}
		ct.use("b", "base")
		if _, err := ct.cache.Acquire(ct.Context(), "a", "base"); reasonOf(err) != ReasonBadFormat {
			ct.Errorf("error %v", err)
		}
		ct.wantBackendCalls("load b/model.gguf")
		time.Sleep(brokenFor)
		delete(ct.fake.fail, "a/model.gguf") // the library was at fault
		ct.use("a", "base")
	})
}

// Models without files all have the same files' state, and what is wrong with a model.yaml isn't part of it.
func TestEachBrokenModelHasItsOwnProblem(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		place(ct.T, ct.dir, "x/model.yaml", []byte("file: x.gguf\n"))
		place(ct.T, ct.dir, "y/model.yaml", []byte("file: y.gguf\n"))
		place(ct.T, ct.dir, "a/model.yaml", []byte("nonsense: 1\n"))
		look := func(after time.Duration) { refresh(ct.T, ct.reg, time.Now().Add(after)) }
		look(0)
		look(time.Hour)
		for model, want := range map[string]string{"x": "x.gguf is missing", "y": "y.gguf is missing", "a": "nonsense"} {
			_, err := ct.cache.Acquire(ct.Context(), model, "base")
			if le, _ := errors.AsType[*LoadError](err); le == nil || le.What != model+"@base" || !strings.Contains(le.Public, want) {
				ct.Errorf("%s: %+v", model, le)
			}
		}
		place(ct.T, ct.dir, "a/model.yaml", []byte("description: mended\n"))
		look(2 * time.Hour)
		look(3 * time.Hour)
		ct.use("a", "base")
	})
}

func TestABackendThatHangsKeepsItsPlaceOnly(t *testing.T) {
	withCacheTest(t, nil, func(ct *cacheTest) {
		ct.fake.ignoresContext = true
		open := ct.fake.gate("a/model.gguf")
		if _, err := ct.cache.Acquire(ct.Context(), "a", "base"); reasonOf(err) != ReasonTimeout {
			ct.Errorf("error %v", err)
		}
		ct.use("b", "base")
		open() // it comes back after all
		synctest.Wait()
		if e := ct.cache.Entries(); len(e) != 1 || e[0].Model != "b" {
			ct.Errorf("entries %+v", e)
		}
	})
}
