package limit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeStore is a store in memory that a test can make fail or hang.
type fakeStore struct {
	mu       sync.Mutex
	buckets  *LocalLimiter
	err      error         // of every call
	hang     time.Duration // of every call, before it returns
	requests int           // for decisions
	closed   bool
}

func (f *fakeStore) call() error {
	f.mu.Lock()
	hang, err := f.hang, f.err
	f.mu.Unlock()
	time.Sleep(hang) // fake time, in the test's synctest bubble
	return err
}

func (f *fakeStore) take(id string, rate Rate, n int) (Decision, error) {
	err := f.call()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	d := f.buckets.AllowN(id, rate, n, time.Now())
	d.CountedInStore = true
	return d, err
}

func (f *fakeStore) correct(id string, rate Rate, n int) (Decision, error) {
	err := f.call()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	d := f.buckets.Correct(id, Decision{Allowed: true, Rate: rate}, n, time.Now())
	d.CountedInStore = true
	return d, err
}

func (f *fakeStore) probe(context.Context) error { return f.call() }
func (f *fakeStore) name() string                { return "fake:6379" }
func (f *fakeStore) close()                      { f.closed = true }

func (f *fakeStore) set(err error, hang time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.hang = err, hang
}

func (f *fakeStore) requestCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// sharedLimiterTest is a SharedLimiter with a fake store on a fake clock, with what it logged and reported.
type sharedLimiterTest struct {
	*SharedLimiter
	store    *fakeStore
	mu       sync.Mutex
	reported []bool
	log      bytes.Buffer

	outagesLogged []int // begins and ends of outages in the log, at each report
}

func (b *sharedLimiterTest) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *sharedLimiterTest) timesLogged(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.log.String(), text)
}

func (b *sharedLimiterTest) reportedUp() []bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.reported)
}

func runSharedLimiterTest(t *testing.T, first error, test func(t *testing.T, b *sharedLimiterTest)) {
	synctest.Test(t, func(t *testing.T) {
		b := &sharedLimiterTest{store: &fakeStore{buckets: NewLocal(10, time.Now()), err: first}}
		b.SharedLimiter = startShared(t.Context(), NewLocal(10, time.Now()), b.store, SharedLimiterOptions{Log: slog.New(slog.NewTextHandler(b, nil)), Up: func(up bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.reported = append(b.reported, up)
			b.outagesLogged = append(b.outagesLogged, strings.Count(b.log.String(), storeAwayLog)+strings.Count(b.log.String(), storeBackLog))
		}})
		defer func() {
			b.Close()
			if !b.store.closed {
				t.Error("the store stays open")
			}
		}()
		test(t, b)
	})
}

const (
	storeAwayLog = "the store of the rate limits is away"
	storeBackLog = "answers again"
)

var fivePerHour = Rate{5, time.Hour}

func (b *sharedLimiterTest) countAllowed(n int) (passed int) {
	for range n {
		if b.Allow("key:a", fivePerHour, time.Now()).Allowed {
			passed++
		}
	}
	return passed
}

func TestAFailureMakesDecisionsLocalUntilTheStoreAnswers(t *testing.T) {
	runSharedLimiterTest(t, nil, func(t *testing.T, b *sharedLimiterTest) {
		if b.countAllowed(2) != 2 || b.store.requestCount() != 2 {
			t.Fatal("the store isn't asked")
		}
		b.store.set(errors.New("connection refused"), 0)
		if b.countAllowed(10) != 3 { // of this process's five, two were used while the store was in charge
			t.Error("without the store this process doesn't go on from what it let pass")
		}
		if b.store.requestCount() != 3 {
			t.Errorf("the store was asked %d times although it failed at the third", b.store.requestCount())
		}
		synctest.Wait()
		if !slices.Equal(b.reportedUp(), []bool{true, false}) || b.timesLogged(storeAwayLog) != 1 || b.timesLogged("connection refused") != 1 {
			t.Errorf("told %v, log:\n%s", b.reportedUp(), b.log.String())
		}
		time.Sleep(10 * time.Second)
		b.store.set(nil, 0)
		time.Sleep(probeInterval + time.Millisecond)
		synctest.Wait()
		if !slices.Equal(b.reportedUp(), []bool{true, false, true}) || b.timesLogged(storeBackLog) != 1 {
			t.Errorf("told %v, log:\n%s", b.reportedUp(), b.log.String())
		}
		if !slices.Equal(b.outagesLogged, []int{0, 1, 2}) {
			t.Errorf("at the reports the log had %v begins and ends of outages", b.outagesLogged)
		}
		before := b.store.requestCount()
		b.countAllowed(1)
		if b.store.requestCount() != before+1 {
			t.Error("the store is back and isn't asked")
		}
	})
}

