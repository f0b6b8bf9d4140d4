package inflight

import (
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
)

// refuse answers a submission as an engine does that has no memory for the model.
func (b *bench) refuse(f *fakeEngine, s *Submission) {
	b.Event(f, ModelEvent{Kind: EventLoadFailed, Model: s.Model, Version: s.Version, Reason: "out_of_memory"})
	b.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishError,
		Failure: Failure{Code: "out_of_memory", Text: "demo@v1.0 can't be loaded: out_of_memory", Retryable: true}}}})
}

// sent is how many submissions the engine got; the table's own goroutine may send some.
func (b *bench) sent(f *fakeEngine) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(f.infers)
}

// next waits until the engine gets one more submission than n, for so long at most.
func (b *bench) next(f *fakeEngine, n int, most time.Duration) *Submission {
	b.t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) { // fake time
		synctest.Wait()
		if b.sent(f) > n {
			return f.infers[n]
		}
		if time.Since(start) > most {
			b.t.Fatalf("nothing was sent within %v", most)
		}
	}
}

// A dead engine's memory isn't returned yet: the accepted answer goes on when it is.
func TestAcceptedRequestsWaitForMemoryAfterADeath(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		s := f.last(t)
		b.accept(f, s)
		b.token(f, s, 0)
		b.lose(f)
		f = b.attach(LastExit{Kind: ExitSignal, Signal: 9})
		for i := range 6 {
			b.refuse(f, b.next(f, i, 11*time.Second))
			b.want(a, map[bool]string{true: "a"}[i == 0], "", false)
		}
		fresh := b.admit(nil) // it waits behind the other, since memory may come back
		s = b.next(f, 6, 11*time.Second)
		if len(s.Generated) != 1 || s.Attempt != 7 {
			t.Errorf("sent again as attempt %d with %d tokens", s.Attempt, len(s.Generated))
		}
		b.serve(f, s, 3)
		b.want(a, "bc", "", true)
		a.Settle(Delivered)
		b.serve(f, b.next(f, 7, time.Second), 1)
		b.want(fresh, "a", "", true)
		fresh.Settle(Delivered)
		b.wantValue(1, "llm_requests_replayed_total", "result=resumed")
		b.wantValue(0, "failed_inferences_total")
	})
}

func TestMemoryThatNeverComesBackEndsTheWait(t *testing.T) {
	inBubble(t, Options{ReplayWait: 30 * time.Second}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		b.accept(f, f.last(t))
		b.lose(f)
		f = b.attach(LastExit{Kind: ExitSignal, Signal: 9})
		fresh := b.admit(nil)
		start, n := time.Now(), 0
		for freshOver := false; ; time.Sleep(50 * time.Millisecond) { // fake time
			synctest.Wait()
			for ; n < b.sent(f); n++ {
				b.refuse(f, f.infers[n])
			}
			took := time.Since(start)
			if !freshOver && took > 10*time.Second {
				freshOver = took < 11*time.Second
				p := b.want(fresh, "", api.TypeOutOfMemory, true)
				if p.Err != nil && p.Err.RetryAfterSeconds() == 0 {
					t.Error("no word of when to try again")
				}
				fresh.Settle(Failed)
			}
			if took > 30500*time.Millisecond {
				break
			}
		}
		b.want(a, "", api.TypeOutOfMemory, true)
		a.Settle(Failed)
		if n > 20 {
			t.Errorf("%d attempts in 30 s", n)
		}
	})
}

// Without a restart somebody else has the memory, and a client can decide better than we what to do meanwhile.
func TestNewRequestsAreRefusedAtOnceForMemory(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		time.Sleep(time.Minute)
		a := b.admit(nil)
		b.refuse(f, f.last(t))
		p := b.want(a, "", api.TypeOutOfMemory, true)
		if p.Err == nil || p.Err.RetryAfterSeconds() == 0 {
			t.Errorf("error %+v", p.Err)
		}
		a.Settle(Failed)
		b.wantValue(1, "llm_requests_rejected_total", "reason=out_of_memory")
	})
}

