package limit

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"tandem/scripts/redis"
)

// limiterTest is one implementation of the rate limit, and its clock.
type limiterTest struct {
	limiter interface {
		Allow(id string, rate Rate, now time.Time) Decision
		AllowN(id string, rate Rate, n int, now time.Time) Decision
		Refund(id string, d Decision, now time.Time) Decision
		Correct(id string, d Decision, n int, now time.Time) Decision
	}
	otherProcess interface { // another process that counts in the same place
		Allow(id string, rate Rate, now time.Time) Decision
	}
	setClock func(at time.Duration) time.Time // sets the clock to so long after startTime
	shared   bool
	slack    time.Duration // by which times may be too short, where the clock can't be stopped
}

// forEachLimiter runs a test with every implementation.
func forEachLimiter(t *testing.T, test func(t *testing.T, c limiterTest)) {
	t.Run("memory", func(t *testing.T) {
		l := NewLocal(1000, startTime)
		test(t, limiterTest{limiter: l, otherProcess: l, setClock: startTime.Add})
	})
	t.Run("miniredis", func(t *testing.T) {
		m := miniredis.RunT(t)
		last := time.Duration(0)
		test(t, limiterTest{shared: true, limiter: openShared(t, "redis://"+m.Addr()), otherProcess: openShared(t, "redis://"+m.Addr()), setClock: func(at time.Duration) time.Time {
			m.SetTime(startTime.Add(at))
			m.FastForward(at - last)
			last = at
			return startTime.Add(at)
		}})
	})
	t.Run("redis-server", func(t *testing.T) {
		r := redis.Start(t)
		one := openShared(t, r.URL())
		last := time.Duration(0)
		test(t, limiterTest{shared: true, slack: 8 * time.Second, limiter: one, otherProcess: openShared(t, r.URL()), setClock: func(at time.Duration) time.Time {
			ageStore(t, one, at-last)
			last = at
			return startTime.Add(at)
		}})
	})
}

// openShared opens a SharedLimiter whose store must not fail.
func openShared(t testing.TB, url string) *SharedLimiter {
	t.Helper()
	var log bytes.Buffer
	s, err := OpenShared(t.Context(), NewLocal(1000, startTime), SharedLimiterOptions{URL: url, Timeout: 5 * time.Second, Up: func(bool) {}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if strings.Contains(log.String(), "WARN") {
			t.Errorf("the store was away:\n%s", log.String())
		}
	})
	return s
}

