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

// inBubble runs a test with its own clock; the rig is closed at the end.
func inBubble(t *testing.T, change func(*CacheOptions), f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, change)
		f(r)
		r.close()
	})
}

func TestHitsAndMisses(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		l := r.acquire("a", "base")
		if l.Hit || !l.Counted || l.Adapter != nil || l.BaseKey != "a" {
			r.Errorf("first: %+v", l)
		}
		again := r.acquire("a", "base")
		if !again.Hit {
			r.Error("a loaded version isn't a hit")
		}
		replay, err := r.cache.AcquireReplay(r.Context(), "a", "base")
		if err != nil || replay.Counted || replay.Hit {
			r.Errorf("replay: %+v, %v", replay, err)
		}
		l.Release()
		l.Release() // idempotent
		if n := r.cache.Entries()[0].Leases; n != 2 {
			r.Errorf("%d leases, want 2", n)
		}
		again.Release()
		replay.Release()
		r.wantLog("load a/model.gguf")
	})
}

func TestOnLoadFramesTheLoadAndNothingElse(t *testing.T) {
	var mu sync.Mutex
	loading := map[string]bool{}
	var calls int
	r := newRig(t, func(o *CacheOptions) {
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
	defer r.close()
	lease, err := r.cache.Acquire(t.Context(), "a", "v1")
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
	inBubble(t, func(o *CacheOptions) { o.Size = 3 }, func(r *rig) {
		one, two := r.acquire("a", "v1"), r.acquire("a", "v2")
		if one.Base != two.Base || one.BaseKey != two.BaseKey || one.Adapter.Name() != "v1" || two.Adapter.Name() != "v2" {
			r.Error("versions of one model don't share its weights")
		}
		one.Release()
		two.Release()
		r.wantLog("load a/model.gguf, load versions/v1.gguf, load versions/v2.gguf")
		r.use("b", "base")
		r.use("c", "base") // v1 goes, its base stays for v2
		synctest.Wait()
		r.wantLog("load b/model.gguf, close v1, load c/model.gguf")
		r.use("d", "base") // v2 goes, and its base with it
		synctest.Wait()
		r.wantLog("close v2, close a/model.gguf, load d/model.gguf")
	})
}

func TestJoinersOfALoadAreMisses(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		open := r.fake.gate("a/model.gguf")
		var list []*pending
		for range 10 {
			list = append(list, r.start("a", "base"), r.start("a", "v1"))
		}
		synctest.Wait()
		if loads := r.cache.Loads(); len(loads) != 2 || loads[0].Counter == 0 || loads[0].Phase != "weights" {
			r.Errorf("loads %+v", loads)
		}
		open()
		for _, p := range list {
			<-p.done
			if p.err != nil || p.lease.Hit || !p.lease.Counted {
				r.Fatalf("%+v, %v", p.lease, p.err)
			}
			p.lease.Release()
		}
		r.wantLog("load a/model.gguf, load versions/v1.gguf")
	})
}

func TestLoadOutlivesItsCaller(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		open := r.fake.gate("a/model.gguf")
		p := r.start("a", "base")
		synctest.Wait()
		p.leave()
		<-p.done
		if !errors.Is(p.err, context.Canceled) {
			r.Errorf("error %v", p.err)
		}
		open()
		synctest.Wait()
		l := r.acquire("a", "base")
		if !l.Hit {
			r.Error("the load ended with its caller")
		}
		l.Release()
	})
}

func TestLoadsDontWaitForEachOther(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		open := r.fake.gate("a/model.gguf")
		slow := r.start("a", "base")
		synctest.Wait()
		r.use("b", "v1")
		open()
		<-slow.done
		slow.lease.Release()
	})
}

