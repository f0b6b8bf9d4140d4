package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ct := newCacheTest(t, nil)
		ct.fake.fail["b/model.gguf"] = errors.New("no idea")
		ct.use("a", "v1")
		if _, err := ct.cache.Acquire(ct.Context(), "b", "base"); err == nil {
			t.Error("no error")
		}
		ct.close()
		var got []string
		for _, e := range ct.events {
			if e.Kind == EventProgress {
				continue
			}
			got = append(got, fmt.Sprintf("%d %s@%s %s %d %d", e.Kind, e.Model, e.Version, e.Reason, e.Bytes, e.Facts.WeightBytes))
		}
		want := []string{"1 a@v1  0 0", "3 a@v1  10 1000", "1 b@base  0 0", "4 b@base other 0 0", "5 a@v1 admin 0 0"}
		if !slices.Equal(got, want) {
			t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestTimeoutIsReportedAsSuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ct := newCacheTest(t, nil)
		ct.fake.gate("a/model.gguf")
		if _, err := ct.cache.Acquire(t.Context(), "a", "base"); reasonOf(err) != ReasonTimeout {
			t.Errorf("error %v", err)
		}
		ct.close()
		last := ct.events[len(ct.events)-1]
		if last.Kind != EventLoadFailed || last.Reason != string(ReasonTimeout) {
			t.Errorf("event %+v", last)
		}
	})
}

func TestASlowReceiverOfEventsHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var seen []Event
		ct := newCacheTest(t, func(o *CacheOptions) { o.OnEvent = func(e Event) { <-gate; seen = append(seen, e) } })
		for range 20 {
			ct.use("a", "v1")
			ct.use("b", "v1")
			ct.use("c", "v1")
		}
		close(gate)
		ct.close()
		loading, loaded := 0, 0
		for _, e := range seen {
			switch e.Kind {
			case EventLoading:
				loading++
			case EventLoaded:
				loaded++
			}
		}
		if loading != loaded || loaded < 3 {
			t.Errorf("%d loads began, %d ended", loading, loaded)
		}
	})
}

func TestEventsAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		loaded := false
		ct := newCacheTest(t, func(o *CacheOptions) {
			o.OnEvent = func(e Event) { <-gate; loaded = loaded || e.Kind == EventLoaded }
		})
		ct.use("a", "v1")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ct.cache.AwaitEvents(short)
		if short.Err() == nil {
			t.Error("awaited before anything was delivered")
		}
		go func() { time.Sleep(time.Second); close(gate) }()
		ct.cache.AwaitEvents(t.Context())
		if !loaded {
			t.Error("the load wasn't delivered")
		}
		ct.cache.AwaitEvents(t.Context()) // there is nothing to wait for
		ct.close()
	})
}
