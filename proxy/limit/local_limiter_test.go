package limit

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

var startTime = time.Unix(1_700_000_000, 0)

// Requests whose callers read the clock earlier than others don't get time back.
func TestSkewedClocks(t *testing.T) {
	l, rate := NewLocal(10, startTime), Rate{100, time.Second}
	at := startTime.Add(time.Minute)
	allowed := countAllowed(l, "key", rate, at, 100)
	for i := range 500 {
		allowed += countAllowed(l, "key", rate, at.Add(-time.Duration(i)*time.Millisecond), 1) + countAllowed(l, "key", rate, at, 1)
	}
	if allowed != 100 {
		t.Errorf("%d passed", allowed)
	}
}

func TestOffNeverLimits(t *testing.T) {
	l := NewLocal(10, startTime)
	for range 1000 {
		if d := l.Allow("key", Rate{}, startTime); !d.Allowed || len(maps.Collect(d.Headers(true))) != 0 {
			t.Fatalf("%+v", d)
		}
	}
	if l.Len() != 0 {
		t.Error("an id without a limit is tracked")
	}
}

func TestIDsAreCountedApart(t *testing.T) {
	l, rate := NewLocal(50*shardCount, startTime), Rate{1, time.Minute} // room for all in any shard
	for i := range 50 {
		if !l.Allow(fmt.Sprint("key", i), rate, startTime).Allowed || l.Allow(fmt.Sprint("key", i), rate, startTime).Allowed {
			t.Fatalf("key%d", i)
		}
	}
}

// countAllowed counts how many of n requests at one time are allowed.
func countAllowed(l *LocalLimiter, id string, rate Rate, at time.Time, n int) (allowed int) {
	for range n {
		if l.Allow(id, rate, at).Allowed {
			allowed++
		}
	}
	return allowed
}

func TestEveryRateHasItsBurst(t *testing.T) {
	for _, rate := range []Rate{{1, time.Second}, {3, time.Second}, {7, time.Minute}, {1000, time.Hour}, {10_007, 24 * time.Hour}, {20_000, time.Second}} {
		l := NewLocal(10, startTime)
		if got := countAllowed(l, "key", rate, startTime, rate.Requests+5); got != rate.Requests {
			t.Errorf("%v: %d of a burst pass", rate, got)
		}
		if got := countAllowed(l, "key", rate, startTime.Add(rate.Unit), rate.Requests+5); got != rate.Requests {
			t.Errorf("%v: %d pass after one unit", rate, got)
		}
	}
}

// Of 4N requests that come at once on many goroutines exactly N pass, whether the id is known or not.
func TestSimultaneousRequests(t *testing.T) {
	const n = 50
	l, rate := NewLocal(1000, startTime), Rate{n, time.Minute}
	for round := range 20 {
		id := fmt.Sprint("key", round/2) // every second round finds the bucket there
		at := startTime.Add(time.Duration(round) * time.Hour)
		var allowed atomic.Int64
		var ready, done sync.WaitGroup
		start := make(chan struct{})
		for range 4 * n {
			ready.Add(1)
			done.Go(func() {
				ready.Done()
				<-start
				if l.Allow(id, rate, at).Allowed {
					allowed.Add(1)
				}
			})
		}
		ready.Wait()
		close(start)
		done.Wait()
		if allowed.Load() != n {
			t.Fatalf("round %d: %d of %d passed, want %d", round, allowed.Load(), 4*n, n)
		}
	}
}

