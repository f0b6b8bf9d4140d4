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

// counted is a way to count, and its clock.
type counted struct {
	limiter interface {
		Allow(id string, rate Rate, now time.Time) Decision
		Refund(id string, d Decision, now time.Time) Decision
	}
	second interface { // another process that counts in the same place
		Allow(id string, rate Rate, now time.Time) Decision
	}
	to     func(at time.Duration) time.Time // sets the clock, so long after start
	shared bool
	slack  time.Duration // by which times may be too short, where the clock can't be stopped
}

// everyWay runs a test with all of them.
func everyWay(t *testing.T, test func(t *testing.T, c counted)) {
	t.Run("memory", func(t *testing.T) {
		l := New(1000, start)
		test(t, counted{limiter: l, second: l, to: start.Add})
	})
	t.Run("miniredis", func(t *testing.T) {
		m := miniredis.RunT(t)
		last := time.Duration(0)
		test(t, counted{shared: true, limiter: shared(t, "redis://"+m.Addr()), second: shared(t, "redis://"+m.Addr()), to: func(at time.Duration) time.Time {
			m.SetTime(start.Add(at))
			m.FastForward(at - last)
			last = at
			return start.Add(at)
		}})
	})
	t.Run("redis-server", func(t *testing.T) {
		r := redis.Start(t)
		one := shared(t, r.URL())
		last := time.Duration(0)
		test(t, counted{shared: true, slack: 8 * time.Second, limiter: one, second: shared(t, r.URL()), to: func(at time.Duration) time.Time {
			age(t, one, at-last)
			last = at
			return start.Add(at)
		}})
	})
}

