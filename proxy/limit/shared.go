package limit

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	probeEvery = time.Second
	sayEvery   = time.Minute // a store that comes and goes is reported at most this often
)

// Shared counts requests in a store, together with all other processes that count there. While the store is away it counts like a
// Limiter: no request waits for a store longer than its timeout, and none does once one has waited in vain.
type Shared struct {
	local   *Limiter
	store   counter
	o       SharedOptions
	up      atomic.Bool   // any request may clear it, only watch sets it
	failure chan error    // what made a request clear it; holds one
	stop    func()        // ends watch
	stopped chan struct{} // closed when watch has ended
	outage  outage        // only watch's
}

// SharedOptions is what OpenShared needs.
type SharedOptions struct {
	URL     string        // redis, rediss (TLS), valkey or valkeys://[user:password@]host[:port][/db], or unix://[user:password@]/path[?db=n]
	Timeout time.Duration // for one decision
	Up      func(bool)    // is told whether the store answers, from one goroutine at a time
	Log     *slog.Logger
}

// counter is what Shared needs of a store.
type counter interface {
	take(id string, rate Rate) (Decision, error)
	giveBack(id string, rate Rate) (Decision, error)
	probe(ctx context.Context) error
	name() string // for the log
	close()
}

// OpenShared connects to the store. Whether it answers or not, requests can be counted then. Close must be called in the end.
func OpenShared(ctx context.Context, local *Limiter, o SharedOptions) (*Shared, error) {
	st, err := openStore(o.URL, o.Timeout)
	if err != nil {
		return nil, err
	}
	return startShared(ctx, local, st, o), nil
}

func startShared(ctx context.Context, local *Limiter, st counter, o SharedOptions) *Shared {
	log := o.Log.With("store", st.name())
	s := &Shared{local: local, store: st, o: o, failure: make(chan error, 1), stopped: make(chan struct{}), outage: outage{log: log}}
	if err := st.probe(ctx); err != nil {
		s.wentAway(err)
	} else {
		s.cameBack()
		log.Info("requests are counted in the store of the rate limits")
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	go s.watch(ctx)
	return s
}

// Close waits until everything has ended. Allow and Refund may still be called, and count for this process alone.
func (s *Shared) Close() {
	s.stop()
	<-s.stopped
	s.up.Store(false)
	s.store.close()
}

// Allow counts one request of id and says whether it may pass. What the store lets pass is counted here as well, so that without the
// store this process goes on from what it let pass itself, rather than with a fresh burst.
func (s *Shared) Allow(id string, rate Rate, now time.Time) Decision {
	if rate.Off() {
		return Decision{Allowed: true}
	}
	if s.up.Load() {
		d, err := s.store.take(id, rate)
		if err == nil {
			if d.Allowed {
				s.local.Allow(id, rate, now)
			}
			return d
		}
		s.failed(err)
	}
	return s.local.Allow(id, rate, now)
}

// Refund takes back one request of id that Allow let pass with d. The store gives back only what was counted there.
func (s *Shared) Refund(id string, d Decision, now time.Time) Decision {
	here := s.local.Refund(id, d, now)
	if !d.Shared || !s.up.Load() {
		return here
	}
	there, err := s.store.giveBack(id, d.Rate)
	if err != nil {
		s.failed(err)
		return here
	}
	return there
}

// Len is how many ids this process tracks.
func (s *Shared) Len() int { return s.local.Len() }

// failed makes the next decisions local and wakes watch.
func (s *Shared) failed(err error) {
	if !s.up.CompareAndSwap(true, false) {
		return
	}
	select {
	case s.failure <- err:
	default: // there is one that watch doesn't know yet
	}
}

// watch finds out when the store goes away and when it is back, and is the only one to say so.
func (s *Shared) watch(ctx context.Context) {
	defer close(s.stopped)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-s.failure:
			if !s.up.Load() { // otherwise it has come back since
				s.wentAway(err)
			}
		case <-tick.C:
		}
		s.probe(ctx)
	}
}

func (s *Shared) probe(ctx context.Context) {
	err := s.store.probe(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil && !s.up.Load():
		s.cameBack()
	case err != nil && s.up.CompareAndSwap(true, false):
		s.wentAway(err)
	case err != nil && s.outage.due(time.Now()):
		s.outage.begin(err, time.Now())
	}
}

func (s *Shared) wentAway(err error) {
	s.o.Up(false)
	s.outage.begin(err, time.Now())
}

func (s *Shared) cameBack() {
	s.up.Store(true)
	s.o.Up(true)
	s.outage.end(time.Now())
}
