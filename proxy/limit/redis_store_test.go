package limit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tandem/scripts/redis"
)

// realStoreTest is a SharedLimiter on a real store, with what it logged and reported.
type realStoreTest struct {
	*SharedLimiter
	up       atomic.Bool   // as reported last
	reported chan struct{} // holds one, for any number of reports
	mu       sync.Mutex
	log      bytes.Buffer
}

func (w *realStoreTest) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *realStoreTest) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func openRealStore(t *testing.T, url string, timeout time.Duration) *realStoreTest {
	t.Helper()
	w := &realStoreTest{reported: make(chan struct{}, 1)}
	s, err := OpenShared(t.Context(), NewLocal(100, time.Now()), SharedLimiterOptions{URL: url, Timeout: timeout, Up: w.report, Log: slog.New(slog.NewTextHandler(w, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.SharedLimiter = s
	t.Cleanup(s.Close)
	return w
}

// awaitStoreUp waits until the limiter has reported that its store is up, or down.
func (w *realStoreTest) awaitStoreUp(t *testing.T, up bool) {
	t.Helper()
	tooLate := time.After(20 * time.Second)
	for w.up.Load() != up {
		select {
		case <-w.reported:
		case <-tooLate:
			t.Fatalf("the store isn't up=%v after 20 s:\n%s", up, w.text())
		}
	}
}

// report is the limiter's callback Up.
func (w *realStoreTest) report(up bool) {
	w.up.Store(up)
	select {
	case w.reported <- struct{}{}:
	default: // the report before it is still unread
	}
}

func TestARealStoreIsKilledAndComesBack(t *testing.T) {
	r := redis.Start(t)
	w := openRealStore(t, r.URL(), time.Second)
	w.awaitStoreUp(t, true)
	if d := w.Allow("key:a", fivePerHour, time.Now()); !d.Allowed || !d.CountedInStore || d.Remaining != 4 {
		t.Fatalf("%+v\n%s", d, w.text())
	}
	r.Kill()
	if d := w.Allow("key:a", fivePerHour, time.Now()); !d.Allowed || d.CountedInStore || d.Remaining != 3 {
		t.Errorf("without its store: %+v", d)
	}
	w.awaitStoreUp(t, false)
	r.Restart()
	w.awaitStoreUp(t, true)
	// it is empty, and doesn't know the script
	if d := w.Allow("key:a", fivePerHour, time.Now()); !d.CountedInStore || d.Remaining != 4 {
		t.Errorf("with an empty store: %+v\n%s", d, w.text())
	}
	if text := w.text(); !strings.Contains(text, storeAwayLog) || !strings.Contains(text, storeBackLog) {
		t.Errorf("log:\n%s", text)
	}
}

func TestARealStoreHangs(t *testing.T) {
	r := redis.Start(t)
	const timeout = 100 * time.Millisecond
	w := openRealStore(t, r.URL(), timeout)
	w.awaitStoreUp(t, true)
	r.Pause()
	began := time.Now()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { w.Allow("key:a", fivePerHour, time.Now()) })
	}
	wg.Wait()
	if took := time.Since(began); took > 20*timeout {
		t.Errorf("fifty requests at once took %v, the timeout is %v", took, timeout)
	}
	began = time.Now()
	for range 1000 {
		w.Allow("key:a", fivePerHour, time.Now())
	}
	if took := time.Since(began); took > 20*timeout {
		t.Errorf("a thousand requests one after the other took %v, the timeout is %v", took, timeout)
	}
	w.awaitStoreUp(t, false)
	r.Resume()
	w.awaitStoreUp(t, true)
}

func TestCloseDoesNotWaitForAStoreThatHangs(t *testing.T) {
	r := redis.Start(t)
	w := openRealStore(t, r.URL(), 100*time.Millisecond)
	w.awaitStoreUp(t, true)
	r.Pause()
	defer r.Resume()
	w.Allow("key:a", fivePerHour, time.Now())
	began := time.Now()
	w.Close()
	if took := time.Since(began); took > connectTimeout+silentConnTimeout+2*time.Second {
		t.Errorf("it took %v", took)
	}
	if d := w.Allow("key:a", fivePerHour, time.Now()); !d.Allowed || d.CountedInStore {
		t.Errorf("after Close: %+v", d)
	}
}

// A server that accepts connections and doesn't answer must not hold up the start, and one that isn't there must not
// keep the proxy from starting.
func TestOpenWithoutAnAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	for _, l := range []net.Listener{silent, nobody} {
		began := time.Now()
		w := openRealStore(t, "redis://:s3cret@"+l.Addr().String(), 100*time.Millisecond)
		if took := time.Since(began); took > 5*connectTimeout {
			t.Errorf("it took %v", took)
		}
		if d := w.Allow("key:a", fivePerHour, time.Now()); !d.Allowed || d.CountedInStore || w.up.Load() {
			t.Errorf("%+v", d)
		}
		if text := w.text(); !strings.Contains(text, l.Addr().String()) || strings.Contains(text, "s3cret") {
			t.Errorf("log:\n%s", text)
		}
	}
}

// With the fewest rights the documentation names, on all kinds of addresses.
func TestAddressesOfTheStore(t *testing.T) {
	r := redis.Start(t, "--requirepass", "admin", "--user", "tandem", "on", ">s3cret@/", "~tandem:limit:*",
		"+@connection", "-@dangerous", "+eval", "+evalsha", "+time", "+get", "+set", "+del")
	for name, url := range map[string]string{
		"user and password":   "redis://tandem:s3cret%40%2F@" + r.Address,
		"valkey":              "valkey://tandem:s3cret%40%2F@" + r.Address,
		"password alone":      "redis://:admin@" + r.Address + "/3",
		"socket":              "unix://tandem:s3cret%40%2F@" + r.Socket,
		"socket and a number": "unix://:admin@" + r.Socket + "?db=2",
	} {
		w := openRealStore(t, url, time.Second)
		if d := w.Allow("key:"+name, fivePerHour, time.Now()); !d.CountedInStore || d.Remaining != 4 {
			t.Errorf("%s: %+v\n%s", name, d, w.text())
		}
		if d := w.Refund("key:"+name, Decision{Allowed: true, Rate: fivePerHour, CountedInStore: true}, time.Now()); !d.CountedInStore || d.Remaining != 5 {
			t.Errorf("%s: %+v\n%s", name, d, w.text())
		}
	}
	for name, url := range map[string]string{
		"wrong password": "redis://tandem:wr0ng@" + r.Address,
		"no password":    "redis://" + r.Address,
		"no database":    "redis://:admin@" + r.Address + "/99",
	} {
		w := openRealStore(t, url, time.Second)
		if d := w.Allow("key:a", fivePerHour, time.Now()); d.CountedInStore || !d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
		if text := w.text(); !strings.Contains(text, storeAwayLog) || strings.Contains(text, "wr0ng") || strings.Contains(text, "admin") {
			t.Errorf("%s: log:\n%s", name, text)
		}
	}
}

// A server that takes no writes can't count, though it answers.
func TestAFullStoreIsAway(t *testing.T) {
	r := redis.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	w := openRealStore(t, r.URL(), time.Second)
	if d := w.Allow("key:a", fivePerHour, time.Now()); d.CountedInStore || !d.Allowed || !strings.Contains(w.text(), "OOM") {
		t.Errorf("%+v, log:\n%s", d, w.text())
	}
}

func TestErrorsOfAddressesHoldNoPassword(t *testing.T) {
	for _, url := range []string{"redis://me:s3cr#et@host:6379", "redis://me:s3/cret@host:6379", "http://me:s3cret@host", "redis://me:s3cret@host/x", "redis://me:s3cret@host:6379?addr=b:1"} {
		_, err := OpenShared(t.Context(), NewLocal(1, startTime), SharedLimiterOptions{URL: url, Timeout: time.Second, Up: func(bool) {}, Log: slog.New(slog.DiscardHandler)})
		if err == nil || strings.Contains(err.Error(), "s3") || strings.Contains(fmt.Sprint(errors.Unwrap(err)), "s3") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// What a decision costs with the store on this machine: wall time, and CPU time of this process and of the store.
func BenchmarkAllowShared(b *testing.B) {
	r := redis.Start(b)
	for _, where := range []struct{ name, url string }{{"tcp", r.URL()}, {"socket", "unix://" + r.Socket}} {
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/callers=%d", where.name, callers), func(b *testing.B) { benchmarkShared(b, where.url, callers) })
		}
	}
}

func benchmarkShared(b *testing.B, url string, callers int) {
	s := openShared(b, url)
	rate := Rate{MaxRequests, time.Second}
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprint("key", i)
		s.Allow(ids[i], rate, time.Now())
	}
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	mine := processCPUTime(b)
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				s.Allow(ids[i%int64(len(ids))], rate, time.Now())
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((processCPUTime(b)-mine).Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.Elapsed().Microseconds())*float64(callers)/float64(b.N), "us-latency")
}

// processCPUTime is the CPU time that this process has used.
func processCPUTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