func TestANewRateAppliesToWhatTheOldOneLeft(t *testing.T) {
	l := NewLocal(10, startTime)
	slow, fast := Rate{2, 24 * time.Hour}, Rate{10, time.Second}
	countAllowed(l, "key", slow, startTime, 3)
	if got := countAllowed(l, "key", fast, startTime, 20); got != 0 {
		t.Errorf("a used up key got %d at once by a new rate", got)
	}
	if got := countAllowed(l, "key", fast, startTime.Add(time.Second), 20); got != 10 {
		t.Errorf("a day's debt was kept: %d passed after the new rate's unit", got)
	}
	countAllowed(l, "half", fast, startTime, 5)
	if got := countAllowed(l, "half", Rate{20, time.Second}, startTime, 40); got != 10 {
		t.Errorf("half used of 10 leaves %d of 20", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const ids = 1000
	l, rate := NewLocal(ids, startTime), Rate{2, time.Minute}
	allowed := 0
	for i := range 20 * ids {
		if l.Allow(fmt.Sprint("flood", i), rate, startTime).Allowed {
			allowed++
		}
	}
	if l.Len() > ids+shardCount {
		t.Errorf("%d ids tracked", l.Len())
	}
	// Ids without room share buckets: that is strict, and it must not be a way around the limit.
	if most := l.Len() + shardCount*rate.Requests; allowed > most {
		t.Errorf("%d passed, want at most %d", allowed, most)
	}
}

func TestOnlyFullBucketsAreForgotten(t *testing.T) {
	l, rate := NewLocal(shardCount, startTime), Rate{1, time.Minute} // room for one id a shard
	used := make([]string, 0, shardCount)
	for i := 0; l.Len() < shardCount; i++ {
		id := fmt.Sprint("id", i)
		before := l.Len()
		l.Allow(id, rate, startTime)
		if l.Len() > before {
			used = append(used, id)
		}
	}
	half := startTime.Add(30 * time.Second)
	for i := range 1000 {
		l.Allow(fmt.Sprint("new", i), rate, half)
	}
	for _, id := range used {
		if l.Allow(id, rate, half).Allowed {
			t.Errorf("%s was forgotten with a debt", id)
		}
	}
	later := startTime.Add(2 * time.Minute)
	passed := 0
	for i := range 200 {
		if l.Allow(fmt.Sprint("later", i), rate, later).Allowed {
			passed++
		}
	}
	if passed < shardCount || l.Len() > shardCount {
		t.Errorf("%d new ids passed after the old ones were full, %d tracked", passed, l.Len())
	}
}

// One id keeps to its rate while others come and are forgotten around it.
func TestSweepsAndRequestsTogether(t *testing.T) {
	const seconds = 60
	l, rate := NewLocal(64, startTime), Rate{1, time.Second}
	var allowed atomic.Int64
	for second := range seconds {
		at := startTime.Add(time.Duration(second) * time.Second)
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 20 {
					l.Allow(fmt.Sprint(second, "-", g, "-", i), rate, at)
					if l.Allow("steady", rate, at).Allowed {
						allowed.Add(1)
					}
				}
			})
		}
		wg.Wait()
	}
	if got := allowed.Load(); got < 1 || got > seconds {
		t.Errorf("%d passed in %d s at one a second", got, seconds)
	}
}

func TestAllowKeepsNothingOfTheID(t *testing.T) {
	l, rate := NewLocal(10, startTime), Rate{1, time.Minute}
	buffer := []byte("key-a")
	l.Allow(unsafe.String(&buffer[0], len(buffer)), rate, startTime)
	copy(buffer, "key-b")
	if l.Allow("key-a", rate, startTime).Allowed || !l.Allow("key-b", rate, startTime).Allowed {
		t.Error("the id changed with the caller's buffer")
	}
}

func TestRefund(t *testing.T) {
	rate := Rate{3, time.Minute} // one comes back each 20 s
	l := NewLocal(10, startTime)
	l.Allow("key", rate, startTime)
	d := l.Allow("key", rate, startTime)
	for range 5 {
		l.Refund("key", d, startTime)
	}
	passed := 0
	for range 10 {
		if l.Allow("key", rate, startTime).Allowed {
			passed++
		}
	}
	if passed != 3 {
		t.Errorf("%d passed after too many refunds, want the burst of 3", passed)
	}
	if got := l.Refund("nobody", d, startTime); got.Remaining != 3 || l.Len() != 1 {
		t.Errorf("a refund to an unknown id: %+v, %d tracked", got, l.Len())
	}
	if got := l.Refund("key", Decision{Allowed: true}, startTime); !got.Allowed {
		t.Errorf("without a limit: %+v", got)
	}
}

func BenchmarkAllow(b *testing.B) {
	l, rate := NewLocal(10_000, startTime), Rate{MaxRequests, time.Second}
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprint("key", i)
		l.Allow(ids[i], rate, startTime)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			l.Allow(ids[i%len(ids)], rate, startTime)
		}
	})
}