// What waits for memory holds up nobody who asks for what is loaded.
func TestShortageIsOfOneVersion(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		of := func(version string) func(*Request) { return func(r *Request) { r.Infer.Version = version } }
		a := b.admit(of("v2.0"))
		b.accept(f, f.last(t))
		b.lose(f)
		f = b.attach(LastExit{Kind: ExitSignal, Signal: 9})
		b.refuse(f, f.last(t))
		other := b.admit(of("v1.0"))
		if s := f.last(t); s.Version != "v1.0" {
			t.Fatalf("the newest request is for %s", s.Version)
		}
		b.serve(f, f.last(t), 1)
		b.want(other, "a", "", true)
		other.Settle(Delivered)
		b.serve(f, b.next(f, 2, time.Second), 1)
		b.want(a, "a", "", true)
		a.Settle(Delivered)
		time.Sleep(time.Second)
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.short) != 0 {
			t.Errorf("shortages left: %v", b.short)
		}
	})
}

// A request that waited for memory was at no engine that crashed, however old it is.
func TestRequestsHeldBackForMemoryEndForWantOfMemory(t *testing.T) {
	inBubble(t, Options{EngineWait: 10 * time.Second, ReplayWait: 5 * time.Second}, func(t *testing.T, b *bench) {
		b.lose(b.attach(LastExit{}))
		f := b.attach(LastExit{Kind: ExitSignal, Signal: 9})
		a := b.admit(nil)
		start, n := time.Now(), 0
		for time.Since(start) < 9*time.Second {
			for ; n < b.sent(f); n++ {
				b.refuse(f, f.infers[n])
			}
			b.want(a, "", "", false)
			time.Sleep(50 * time.Millisecond) // fake time
			synctest.Wait()
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		b.want(a, "", api.TypeOutOfMemory, true)
		a.Settle(Failed)
	})
}

// What one engine refused says nothing about why no other one comes.
func TestARefusalIsForgottenWithItsEngine(t *testing.T) {
	inBubble(t, Options{ReplayWait: 5 * time.Second}, func(t *testing.T, b *bench) {
		b.lose(b.attach(LastExit{}))
		f := b.attach(LastExit{Kind: ExitSignal, Signal: 9})
		a := b.admit(nil)
		b.refuse(f, f.last(t))
		b.next(f, 1, time.Second)
		b.lose(f) // with the second attempt
		b.endsAfter(a, 5*time.Second, api.TypeEngineCrashed)
	})
}

// Steady traffic doesn't make a shortage last: after ENGINE_WAIT new requests are refused at once again.
func TestTrafficDoesNotKeepAShortageAlive(t *testing.T) {
	inBubble(t, Options{EngineWait: 10 * time.Second}, func(t *testing.T, b *bench) {
		b.lose(b.attach(LastExit{}))
		f := b.attach(LastExit{Kind: ExitSignal, Signal: 9})
		start, n := time.Now(), 0
		began := make(map[Answer]time.Time)
		for time.Since(start) < 30*time.Second {
			began[b.admit(nil)] = time.Now()
			for range 5 {
				synctest.Wait()
				for ; n < b.sent(f); n++ {
					b.refuse(f, f.infers[n])
				}
				for a, since := range began {
					if !a.Take(nil).Done {
						continue
					}
					if took := time.Since(since); since.Sub(start) > 12*time.Second && took > 6*time.Second {
						t.Errorf("one that came after %v was refused after %v", since.Sub(start), took)
					}
					a.Settle(Failed)
					delete(began, a)
				}
				time.Sleep(100 * time.Millisecond) // fake time
			}
		}
		time.Sleep(11 * time.Second)
		for a := range began {
			a.Settle(Failed)
		}
	})
}

// Whoever was accepted has the model, whatever was refused late.
func TestAnAcceptedRequestEndsTheShortage(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		b.lose(b.attach(LastExit{}))
		f := b.attach(LastExit{Kind: ExitSignal, Signal: 9})
		a := b.admit(nil)
		b.refuse(f, f.last(t))
		s := b.next(f, 1, time.Second)
		b.accept(f, s)
		b.mu.Lock()
		left := len(b.short)
		b.mu.Unlock()
		if left != 0 {
			t.Errorf("%d shortages", left)
		}
		b.token(f, s, 0)
		b.stop(f, s, 1)
		b.want(a, "a", "", true)
		a.Settle(Delivered)
	})
}