func TestEntriesInUseStay(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		a, b := r.acquire("a", "base"), r.acquire("b", "base")
		p := r.start("c", "base")
		synctest.Wait()
		r.wantLog("load a/model.gguf, load b/model.gguf")

		// a was asked for first, so it takes no new sequences once it was there for two seconds.
		time.Sleep(minResident)
		synctest.Wait()
		if hit := r.acquire("b", "base"); !hit.Hit {
			r.Error("the other entry took no new sequence")
		} else {
			hit.Release()
		}
		again := r.start("a", "base")
		synctest.Wait()
		select {
		case <-again.done:
			r.Error("an entry that has to go took a new sequence")
		default:
		}
		a.Release()
		<-p.done
		if p.err != nil {
			r.Fatal(p.err)
		}
		r.wantLog("close a/model.gguf, load c/model.gguf")
		p.lease.Release() // c is idle now and makes room for a
		<-again.done
		if again.err != nil || again.lease.Hit {
			r.Errorf("%+v, %v", again.lease, again.err)
		}
		r.wantLog("close c/model.gguf, load a/model.gguf")
		again.lease.Release()
		b.Release()
	})
}

func TestWaitingForAPlaceIsBounded(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		a, b := r.acquire("a", "base"), r.acquire("b", "base")
		start := time.Now()
		_, err := r.cache.Acquire(r.Context(), "c", "base")
		if !errors.Is(err, ErrModelBusy) {
			r.Errorf("error %v", err)
		}
		if waited := time.Since(start); waited != 10*time.Second {
			r.Errorf("waited %v", waited)
		}
		// Nobody waits any more: the entry that had to go may stay.
		l := r.acquire("a", "base")
		if !l.Hit {
			r.Error("it went although nobody needed the place")
		}
		l.Release()
		a.Release()
		b.Release()
		r.wantLog("load a/model.gguf, load b/model.gguf")
	})
}

func TestAWaiterThatLeavesFreesItsTurn(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		a, b := r.acquire("a", "base"), r.acquire("b", "base")
		p := r.start("c", "base")
		synctest.Wait()
		p.leave()
		<-p.done
		time.Sleep(5 * time.Second)
		r.use("a", "base")
		a.Release()
		b.Release()
		synctest.Wait()
		r.wantLog("load a/model.gguf, load b/model.gguf")
	})
}

// A client's own timeout may well be as long as MODEL_BUSY_WAIT: then both end at the same moment.
func TestAWaiterMayLeaveAtTheMomentItIsSentAway(t *testing.T) {
	for range 20 {
		inBubble(t, func(o *CacheOptions) { o.Size = 1 }, func(r *rig) {
			a := r.acquire("a", "base")
			ctx, stop := context.WithTimeout(r.Context(), r.cache.opts.BusyWait)
			defer stop()
			if _, err := r.cache.Acquire(ctx, "b", "base"); !errors.Is(err, ErrModelBusy) && !errors.Is(err, context.DeadlineExceeded) {
				r.Errorf("error %v", err)
			}
			a.Release()
		})
	}
}

func TestTooManyWaitingLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *CacheOptions) { o.Size = 1 })
		for i := range maxQueued + 1 {
			place(t, r.dir, fmt.Sprintf("x%d/model.gguf", i), gguf("model", byte(i)))
		}
		now := time.Now()
		refresh(t, r.reg, now)
		refresh(t, r.reg, now.Add(3*time.Second))
		a := r.acquire("a", "base")
		var list []*pending
		for i := range maxQueued {
			list = append(list, r.start(fmt.Sprintf("x%d", i), "base"))
		}
		synctest.Wait()
		if _, err := r.cache.Acquire(r.Context(), fmt.Sprintf("x%d", maxQueued), "base"); !errors.Is(err, ErrModelBusy) {
			t.Errorf("error %v", err)
		}
		for _, p := range list {
			p.leave()
			<-p.done
		}
		a.Release()
		r.close()
	})
}

