package inflight

import (
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
)

// While a dead engine's memory isn't freed yet, an accepted answer waits; it continues afterwards.
func TestReplaysWaitForMemoryAfterACrash(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		table.lose(f)
		f = table.attach(LastExit{Kind: ExitSignal, Signal: 9})
		for i := range 6 {
			table.refuseForMemory(f, table.nextSubmission(f, i, 11*time.Second))
			table.wantAnswer(a, map[bool]string{true: "a"}[i == 0], "", false)
		}
		fresh := table.admit(nil) // it waits behind the other, since memory may become free
		s = table.nextSubmission(f, 6, 11*time.Second)
		if len(s.Generated) != 1 || s.Attempt != 7 {
			t.Errorf("sent again as attempt %d with %d tokens", s.Attempt, len(s.Generated))
		}
		table.serve(f, s, 3)
		table.wantAnswer(a, "bc", "", true)
		a.Settle(Delivered)
		table.serve(f, table.nextSubmission(f, 7, time.Second), 1)
		table.wantAnswer(fresh, "a", "", true)
		fresh.Settle(Delivered)
		table.wantMetric(1, "llm_requests_replayed_total", "result=resumed")
		table.wantMetric(0, "failed_inferences_total")
	})
}

func TestMemoryThatNeverComesBackEndsTheWait(t *testing.T) {
	inBubble(t, Options{ReplayWait: 30 * time.Second}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.sendAccepted(f, f.last(t))
		table.lose(f)
		f = table.attach(LastExit{Kind: ExitSignal, Signal: 9})
		fresh := table.admit(nil)
		start, n := time.Now(), 0
		for freshOver := false; ; time.Sleep(50 * time.Millisecond) { // fake time
			synctest.Wait()
			for ; n < table.sentCount(f); n++ {
				table.refuseForMemory(f, f.infers[n])
			}
			took := time.Since(start)
			if !freshOver && took > 10*time.Second {
				freshOver = took < 11*time.Second
				p := table.wantAnswer(fresh, "", api.TypeOutOfMemory, true)
				if p.Err != nil && p.Err.RetryAfterSeconds() == 0 {
					t.Error("no word of when to try again")
				}
				fresh.Settle(Failed)
			}
			if took > 30500*time.Millisecond {
				break
			}
		}
		table.wantAnswer(a, "", api.TypeOutOfMemory, true)
		a.Settle(Failed)
		if n > 20 {
			t.Errorf("%d attempts in 30 s", n)
		}
	})
}

// Without a restart something else uses the memory, and the client can decide better than the proxy what to do
// meanwhile.
func TestOutOfMemoryIsAnsweredAtOnceWithoutARestart(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		time.Sleep(time.Minute)
		a := table.admit(nil)
		table.refuseForMemory(f, f.last(t))
		p := table.wantAnswer(a, "", api.TypeOutOfMemory, true)
		if p.Err == nil || p.Err.RetryAfterSeconds() == 0 {
			t.Errorf("error %+v", p.Err)
		}
		a.Settle(Failed)
		table.wantMetric(1, "llm_requests_rejected_total", "reason=out_of_memory")
	})
}

// Requests that wait for memory don't hold up requests for what is loaded.
func TestMemoryShortageIsPerVersion(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		of := func(version string) func(*Request) { return func(r *Request) { r.Infer.Version = version } }
		a := table.admit(of("v2.0"))
		table.sendAccepted(f, f.last(t))
		table.lose(f)
		f = table.attach(LastExit{Kind: ExitSignal, Signal: 9})
		table.refuseForMemory(f, f.last(t))
		other := table.admit(of("v1.0"))
		if s := f.last(t); s.Version != "v1.0" {
			t.Fatalf("the newest request is for %s", s.Version)
		}
		table.serve(f, f.last(t), 1)
		table.wantAnswer(other, "a", "", true)
		other.Settle(Delivered)
		table.serve(f, table.nextSubmission(f, 2, time.Second), 1)
		table.wantAnswer(a, "a", "", true)
		a.Settle(Delivered)
		time.Sleep(time.Second)
		table.mu.Lock()
		defer table.mu.Unlock()
		if len(table.memoryShortages) != 0 {
			t.Errorf("shortages left: %v", table.memoryShortages)
		}
	})
}

// A request that waited for memory ends with out_of_memory: no engine crashed under it, however old it is.
func TestWaitForMemoryEndsWithOutOfMemory(t *testing.T) {
	inBubble(t, Options{EngineWait: 10 * time.Second, ReplayWait: 5 * time.Second}, func(t *testing.T, table *tableTest) {
		table.lose(table.attach(LastExit{}))
		f := table.attach(LastExit{Kind: ExitSignal, Signal: 9})
		a := table.admit(nil)
		start, n := time.Now(), 0
		for time.Since(start) < 9*time.Second {
			for ; n < table.sentCount(f); n++ {
				table.refuseForMemory(f, f.infers[n])
			}
			table.wantAnswer(a, "", "", false)
			time.Sleep(50 * time.Millisecond) // fake time
			synctest.Wait()
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		table.wantAnswer(a, "", api.TypeOutOfMemory, true)
		a.Settle(Failed)
	})
}

// That one engine refused a load isn't why no other engine comes.
func TestMemoryErrorIsForgottenWithItsEngine(t *testing.T) {
	inBubble(t, Options{ReplayWait: 5 * time.Second}, func(t *testing.T, table *tableTest) {
		table.lose(table.attach(LastExit{}))
		f := table.attach(LastExit{Kind: ExitSignal, Signal: 9})
		a := table.admit(nil)
		table.refuseForMemory(f, f.last(t))
		table.nextSubmission(f, 1, time.Second)
		table.lose(f) // with the second attempt
		table.wantErrorAfter(a, 5*time.Second, api.TypeEngineCrashed)
	})
}

// Steady traffic doesn't prolong a shortage: after ENGINE_WAIT new requests are refused at once again.
func TestTrafficDoesNotProlongAMemoryShortage(t *testing.T) {
	inBubble(t, Options{EngineWait: 10 * time.Second}, func(t *testing.T, table *tableTest) {
		table.lose(table.attach(LastExit{}))
		f := table.attach(LastExit{Kind: ExitSignal, Signal: 9})
		start, n := time.Now(), 0
		began := make(map[Answer]time.Time)
		for time.Since(start) < 30*time.Second {
			began[table.admit(nil)] = time.Now()
			for range 5 {
				synctest.Wait()
				for ; n < table.sentCount(f); n++ {
					table.refuseForMemory(f, f.infers[n])
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

// An accepted request has its model, whatever refusal comes late.
func TestAcceptedRequestEndsTheMemoryShortage(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		table.lose(table.attach(LastExit{}))
		f := table.attach(LastExit{Kind: ExitSignal, Signal: 9})
		a := table.admit(nil)
		table.refuseForMemory(f, f.last(t))
		s := table.nextSubmission(f, 1, time.Second)
		table.sendAccepted(f, s)
		table.mu.Lock()
		left := len(table.memoryShortages)
		table.mu.Unlock()
		if left != 0 {
			t.Errorf("%d shortages", left)
		}
		table.sendToken(f, s, 0)
		table.sendStop(f, s, 1)
		table.wantAnswer(a, "a", "", true)
		a.Settle(Delivered)
	})
}
