package server

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/valyala/fasthttp"
)

// closeListeners closes also the listeners that fasthttp didn't know yet when it was shut down: it would accept from
// them for ever.
func (s *Server) closeListeners() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	for _, l := range s.allListeners() {
		_ = l.Close()
	}
}

// Drain begins a drain: readiness goes off at once, each reply closes its connection, and after DrainDelay idle
// connections are closed and new requests rejected. Answers in flight continue.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drainStarted.IsZero() {
		return
	}
	s.drainStarted = time.Now()
	s.draining.Store(true)
	s.opts.Metrics.SetDraining(true)
	s.log.Info("draining: /readyz says 503 from now on", "drain_delay", s.opts.DrainDelay)
	s.refuseTimer = time.AfterFunc(s.opts.DrainDelay, s.refuseFurther)
}

// refuseFurther ends DrainDelay. A connection without a request would only bring one to be refused.
func (s *Server) refuseFurther() {
	s.opts.Requests.Drain()
	s.abortConns(isIdle)
}

// closeWhileDraining ends a reply's connection once a drain has begun, and says so in the reply: its client takes
// another connection, to another server, before this one refuses requests. Probes and scrapes lose nothing by it.
func (s *Server) closeWhileDraining(ctx *fasthttp.RequestCtx) {
	if s.draining.Load() {
		ctx.SetConnectionClose()
	}
}

// endStreamWhileDraining does the same at the end of a stream, whose head may have gone out before the drain.
func (s *Server) endStreamWhileDraining(connection net.Conn) {
	if c := unwrap(connection); c != nil && s.draining.Load() {
		c.readNoMore()
	}
}

// silentConnTimeout is how long a drain waits for connections on which the client hasn't sent anything yet.
const silentConnTimeout = 500 * time.Millisecond

// breakOffReserve is the part of its time that Shutdown reserves for sending an error to the answers that it has to
// break off.
const breakOffReserve = time.Second

// Shutdown drains and ends: readiness off, DrainDelay, no more connections, answers in flight finish within
// DrainTimeout or end with an error. Time that passed since Drain counts. It returns when every connection is closed,
// at the latest a moment after ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.mu.Lock()
	refusedAt, refuseTimer := s.drainStarted.Add(s.opts.DrainDelay), s.refuseTimer
	s.mu.Unlock()
	sleep(ctx, time.Until(refusedAt))
	refuseTimer.Stop()
	s.refuseFurther()

	left := drainTimeLeft(time.Since(refusedAt), s.opts.DrainTimeout)
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	early := time.AfterFunc(left-min(breakOffReserve, left/4), s.expireAnswers)
	defer early.Stop()
	silent := time.AfterFunc(silentConnTimeout, func() { s.abortConns(isSilent) })
	defer silent.Stop()

	var err error
	for _, h := range []*fasthttp.Server{s.http, s.metricsHTTP} {
		if stop := h.ShutdownWithContext(ctx); stop != nil && !errors.Is(stop, context.DeadlineExceeded) {
			err = errors.Join(err, stop)
		}
	}
	s.closeListeners()
	s.awaitResumable(ctx)
	s.expireAnswers()
	s.resumable.running.Wait()
	s.close()
	return err
}

// awaitResumable waits until the streams that can be resumed have ended, at most until ctx ends. Before that all
// connections are gone and no further ones come: nobody reads these streams any more.
func (s *Server) awaitResumable(ctx context.Context) {
	if ctx.Err() == nil {
		s.resumable.abandonOnce.Do(func() { close(s.resumable.abandoned) })
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.resumable.running.Wait()
	}()
	select {
	case <-ended:
	case <-s.drainExpired:
	case <-ctx.Done():
	}
}

// drainTimeLeft is what is left of a drain's time, at least breakOffReserve.
func drainTimeLeft(passed, timeout time.Duration) time.Duration {
	return max(timeout-passed, min(breakOffReserve, timeout))
}

func (s *Server) expireAnswers() {
	s.expireOnce.Do(func() {
		if n := s.openExchanges.Load(); n > 0 {
			s.log.Warn("the time for draining is over: answers in hand are broken off", "open", n)
		}
		close(s.drainExpired)
	})
}

// CloseUnserved closes a server on which Serve was never called.
func (s *Server) CloseUnserved() { s.disconnects.close() }

// close aborts the connections that are left.
func (s *Server) close() {
	if n := s.abortConns(isAny); n > 0 {
		s.log.Warn("connections were cut", "connections", n)
	}
	for _, l := range s.allListeners() {
		l.refusing.Wait()
	}
	s.disconnects.close()
}

func (s *Server) abortConns(which func(*conn) bool) int {
	n := 0
	for _, l := range s.allListeners() {
		n += l.abortConns(which)
	}
	return n
}

func (s *Server) allListeners() []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.listeners)
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