func TestAStoreThatHangsHoldsOneRequestOnce(t *testing.T) {
	runSharedLimiterTest(t, nil, func(t *testing.T, b *sharedLimiterTest) {
		const timeout = 100 * time.Millisecond // which the real store has
		b.store.set(context.DeadlineExceeded, timeout)
		began := time.Now()
		if b.countAllowed(10) != 5 || time.Since(began) != timeout {
			t.Errorf("ten requests took %v", time.Since(began))
		}
		time.Sleep(time.Minute)
		if began = time.Now(); b.countAllowed(10) != 0 || time.Since(began) != 0 {
			t.Errorf("a minute later ten requests took %v", time.Since(began))
		}
	})
}

func TestAStoreThatIsAwayAtTheStart(t *testing.T) {
	runSharedLimiterTest(t, errors.New("no such host"), func(t *testing.T, b *sharedLimiterTest) {
		if b.countAllowed(10) != 5 || b.store.requestCount() != 0 || !slices.Equal(b.reportedUp(), []bool{false}) || b.timesLogged(storeAwayLog) != 1 {
			t.Errorf("told %v, log:\n%s", b.reportedUp(), b.log.String())
		}
		b.store.set(nil, 0)
		time.Sleep(probeInterval + time.Millisecond)
		synctest.Wait()
		if b.countAllowed(10) != 5 || !slices.Equal(b.reportedUp(), []bool{false, true}) || b.timesLogged(storeBackLog) != 1 {
			t.Errorf("told %v, log:\n%s", b.reportedUp(), b.log.String())
		}
	})
}

// Nobody need ask for anything: the metric must be right on an idle proxy too.
func TestAStoreThatGoesAwayUnasked(t *testing.T) {
	runSharedLimiterTest(t, nil, func(t *testing.T, b *sharedLimiterTest) {
		b.store.set(errors.New("EOF"), 0)
		time.Sleep(probeInterval + time.Millisecond)
		synctest.Wait()
		if !slices.Equal(b.reportedUp(), []bool{true, false}) || b.timesLogged(storeAwayLog) != 1 || b.countAllowed(1) != 1 || b.store.requestCount() != 0 {
			t.Errorf("told %v, log:\n%s", b.reportedUp(), b.log.String())
		}
	})
}

// A store that comes and goes every few seconds doesn't fill the log, and an absence that lasts is logged whatever was
// before it.
func TestTheLogOfAStoreThatComesAndGoes(t *testing.T) {
	runSharedLimiterTest(t, nil, func(t *testing.T, b *sharedLimiterTest) {
		time.Sleep(probeInterval / 2) // so that nothing happens at the same time
		for range 20 {                // in 80 seconds
			b.store.set(errors.New("EOF"), 0)
			time.Sleep(2 * time.Second)
			b.store.set(nil, 0)
			time.Sleep(2 * time.Second)
		}
		synctest.Wait()
		if b.timesLogged(storeAwayLog) != 2 || b.timesLogged(storeBackLog) != 2 || len(b.reportedUp()) != 41 {
			t.Errorf("told %v, log:\n%s", b.reportedUp(), b.log.String())
		}
		b.store.set(errors.New("EOF"), 0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if b.timesLogged(storeAwayLog) != 3 {
			t.Errorf("an absence of two minutes isn't logged:\n%s", b.log.String())
		}
	})
}

func TestRefundsGoWhereTheRequestWasCounted(t *testing.T) {
	runSharedLimiterTest(t, nil, func(t *testing.T, b *sharedLimiterTest) {
		inStore := b.Allow("key:a", fivePerHour, time.Now())
		b.store.set(errors.New("EOF"), 0)
		b.Allow("key:a", fivePerHour, time.Now()) // finds out
		here := b.Allow("key:a", fivePerHour, time.Now())
		if !inStore.CountedInStore || here.CountedInStore {
			t.Fatalf("%+v, then %+v", inStore, here)
		}
		requests := b.store.requestCount()
		if got := b.Refund("key:a", inStore, time.Now()); got.Remaining != 3 || got.CountedInStore || b.store.requestCount() != requests {
			t.Errorf("a refund while the store is away: %+v", got)
		}
		b.store.set(nil, 0)
		time.Sleep(probeInterval + time.Millisecond)
		synctest.Wait()
		if got := b.Refund("key:a", here, time.Now()); got.CountedInStore || b.store.requestCount() != requests {
			t.Errorf("the store gave back what it had never counted: %+v", got)
		}
		again := b.Allow("key:a", fivePerHour, time.Now())
		if got := b.Refund("key:a", again, time.Now()); !got.CountedInStore || got.Remaining != again.Remaining+1 {
			t.Errorf("%+v after %+v", got, again)
		}
	})
}

func TestARefundFindsOutThatTheStoreIsAway(t *testing.T) {
	runSharedLimiterTest(t, nil, func(t *testing.T, b *sharedLimiterTest) {
		d := b.Allow("key:a", fivePerHour, time.Now())
		b.store.set(errors.New("EOF"), 0)
		if got := b.Refund("key:a", d, time.Now()); got.Remaining != 5 || got.CountedInStore {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if b.timesLogged(storeAwayLog) != 1 {
			t.Errorf("log:\n%s", b.log.String())
		}
	})
}