func TestLoadFailures(t *testing.T) {
	mismatch := &LoadError{Reason: ReasonAdapterMismatch, What: "v1", Err: errors.New("other base")}
	tests := []struct {
		name, model, version string
		prepare              func(r *rig)
		want                 Reason
	}{
		{"unknown model", "x", "base", nil, ReasonNotFound},
		{"unknown version", "a", "v9", nil, ReasonNotFound},
		{"hostile name", "../../etc/passwd", "base", nil, ReasonNotFound},
		{"backend", "a", "base", func(r *rig) { r.fake.fail["a/model.gguf"] = errors.New("no idea") }, ReasonOther},
		{"adapter", "a", "v1", func(r *rig) { r.fake.fail["versions/v1.gguf"] = mismatch }, ReasonAdapterMismatch},
		{"attach", "a", "base", func(r *rig) {
			r.cache.opts.Attach = func(context.Context, string, Base) error { return errors.New("no") }
			r.cache.opts.Detach = func(context.Context, string) error { return errors.New("was never attached") }
		}, ReasonOther},
		{"never ends", "a", "base", func(r *rig) { r.fake.gate("a/model.gguf") }, ReasonTimeout},
		{"memory", "a", "base", func(r *rig) { r.cache.opts.Fits = func(int64, bool) bool { return false } }, ReasonOutOfMemory},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				if tt.prepare != nil {
					tt.prepare(r)
				}
				_, err := r.cache.Acquire(r.Context(), tt.model, tt.version)
				if reasonOf(err) != tt.want {
					r.Errorf("error %v, want reason %s", err, tt.want)
				}
				synctest.Wait()
				if n := len(r.cache.Entries()); n != 0 {
					r.Errorf("%d entries are left", n)
				}
			})
		})
	}
}

func TestFailedAdapterDoesntHarmItsSister(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.fake.fail["versions/v1.gguf"] = errors.New("bad")
		open := r.fake.gate("a/model.gguf")
		bad, good := r.start("a", "v1"), r.start("a", "v2")
		synctest.Wait()
		open()
		<-bad.done
		<-good.done
		if bad.err == nil || good.err != nil {
			r.Errorf("bad: %v, good: %v", bad.err, good.err)
		}
		good.lease.Release()
	})
}

func TestBrokenFilesDontPushOthersOut(t *testing.T) {
	inBubble(t, func(o *CacheOptions) { o.Size = 1 }, func(r *rig) {
		r.fake.fail["a/model.gguf"] = &LoadError{Reason: ReasonBadFormat, What: "a", Err: errors.New("bad")}
		if _, err := r.cache.Acquire(r.Context(), "a", "base"); reasonOf(err) != ReasonBadFormat {
			r.Errorf("error %v", err)
		}
		r.use("b", "base")
		if _, err := r.cache.Acquire(r.Context(), "a", "base"); reasonOf(err) != ReasonBadFormat {
			r.Errorf("error %v", err)
		}
		r.wantLog("load b/model.gguf")
		time.Sleep(brokenFor)
		delete(r.fake.fail, "a/model.gguf") // the library was at fault
		r.use("a", "base")
	})
}

// Models without a file have the same state, which is none; and what is wrong with model.yaml is no state of the weights.
func TestEachBrokenModelHasItsOwnWords(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		place(r.T, r.dir, "x/model.yaml", []byte("file: x.gguf\n"))
		place(r.T, r.dir, "y/model.yaml", []byte("file: y.gguf\n"))
		place(r.T, r.dir, "a/model.yaml", []byte("nonsense: 1\n"))
		look := func(after time.Duration) { refresh(r.T, r.reg, time.Now().Add(after)) }
		look(0)
		look(time.Hour)
		for model, want := range map[string]string{"x": "x.gguf is missing", "y": "y.gguf is missing", "a": "nonsense"} {
			_, err := r.cache.Acquire(r.Context(), model, "base")
			if le, _ := errors.AsType[*LoadError](err); le == nil || le.What != model+"@base" || !strings.Contains(le.Public, want) {
				r.Errorf("%s: %+v", model, le)
			}
		}
		place(r.T, r.dir, "a/model.yaml", []byte("description: mended\n"))
		look(2 * time.Hour)
		look(3 * time.Hour)
		r.use("a", "base")
	})
}

func TestABackendThatHangsKeepsItsPlaceOnly(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.fake.deaf = true
		open := r.fake.gate("a/model.gguf")
		if _, err := r.cache.Acquire(r.Context(), "a", "base"); reasonOf(err) != ReasonTimeout {
			r.Errorf("error %v", err)
		}
		r.use("b", "base")
		open() // it comes back after all
		synctest.Wait()
		if e := r.cache.Entries(); len(e) != 1 || e[0].Model != "b" {
			r.Errorf("entries %+v", e)
		}
	})
}
