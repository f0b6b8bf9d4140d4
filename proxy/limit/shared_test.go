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

// fakeStore counts like a store until it is told otherwise.
type fakeStore struct {
	mu      sync.Mutex
	buckets *Limiter
	err     error         // of every call
	hang    time.Duration // of every call, before the error
	asked   int           // for decisions
	closed  bool
}

func (f *fakeStore) call() error {
	f.mu.Lock()
	hang, err := f.hang, f.err
	f.mu.Unlock()
	time.Sleep(hang) // in a test's bubble
	return err
}

func (f *fakeStore) take(id string, rate Rate) (Decision, error) {
	err := f.call()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	d := f.buckets.Allow(id, rate, time.Now())
	d.Shared = true
	return d, err
}

func (f *fakeStore) giveBack(id string, rate Rate) (Decision, error) {
	err := f.call()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	d := f.buckets.Refund(id, Decision{Allowed: true, Rate: rate}, time.Now())
	d.Shared = true
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

func (f *fakeStore) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// bubble is a Shared with a fake store, and what it said. Time stands still unless somebody waits.
type bubble struct {
	*Shared
	store *fakeStore
	mu    sync.Mutex
	up    []bool
	log   bytes.Buffer
}

func (b *bubble) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *bubble) said(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.log.String(), text)
}

func (b *bubble) told() []bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.up)
}

func inBubble(t *testing.T, first error, test func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{store: &fakeStore{buckets: New(10, time.Now()), err: first}}
		b.Shared = startShared(t.Context(), New(10, time.Now()), b.store, SharedOptions{Log: slog.New(slog.NewTextHandler(b, nil)), Up: func(up bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.up = append(b.up, up)
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
	away  = "the store of the rate limits is away"
	again = "answers again"
)

var five = Rate{5, time.Hour}

func (b *bubble) passes(n int) (passed int) {
	for range n {
		if b.Allow("key:a", five, time.Now()).Allowed {
			passed++
		}
	}
	return passed
}

func TestAFailureMakesDecisionsLocalUntilTheStoreAnswers(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		if b.passes(2) != 2 || b.store.calls() != 2 {
			t.Fatal("the store isn't asked")
		}
		b.store.set(errors.New("connection refused"), 0)
		if b.passes(10) != 3 { // of this process's five, two were used while the store was in charge
			t.Error("without the store this process doesn't go on from what it let pass")
		}
		if b.store.calls() != 3 {
			t.Errorf("the store was asked %d times although it failed at the third", b.store.calls())
		}
		synctest.Wait()
		if !slices.Equal(b.told(), []bool{true, false}) || b.said(away) != 1 || b.said("connection refused") != 1 {
			t.Errorf("told %v, log:\n%s", b.told(), b.log.String())
		}
		time.Sleep(10 * time.Second)
		b.store.set(nil, 0)
		time.Sleep(probeEvery + time.Millisecond)
		synctest.Wait()
		if !slices.Equal(b.told(), []bool{true, false, true}) || b.said(again) != 1 {
			t.Errorf("told %v, log:\n%s", b.told(), b.log.String())
		}
		before := b.store.calls()
		b.passes(1)
		if b.store.calls() != before+1 {
			t.Error("the store is back and isn't asked")
		}
	})
}

func TestAStoreThatHangsHoldsOneRequestOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		const timeout = 100 * time.Millisecond // which the real store has
		b.store.set(context.DeadlineExceeded, timeout)
		began := time.Now()
		if b.passes(10) != 5 || time.Since(began) != timeout {
			t.Errorf("ten requests took %v", time.Since(began))
		}
		time.Sleep(time.Minute)
		if began = time.Now(); b.passes(10) != 0 || time.Since(began) != 0 {
			t.Errorf("a minute later ten requests took %v", time.Since(began))
		}
	})
}

func TestAStoreThatIsAwayAtTheStart(t *testing.T) {
	inBubble(t, errors.New("no such host"), func(t *testing.T, b *bubble) {
		if b.passes(10) != 5 || b.store.calls() != 0 || !slices.Equal(b.told(), []bool{false}) || b.said(away) != 1 {
			t.Errorf("told %v, log:\n%s", b.told(), b.log.String())
		}
		b.store.set(nil, 0)
		time.Sleep(probeEvery + time.Millisecond)
		synctest.Wait()
		if b.passes(10) != 5 || !slices.Equal(b.told(), []bool{false, true}) || b.said(again) != 1 {
			t.Errorf("told %v, log:\n%s", b.told(), b.log.String())
		}
	})
}

// Nobody need ask for anything: the metric must be right on an idle proxy too.
func TestAStoreThatGoesAwayUnasked(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		b.store.set(errors.New("EOF"), 0)
		time.Sleep(probeEvery + time.Millisecond)
		synctest.Wait()
		if !slices.Equal(b.told(), []bool{true, false}) || b.said(away) != 1 || b.passes(1) != 1 || b.store.calls() != 0 {
			t.Errorf("told %v, log:\n%s", b.told(), b.log.String())
		}
	})
}

// A store that comes and goes every few seconds doesn't fill the log, and an absence that lasts is logged whatever was before it.
func TestTheLogOfAStoreThatComesAndGoes(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		time.Sleep(probeEvery / 2) // so that nothing happens at the same time
		for range 20 {             // in 80 seconds
			b.store.set(errors.New("EOF"), 0)
			time.Sleep(2 * time.Second)
			b.store.set(nil, 0)
			time.Sleep(2 * time.Second)
		}
		synctest.Wait()
		if b.said(away) != 2 || b.said(again) != 2 || len(b.told()) != 41 {
			t.Errorf("told %v, log:\n%s", b.told(), b.log.String())
		}
		b.store.set(errors.New("EOF"), 0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if b.said(away) != 3 {
			t.Errorf("an absence of two minutes isn't logged:\n%s", b.log.String())
		}
	})
}

func TestRefundsGoWhereTheRequestWasCounted(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		inStore := b.Allow("key:a", five, time.Now())
		b.store.set(errors.New("EOF"), 0)
		b.Allow("key:a", five, time.Now()) // finds out
		here := b.Allow("key:a", five, time.Now())
		if !inStore.Shared || here.Shared {
			t.Fatalf("%+v, then %+v", inStore, here)
		}
		asked := b.store.calls()
		if got := b.Refund("key:a", inStore, time.Now()); got.Remaining != 3 || got.Shared || b.store.calls() != asked {
			t.Errorf("a refund while the store is away: %+v", got)
		}
		b.store.set(nil, 0)
		time.Sleep(probeEvery + time.Millisecond)
		synctest.Wait()
		if got := b.Refund("key:a", here, time.Now()); got.Shared || b.store.calls() != asked {
			t.Errorf("the store gave back what it had never counted: %+v", got)
		}
		again := b.Allow("key:a", five, time.Now())
		if got := b.Refund("key:a", again, time.Now()); !got.Shared || got.Remaining != again.Remaining+1 {
			t.Errorf("%+v after %+v", got, again)
		}
	})
}

func TestARefundFindsOutThatTheStoreIsAway(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		d := b.Allow("key:a", five, time.Now())
		b.store.set(errors.New("EOF"), 0)
		if got := b.Refund("key:a", d, time.Now()); got.Remaining != 5 || got.Shared {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if b.said(away) != 1 {
			t.Errorf("log:\n%s", b.log.String())
		}
	})
}