// ageStore makes everything in a real store older, which replaces waiting.
func ageStore(t *testing.T, s *SharedLimiter, by time.Duration) {
	t.Helper()
	c := s.store.(*redisStore).client
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern(storeKeyPrefix+"*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		ttl, err1 := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64()
		value, err2 := c.Do(t.Context(), c.B().Get().Key(key).Build()).ToString()
		if err1 != nil || err2 != nil {
			continue // it went meanwhile
		}
		var needs, at int64
		if _, err := fmt.Sscan(value, &needs, &at); err != nil {
			t.Fatalf("%s holds %q: %v", key, value, err)
		}
		left := time.Duration(ttl)*time.Millisecond - by
		if left <= 0 {
			err = c.Do(t.Context(), c.B().Del().Key(key).Build()).Error()
		} else {
			err = c.Do(t.Context(), c.B().Set().Key(key).Value(fmt.Sprint(needs, " ", at-by.Microseconds())).Px(left).Build()).Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// same compares decisions, of which one may have been made a little later than the clock says.
func (c limiterTest) same(got, want Decision) bool {
	want.CountedInStore = c.shared && !want.Rate.Unlimited()
	for _, pair := range [][2]*time.Duration{{&got.ResetAfter, &want.ResetAfter}, {&got.RetryAfter, &want.RetryAfter}} {
		if late := *pair[1] - *pair[0]; late > 0 && late <= c.slack {
			*pair[0] = *pair[1]
		}
	}
	return got == want
}

func TestDecisions(t *testing.T) {
	rate := Rate{5, time.Hour} // one comes back each 12 minutes
	const refund = true
	steps := []struct {
		at        time.Duration
		refund    bool
		allowed   bool
		remaining int
		reset     time.Duration
		retry     time.Duration
	}{
		{0, false, true, 4, 12 * time.Minute, 0},
		{0, false, true, 3, 24 * time.Minute, 0},
		{0, false, true, 2, 36 * time.Minute, 0},
		{0, false, true, 1, 48 * time.Minute, 0},
		{0, false, true, 0, 60 * time.Minute, 0},
		{0, false, false, 0, 60 * time.Minute, 12 * time.Minute},
		// a denied request isn't counted
		{11*time.Minute + 50*time.Second, false, false, 0, 48*time.Minute + 10*time.Second, 10 * time.Second},
		{12 * time.Minute, false, true, 0, 60 * time.Minute, 0},
		{12 * time.Minute, false, false, 0, 60 * time.Minute, 12 * time.Minute},
		{36 * time.Minute, false, true, 1, 48 * time.Minute, 0},
		// rejected for lack of room: as if it had not been sent
		{36 * time.Minute, refund, true, 2, 36 * time.Minute, 0},
		{36 * time.Minute, false, true, 1, 48 * time.Minute, 0},
		{10 * time.Hour, false, true, 4, 12 * time.Minute, 0}, // never more than the burst
		{10 * time.Hour, refund, true, 5, 0, 0},
		{10 * time.Hour, refund, true, 5, 0, 0}, // never fuller than full
		{10 * time.Hour, false, true, 4, 12 * time.Minute, 0},
		{10*time.Hour + 6*time.Minute, refund, true, 5, 0, 0}, // half of it had come back already
		{10*time.Hour + 6*time.Minute, false, true, 4, 12 * time.Minute, 0},
	}
	forEachLimiter(t, func(t *testing.T, c limiterTest) {
		passed := Decision{Allowed: true, Rate: rate, CountedInStore: c.shared}
		for i, step := range steps {
			now := c.setClock(step.at)
			want := Decision{Allowed: step.allowed, Rate: rate, Remaining: step.remaining, ResetAfter: step.reset, RetryAfter: step.retry}
			got := Decision{}
			if step.refund {
				got = c.limiter.Refund("key:a", passed, now)
			} else {
				got = c.limiter.Allow("key:a", rate, now)
			}
			if !c.same(got, want) {
				t.Errorf("step %d, at %v: got %+v, want %+v", i, step.at, got, want)
			}
		}
		if got := c.limiter.Refund("key:nobody", passed, c.setClock(10*time.Hour)); !c.same(got, Decision{Allowed: true, Rate: rate, Remaining: 5}) {
			t.Errorf("a refund to an unknown id: %+v", got)
		}
		if got := c.limiter.Allow("key:a", Rate{}, c.setClock(10*time.Hour)); got != (Decision{Allowed: true}) {
			t.Errorf("without a limit: %+v", got)
		}
	})
}

// Tokens are counted many at once: what is expected, then what was taken more or less.
func TestDecisionsAboutSeveral(t *testing.T) {
	rate := Rate{1000, time.Hour} // one comes back each 3.6 s
	steps := []struct {
		at        time.Duration
		correct   bool
		n         int
		allowed   bool
		remaining int
		reset     time.Duration
		retry     time.Duration
	}{
		{0, false, 600, true, 400, 36 * time.Minute, 0},
		{0, false, 500, false, 400, 36 * time.Minute, 6 * time.Minute}, // all of them or none
		{0, false, 400, true, 0, 60 * time.Minute, 0},
		{30 * time.Minute, true, 200, true, 300, 42 * time.Minute, 0},  // it took more than was expected
		{30 * time.Minute, true, 5000, true, 0, 60 * time.Minute, 0},   // far more: empty, without debt
		{30 * time.Minute, true, -700, true, 700, 18 * time.Minute, 0}, // less
		{30 * time.Minute, true, -5000, true, 1000, 0, 0},
		{30 * time.Minute, false, 5000, true, 0, 60 * time.Minute, 0}, // more than the burst counts as the burst
		{30*time.Minute + 36*time.Second, false, 5000, false, 10, 59*time.Minute + 24*time.Second, 59*time.Minute + 24*time.Second},
	}
	forEachLimiter(t, func(t *testing.T, c limiterTest) {
		passed := Decision{Allowed: true, Rate: rate, CountedInStore: c.shared}
		for i, step := range steps {
			now := c.setClock(step.at)
			want := Decision{Allowed: step.allowed, Rate: rate, Remaining: step.remaining, ResetAfter: step.reset, RetryAfter: step.retry}
			got := Decision{}
			if step.correct {
				got = c.limiter.Correct("tokens:a", passed, step.n, now)
			} else {
				got = c.limiter.AllowN("tokens:a", rate, step.n, now)
			}
			if c.slack > 0 && got.Remaining-want.Remaining <= int(c.slack/rate.interval())+1 && got.Remaining >= want.Remaining {
				got.Remaining = want.Remaining // where the clock can't be stopped
			}
			if !c.same(got, want) {
				t.Errorf("step %d, at %v: got %+v, want %+v", i, step.at, got, want)
			}
		}
	})
}

func TestEveryLimiterHasTheWholeBurstAndNoMore(t *testing.T) {
	forEachLimiter(t, func(t *testing.T, c limiterTest) {
		at := time.Duration(0)
		for _, rate := range []Rate{{1, time.Hour}, {7, time.Hour}, {7, 24 * time.Hour}, {200, time.Hour}, {200, 24 * time.Hour}} {
			for range 3 { // fresh, then after one unit, then again
				now, passed := c.setClock(at), 0
				for range rate.Requests + 5 {
					if c.limiter.Allow("key:a", rate, now).Allowed {
						passed++
					}
				}
				if passed != rate.Requests {
					t.Errorf("%v: %d of a burst pass at %v", rate, passed, at)
				}
				at += rate.Unit
			}
			at += 48 * time.Hour
		}
	})
}

// Of 4N requests that come at once to two processes, exactly N pass.
func TestTwoProcessesAdmitTheLimitTogether(t *testing.T) {
	const n = 50
	forEachLimiter(t, func(t *testing.T, c limiterTest) {
		for round := range 5 {
			now := c.setClock(time.Duration(round) * 2 * time.Hour)
			rate, id := Rate{n, time.Hour}, fmt.Sprint("key:", round/2) // every second round knows the id
			var allowed atomic.Int64
			var ready, done sync.WaitGroup
			start := make(chan struct{})
			for i := range 4 * n {
				ready.Add(1)
				done.Go(func() {
					ready.Done()
					<-start
					process := c.otherProcess
					if i%2 == 0 {
						process = c.limiter
					}
					if process.Allow(id, rate, now).Allowed {
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
	})
}

// The fastest rates and the longest times are counted to the nanosecond.
func TestTheStoreCountsExactly(t *testing.T) {
	m := miniredis.RunT(t)
	s := openShared(t, "redis://"+m.Addr())
	l := NewLocal(100, startTime)
	for _, rate := range []Rate{{MaxRequests, time.Second}, {300_000, time.Second}, {7, time.Second}, {7, time.Minute}, {MaxRequests, 24 * time.Hour}, {1, 24 * time.Hour}, {86_399, 24 * time.Hour}} {
		id := "key:" + rate.String()
		at := time.Duration(0)
		for i := range 200 {
			at += time.Duration(math.Pow(1.09, float64(i))) * time.Microsecond / 3 * 3
			m.SetTime(startTime.Add(at))
			now := startTime.Add(at.Truncate(time.Microsecond)) // Redis's clock has microseconds
			got, want := s.Allow(id, rate, now), l.Allow(id, rate, now)
			want.CountedInStore = true
			if got != want {
				t.Fatalf("%v, step %d at %v: the store says %+v, memory %+v", rate, i, at, got, want)
			}
		}
	}
}

func TestWhatTheStoreHolds(t *testing.T) {
	m := miniredis.RunT(t)
	s := openShared(t, "redis://"+m.Addr())
	m.SetTime(startTime)
	minute := Rate{2, time.Minute}
	s.Allow("key:search", minute, startTime)
	s.Allow("ip:2a00:1450:1:2::/64", minute, startTime)
	const key = "tandem:limit:2/minute:key:search"
	if got := m.Keys(); !slices.Equal(got, []string{"tandem:limit:2/minute:ip:2a00:1450:1:2::/64", key, probeKey}) {
		t.Errorf("keys: %q", got)
	}
	if ttl := m.TTL(key); ttl != 30*time.Second {
		t.Errorf("a bucket that is full in 30 s is kept for %v", ttl)
	}
	s.Allow("key:search", minute, startTime)
	before, _ := m.Get(key)
	s.Allow("key:search", minute, startTime)
	if after, _ := m.Get(key); after != before || m.TTL(key) != time.Minute {
		t.Errorf("a refused request wrote: %q became %q, kept for %v", before, after, m.TTL(key))
	}
	if got := s.Allow("key:search", Rate{3, time.Minute}, startTime); !got.Allowed || got.Remaining != 2 {
		t.Errorf("a new rate doesn't start with its burst: %+v", got)
	}
}

// A store whose clock was set back lets buckets fill as before, and gives nothing away.
func TestTheStoresClockIsSetBack(t *testing.T) {
	m := miniredis.RunT(t)
	s := openShared(t, "redis://"+m.Addr())
	rate := Rate{2, time.Minute}
	m.SetTime(startTime)
	s.Allow("key:a", rate, startTime)
	s.Allow("key:a", rate, startTime)
	for i, c := range []struct {
		at      time.Duration
		allowed bool
	}{{-time.Hour, false}, {-time.Hour + 29*time.Second, false}, {-time.Hour + 30*time.Second, true}, {-time.Hour + 30*time.Second, false}} {
		m.SetTime(startTime.Add(c.at))
		if got := s.Allow("key:a", rate, startTime); got.Allowed != c.allowed {
			t.Errorf("step %d: %+v", i, got)
		}
	}
}

func TestRubbishInTheStoreIsAFullBucket(t *testing.T) {
	m := miniredis.RunT(t)
	s := openShared(t, "redis://"+m.Addr())
	m.Set("tandem:limit:2/minute:key:a", "rubbish")
	if got := s.Allow("key:a", Rate{2, time.Minute}, startTime); !got.Allowed || got.Remaining != 1 || !got.CountedInStore {
		t.Errorf("%+v", got)
	}
}

var _ store = (*redisStore)(nil)
