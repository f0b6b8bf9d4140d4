package limit

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	probeInterval = time.Second
	logInterval   = time.Minute // a store that comes and goes is logged at most this often
)

// SharedLimiter counts requests in a store, together with all other processes that count there. While the store is down
// it counts like a LocalLimiter: no request waits for the store longer than its timeout, and none waits at all once one
// has timed out.
type SharedLimiter struct {
	local    *LocalLimiter
	store    store
	opts     SharedLimiterOptions
	storeUp  atomic.Bool   // any request may clear it, only monitorStore sets it
	failures chan error    // the error that made a request clear storeUp; holds one
	stop     func()        // ends monitorStore
	stopped  chan struct{} // closed when monitorStore has ended
	outage   storeOutage   // owned by monitorStore
}

// SharedLimiterOptions are the options of OpenShared.
type SharedLimiterOptions struct {
	// redis, rediss (TLS), valkey or valkeys://[user:password@]host[:port][/db], or unix://[user:password@]/path[?db=n]
	URL     string
	Timeout time.Duration // for one decision
	Up      func(bool)    // is called with whether the store answers, from one goroutine at a time
	Log     *slog.Logger
}

// store is what SharedLimiter needs of a store; redisStore implements it.
type store interface {
	take(id string, rate Rate, n int) (Decision, error)
	correct(id string, rate Rate, n int) (Decision, error)
	probe(ctx context.Context) error
	name() string // for the log
	close()
}

// OpenShared connects to the store. Requests can be counted afterwards, whether the store answers or not. Close must be
// called in the end.
func OpenShared(ctx context.Context, local *LocalLimiter, o SharedLimiterOptions) (*SharedLimiter, error) {
	st, err := openStore(o.URL, o.Timeout)
	if err != nil {
		return nil, err
	}
	return startShared(ctx, local, st, o), nil
}

func startShared(ctx context.Context, local *LocalLimiter, st store, o SharedLimiterOptions) *SharedLimiter {
	log := o.Log.With("store", st.name())
	s := &SharedLimiter{local: local, store: st, opts: o, failures: make(chan error, 1), stopped: make(chan struct{}), outage: storeOutage{log: log}}
	if err := st.probe(ctx); err != nil {
		s.onStoreDown(err)
	} else {
		s.onStoreUp()
		log.Info("requests are counted in the store of the rate limits")
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	go s.monitorStore(ctx)
	return s
}

// Close ends monitorStore and closes the store. Allow and Refund may still be called, and count for this process alone.
func (s *SharedLimiter) Close() {
	s.stop()
	<-s.stopped
	s.storeUp.Store(false)
	s.store.close()
}

// Allow counts one request of id and decides whether it is allowed. A request that the store allows is counted locally
// as well, so that without the store this process continues from what it has allowed itself, rather than with a fresh
// burst.
func (s *SharedLimiter) Allow(id string, rate Rate, now time.Time) Decision {
	return s.AllowN(id, rate, 1, now)
}

// AllowN is Allow for n of what the rate counts, all of them or none. More than the whole burst counts as the burst.
func (s *SharedLimiter) AllowN(id string, rate Rate, n int, now time.Time) Decision {
	n = rate.atMostBurst(n)
	if rate.Unlimited() {
		return Decision{Allowed: true}
	}
	if s.storeUp.Load() {
		d, err := s.store.take(id, rate, n)
		if err == nil {
			if d.Allowed {
				s.local.AllowN(id, rate, n, now)
			}
			return d
		}
		s.markDown(err)
	}
	return s.local.AllowN(id, rate, n, now)
}

// Refund takes back one request of id that Allow allowed with d. In the store only a request that was counted there is
// refunded.
func (s *SharedLimiter) Refund(id string, d Decision, now time.Time) Decision {
	return s.Correct(id, d, -1, now)
}

// Correct counts n more of what AllowN allowed with d, whether that is allowed or not, or takes -n back.
func (s *SharedLimiter) Correct(id string, d Decision, n int, now time.Time) Decision {
	n = d.Rate.atMostBurst(n)
	here := s.local.Correct(id, d, n, now)
	if !d.CountedInStore || !s.storeUp.Load() {
		return here
	}
	there, err := s.store.correct(id, d.Rate, n)
	if err != nil {
		s.markDown(err)
		return here
	}
	return there
}

// Len is the number of ids that this process tracks.
func (s *SharedLimiter) Len() int { return s.local.Len() }

// markDown makes the next decisions local and wakes monitorStore.
func (s *SharedLimiter) markDown(err error) {
	if !s.storeUp.CompareAndSwap(true, false) {
		return
	}
	select {
	case s.failures <- err:
	default: // an earlier error is still unread
	}
}

// monitorStore notices when the store goes away and when it is back. Only it reports and logs that.
func (s *SharedLimiter) monitorStore(ctx context.Context) {
	defer close(s.stopped)
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-s.failures:
			if !s.storeUp.Load() { // otherwise it has come back since
				s.onStoreDown(err)
			}
		case <-tick.C:
		}
		s.probe(ctx)
	}
}

func (s *SharedLimiter) probe(ctx context.Context) {
	err := s.store.probe(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil && !s.storeUp.Load():
		s.onStoreUp()
	case err != nil && s.storeUp.CompareAndSwap(true, false):
		s.onStoreDown(err)
	case err != nil && s.outage.logDue(time.Now()):
		s.outage.begin(err, time.Now())
	}
}

// onStoreDown and onStoreUp log before they report: whoever has the report finds the line in the log.
func (s *SharedLimiter) onStoreDown(err error) {
	s.outage.begin(err, time.Now())
	s.opts.Up(false)
}

func (s *SharedLimiter) onStoreUp() {
	s.storeUp.Store(true)
	s.outage.end(time.Now())
	s.opts.Up(true)
}
