package limit

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Rate{
		"5/minute": {5, time.Minute}, "1/second": {1, time.Second}, "1000000/hour": {MaxRequests, time.Hour}, "7/day": {7, 24 * time.Hour},
		" 5/minute\n": {5, time.Minute}, "0": {}, "off": {}, "OFF": {},
	} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
		if again, err := Parse(got.String()); err != nil || again != want {
			t.Errorf("%q is written as %q, which reads as %v, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "5", "/minute", "5/", "0/minute", "-1/minute", "1.5/second", "1000001/day", "5/week", "5 / minute", "5/minutes", "99999999999999999999/day"} {
		if got, err := Parse(s); err == nil || !strings.Contains(err.Error(), "off") || got != (Rate{}) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

var start = time.Unix(1_700_000_000, 0)

// Requests whose callers read the clock earlier than others did give nothing back.
func TestSkewedClocks(t *testing.T) {
	l, rate := New(10, start), Rate{100, time.Second}
	at := start.Add(time.Minute)
	allowed := allowedOf(l, "key", rate, at, 100)
	for i := range 500 {
		allowed += allowedOf(l, "key", rate, at.Add(-time.Duration(i)*time.Millisecond), 1) + allowedOf(l, "key", rate, at, 1)
	}
	if allowed != 100 {
		t.Errorf("%d passed", allowed)
	}
}

func TestOffNeverLimits(t *testing.T) {
	l := New(10, start)
	for range 1000 {
		if d := l.Allow("key", Rate{}, start); !d.Allowed || len(maps.Collect(d.Headers(true))) != 0 {
			t.Fatalf("%+v", d)
		}
	}
	if l.Len() != 0 {
		t.Error("an id without a limit is tracked")
	}
}

func TestIDsAreCountedApart(t *testing.T) {
	l, rate := New(50*shards, start), Rate{1, time.Minute} // room for all in any shard
	for i := range 50 {
		if !l.Allow(fmt.Sprint("key", i), rate, start).Allowed || l.Allow(fmt.Sprint("key", i), rate, start).Allowed {
			t.Fatalf("key%d", i)
		}
	}
}

// allowedOf counts how many of n requests at one time pass.
func allowedOf(l *Limiter, id string, rate Rate, at time.Time, n int) (allowed int) {
	for range n {
		if l.Allow(id, rate, at).Allowed {
			allowed++
		}
	}
	return allowed
}

func TestEveryRateHasItsBurst(t *testing.T) {
	for _, rate := range []Rate{{1, time.Second}, {3, time.Second}, {7, time.Minute}, {1000, time.Hour}, {10_007, 24 * time.Hour}, {20_000, time.Second}} {
		l := New(10, start)
		if got := allowedOf(l, "key", rate, start, rate.Requests+5); got != rate.Requests {
			t.Errorf("%v: %d of a burst pass", rate, got)
		}
		if got := allowedOf(l, "key", rate, start.Add(rate.Unit), rate.Requests+5); got != rate.Requests {
			t.Errorf("%v: %d pass after one unit", rate, got)
		}
	}
}

// Of 4N requests that come at once on many goroutines exactly N pass, whether the id is known or not.
func TestSimultaneousRequests(t *testing.T) {
	const n = 50
	l, rate := New(1000, start), Rate{n, time.Minute}
	for round := range 20 {
		id := fmt.Sprint("key", round/2) // every second round finds the bucket there
		at := start.Add(time.Duration(round) * time.Hour)
		var allowed atomic.Int64
		var ready, done sync.WaitGroup
		gun := make(chan struct{})
		for range 4 * n {
			ready.Add(1)
			done.Go(func() {
				ready.Done()
				<-gun
				if l.Allow(id, rate, at).Allowed {
					allowed.Add(1)
				}
			})
		}
		ready.Wait()
		close(gun)
		done.Wait()
		if allowed.Load() != n {
			t.Fatalf("round %d: %d of %d passed, want %d", round, allowed.Load(), 4*n, n)
		}
	}
}

func TestANewRateAppliesToWhatTheOldOneLeft(t *testing.T) {
	l := New(10, start)
	slow, fast := Rate{2, 24 * time.Hour}, Rate{10, time.Second}
	allowedOf(l, "key", slow, start, 3)
	if got := allowedOf(l, "key", fast, start, 20); got != 0 {
		t.Errorf("a used up key got %d at once by a new rate", got)
	}
	if got := allowedOf(l, "key", fast, start.Add(time.Second), 20); got != 10 {
		t.Errorf("a day's debt was kept: %d passed after the new rate's unit", got)
	}
	allowedOf(l, "half", fast, start, 5)
	if got := allowedOf(l, "half", Rate{20, time.Second}, start, 40); got != 10 {
		t.Errorf("half used of 10 leaves %d of 20", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const ids = 1000
	l, rate := New(ids, start), Rate{2, time.Minute}
	allowed := 0
	for i := range 20 * ids {
		if l.Allow(fmt.Sprint("flood", i), rate, start).Allowed {
			allowed++
		}
	}
	if l.Len() > ids+shards {
		t.Errorf("%d ids tracked", l.Len())
	}
	// Ids without room share buckets: that is strict, and it must not be a way around the limit.
	if most := l.Len() + shards*rate.Requests; allowed > most {
		t.Errorf("%d passed, want at most %d", allowed, most)
	}
}

func TestOnlyFullBucketsAreForgotten(t *testing.T) {
	l, rate := New(shards, start), Rate{1, time.Minute} // room for one id a shard
	used := make([]string, 0, shards)
	for i := 0; l.Len() < shards; i++ {
		id := fmt.Sprint("id", i)
		before := l.Len()
		l.Allow(id, rate, start)
		if l.Len() > before {
			used = append(used, id)
		}
	}
	half := start.Add(30 * time.Second)
	for i := range 1000 {
		l.Allow(fmt.Sprint("new", i), rate, half)
	}
	for _, id := range used {
		if l.Allow(id, rate, half).Allowed {
			t.Errorf("%s was forgotten with a debt", id)
		}
	}
	later := start.Add(2 * time.Minute)
	passed := 0
	for i := range 200 {
		if l.Allow(fmt.Sprint("later", i), rate, later).Allowed {
			passed++
		}
	}
	if passed < shards || l.Len() > shards {
		t.Errorf("%d new ids passed after the old ones were full, %d tracked", passed, l.Len())
	}
}

// One id keeps to its rate while others come and are forgotten around it.
func TestSweepsAndRequestsTogether(t *testing.T) {
	const seconds = 60
	l, rate := New(64, start), Rate{1, time.Second}
	var allowed atomic.Int64
	for second := range seconds {
		at := start.Add(time.Duration(second) * time.Second)
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
	l, rate := New(10, start), Rate{1, time.Minute}
	buffer := []byte("key-a")
	l.Allow(unsafe.String(&buffer[0], len(buffer)), rate, start)
	copy(buffer, "key-b")
	if l.Allow("key-a", rate, start).Allowed || !l.Allow("key-b", rate, start).Allowed {
		t.Error("the id changed with the caller's buffer")
	}
}

func TestHeaders(t *testing.T) {
	f := func(d Decision, ietf bool, want string) {
		t.Helper()
		var got []string
		for name, value := range d.Headers(ietf) {
			got = append(got, name+": "+value)
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
		}
	}
	rate := Rate{5, time.Minute}
	f(Decision{Allowed: true, Rate: rate, Remaining: 4, ResetAfter: 12 * time.Second}, false,
		"X-Ratelimit-Limit-Requests: 5\nX-Ratelimit-Remaining-Requests: 4\nX-Ratelimit-Reset-Requests: 12s")
	f(Decision{Rate: rate, ResetAfter: 59*time.Second + 1, RetryAfter: 11001 * time.Millisecond}, true,
		"X-Ratelimit-Limit-Requests: 5\nX-Ratelimit-Remaining-Requests: 0\nX-Ratelimit-Reset-Requests: 59.001s\nRetry-After: 12\n"+
			"RateLimit-Policy: \"default\";q=5;w=60\nRateLimit: \"default\";r=0;t=60")
	for range (Decision{Rate: rate}).Headers(true) {
		break // stopping early is allowed
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 1: "1ms", 12 * time.Millisecond: "12ms", 6 * time.Minute: "6m0s", -time.Second: "0s"} {
		if got := FormatReset(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
	for d, want := range map[time.Duration]int{0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90, -time.Second: 1} {
		if got := RetrySeconds(d); got != want {
			t.Errorf("%v: %d", d, got)
		}
	}
}

func BenchmarkAllow(b *testing.B) {
	l, rate := New(10_000, start), Rate{MaxRequests, time.Second}
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprint("key", i)
		l.Allow(ids[i], rate, start)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			l.Allow(ids[i%len(ids)], rate, start)
		}
	})
}