// shared is a Shared that must not fail.
func shared(t testing.TB, url string) *Shared {
	t.Helper()
	var log bytes.Buffer
	s, err := OpenShared(t.Context(), New(1000, start), SharedOptions{URL: url, Timeout: 5 * time.Second, Up: func(bool) {}, Log: slog.New(slog.NewTextHandler(&log, nil))})
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

// age makes everything in a real store older, which is as good as waiting.
func age(t *testing.T, s *Shared, by time.Duration) {
	t.Helper()
	c := s.store.(*store).client
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern(storePrefix+"*").Build()).AsStrSlice()
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
func (c counted) same(got, want Decision) bool {
	want.Shared = c.shared && !want.Rate.Off()
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
		{11*time.Minute + 50*time.Second, false, false, 0, 48*time.Minute + 10*time.Second, 10 * time.Second}, // a refused request costs nothing
		{12 * time.Minute, false, true, 0, 60 * time.Minute, 0},
		{12 * time.Minute, false, false, 0, 60 * time.Minute, 12 * time.Minute},
		{36 * time.Minute, false, true, 1, 48 * time.Minute, 0},
		{36 * time.Minute, refund, true, 2, 36 * time.Minute, 0}, // refused for want of room: as if it had not been
		{36 * time.Minute, false, true, 1, 48 * time.Minute, 0},
		{10 * time.Hour, false, true, 4, 12 * time.Minute, 0}, // never more than the burst
		{10 * time.Hour, refund, true, 5, 0, 0},
		{10 * time.Hour, refund, true, 5, 0, 0}, // never fuller than full
		{10 * time.Hour, false, true, 4, 12 * time.Minute, 0},
		{10*time.Hour + 6*time.Minute, refund, true, 5, 0, 0}, // half of it had come back already
		{10*time.Hour + 6*time.Minute, false, true, 4, 12 * time.Minute, 0},
	}
	everyWay(t, func(t *testing.T, c counted) {
		passed := Decision{Allowed: true, Rate: rate, Shared: c.shared}
		for i, step := range steps {
			now := c.to(step.at)
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
		if got := c.limiter.Refund("key:nobody", passed, c.to(10*time.Hour)); !c.same(got, Decision{Allowed: true, Rate: rate, Remaining: 5}) {
			t.Errorf("a refund to an unknown id: %+v", got)
		}
		if got := c.limiter.Allow("key:a", Rate{}, c.to(10*time.Hour)); got != (Decision{Allowed: true}) {
			t.Errorf("without a limit: %+v", got)
		}
	})
}

func TestEveryWayHasTheWholeBurstAndNoMore(t *testing.T) {
	everyWay(t, func(t *testing.T, c counted) {
		at := time.Duration(0)
		for _, rate := range []Rate{{1, time.Hour}, {7, time.Hour}, {7, 24 * time.Hour}, {200, time.Hour}, {200, 24 * time.Hour}} {
			for range 3 { // fresh, then after one unit, then again
				now, passed := c.to(at), 0
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
	everyWay(t, func(t *testing.T, c counted) {
		for round := range 5 {
			now := c.to(time.Duration(round) * 2 * time.Hour)
			rate, id := Rate{n, time.Hour}, fmt.Sprint("key:", round/2) // every second round knows the id
			var allowed atomic.Int64
			var ready, done sync.WaitGroup
			gun := make(chan struct{})
			for i := range 4 * n {
				ready.Add(1)
				done.Go(func() {
					ready.Done()
					<-gun
					process := c.second
					if i%2 == 0 {
						process = c.limiter
					}
					if process.Allow(id, rate, now).Allowed {
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
	})
}

// The fastest rates and the longest times are counted to the nanosecond.
func TestTheStoreCountsExactly(t *testing.T) {
	m := miniredis.RunT(t)
	s := shared(t, "redis://"+m.Addr())
	l := New(100, start)
	for _, rate := range []Rate{{MaxRequests, time.Second}, {300_000, time.Second}, {7, time.Second}, {7, time.Minute}, {MaxRequests, 24 * time.Hour}, {1, 24 * time.Hour}, {86_399, 24 * time.Hour}} {
		id := "key:" + rate.String()
		at := time.Duration(0)
		for i := range 200 {
			at += time.Duration(math.Pow(1.09, float64(i))) * time.Microsecond / 3 * 3
			m.SetTime(start.Add(at))
			now := start.Add(at.Truncate(time.Microsecond)) // as exactly as Redis tells the time
			got, want := s.Allow(id, rate, now), l.Allow(id, rate, now)
			want.Shared = true
			if got != want {
				t.Fatalf("%v, step %d at %v: the store says %+v, memory %+v", rate, i, at, got, want)
			}
		}
	}
}

func TestWhatTheStoreHolds(t *testing.T) {
	m := miniredis.RunT(t)
	s := shared(t, "redis://"+m.Addr())
	m.SetTime(start)
	minute := Rate{2, time.Minute}
	s.Allow("key:search", minute, start)
	s.Allow("ip:2a00:1450:1:2::/64", minute, start)
	const key = "tandem:limit:2/minute:key:search"
	if got := m.Keys(); !slices.Equal(got, []string{"tandem:limit:2/minute:ip:2a00:1450:1:2::/64", key, probeKey}) {
		t.Errorf("keys: %q", got)
	}
	if ttl := m.TTL(key); ttl != 30*time.Second {
		t.Errorf("a bucket that is full in 30 s is kept for %v", ttl)
	}
	s.Allow("key:search", minute, start)
	before, _ := m.Get(key)
	s.Allow("key:search", minute, start)
	if after, _ := m.Get(key); after != before || m.TTL(key) != time.Minute {
		t.Errorf("a refused request wrote: %q became %q, kept for %v", before, after, m.TTL(key))
	}
	if got := s.Allow("key:search", Rate{3, time.Minute}, start); !got.Allowed || got.Remaining != 2 {
		t.Errorf("a new rate doesn't start with its burst: %+v", got)
	}
}

// A store whose clock was set back lets buckets fill as before, and gives nothing away.
func TestTheStoresClockIsSetBack(t *testing.T) {
	m := miniredis.RunT(t)
	s := shared(t, "redis://"+m.Addr())
	rate := Rate{2, time.Minute}
	m.SetTime(start)
	s.Allow("key:a", rate, start)
	s.Allow("key:a", rate, start)
	for i, c := range []struct {
		at      time.Duration
		allowed bool
	}{{-time.Hour, false}, {-time.Hour + 29*time.Second, false}, {-time.Hour + 30*time.Second, true}, {-time.Hour + 30*time.Second, false}} {
		m.SetTime(start.Add(c.at))
		if got := s.Allow("key:a", rate, start); got.Allowed != c.allowed {
			t.Errorf("step %d: %+v", i, got)
		}
	}
}

func TestRubbishInTheStoreIsAFullBucket(t *testing.T) {
	m := miniredis.RunT(t)
	s := shared(t, "redis://"+m.Addr())
	m.Set("tandem:limit:2/minute:key:a", "rubbish")
	if got := s.Allow("key:a", Rate{2, time.Minute}, start); !got.Allowed || got.Remaining != 1 || !got.Shared {
		t.Errorf("%+v", got)
	}
}

var _ counter = (*store)(nil)
