package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"tandem/proxy/adminsocket"
	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
	"tandem/proxy/link"
	"tandem/proxy/metrics"
	"tandem/proxy/server"
	"tandem/proxy/trace"
	tracing "tandem/schema/trace"
)

// maxTrackedIDs bounds the keys and addresses whose requests are counted one by one.
const maxTrackedIDs = 100_000

// service holds the parts of the proxy, in the order in which they are started.
type service struct {
	config          *Config
	log             *slog.Logger
	keys            *auth.Keys // nil: off
	metrics         *metrics.Metrics
	live            *metrics.LiveSampler
	domains         *api.Domains
	requestTable    *inflight.Table
	engineLink      *link.Listener
	rateLimiter     server.Limiter
	rateLimitStore  *limit.SharedLimiter // nil without a store of the rate limits
	httpServer      *server.Server
	publicListener  net.Listener
	metricsListener net.Listener // nil without METRICS_ADDR
	adminSocket     *adminsocket.Server
	spans           *tracing.Exporter // nil without a collector
}

// newService makes and opens everything; nothing is served yet. After an error nothing stays open.
func newService(ctx context.Context, c *Config, keys *auth.Keys, log *slog.Logger) (_ *service, err error) {
	s := &service{config: c, log: log, keys: keys}
	defer func() {
		if err != nil {
			s.closeUnserved()
		}
	}()
	s.metrics = metrics.New(s.metricsOptions())
	s.live = s.metrics.NewLiveSampler()
	s.domains = api.NewDomains(c.Domains)
	if keys != nil {
		s.bindDomains()
	}
	s.metrics.ConfigLoaded(time.Now())
	s.requestTable = inflight.New(s.requestTableOptions())
	if s.spans, err = openSpans(ctx, c, log); err != nil {
		return nil, err
	}
	if s.engineLink, err = link.Listen(s.linkOptions()); err != nil {
		return nil, err
	}
	if err = s.openRateLimits(ctx); err != nil {
		return nil, err
	}
	if s.httpServer, err = server.New(s.serverOptions()); err != nil {
		return nil, err
	}
	if s.publicListener, err = server.Listen(ctx, net.JoinHostPort(c.Host, strconv.Itoa(c.Port))); err != nil {
		return nil, err
	}
	if c.MetricsAddr != "" && c.PrometheusEnabled {
		if s.metricsListener, err = server.Listen(ctx, c.MetricsAddr); err != nil {
			return nil, err
		}
	}
	if s.adminSocket, err = adminsocket.Serve(adminsocket.Path(c.EngineSocket), s.httpServer.Drain, log); err != nil {
		return nil, err
	}
	return s, nil
}

// openRateLimits connects to the store of the rate limits, where there is one.
func (s *service) openRateLimits(ctx context.Context) (err error) {
	local := limit.NewLocal(maxTrackedIDs, time.Now())
	s.rateLimiter = local
	if s.config.StoreURL == "" {
		return nil
	}
	s.rateLimitStore, err = limit.OpenShared(ctx, local, limit.SharedLimiterOptions{
		URL: s.config.StoreURL, Timeout: s.config.StoreTimeout, Up: s.metrics.SetRateLimitStoreUp, Log: s.log,
	})
	s.rateLimiter = s.rateLimitStore
	return err
}

func (s *service) closeRateLimits() {
	if s.rateLimitStore != nil {
		s.rateLimitStore.Close()
	}
}

// flushTimeout bounds the sending of the last spans, after everything else has ended.
const flushTimeout = 2 * time.Second

// openSpans makes the exporter to the collector, where there is one.
func openSpans(ctx context.Context, c *Config, log *slog.Logger) (*tracing.Exporter, error) {
	if c.TraceCollector == "" {
		return nil, nil
	}
	return tracing.Open(ctx, tracing.Options{
		Endpoint: c.TraceCollector, Service: c.TraceService, Program: "proxy", Version: version, Ratio: c.TraceRatio, Log: log, IDs: trace.IDGenerator{},
	})
}

// closeSpans sends the spans that are left. A collector that doesn't answer is no reason to end with an error.
func (s *service) closeSpans() {
	if s.spans == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := s.spans.Close(ctx); err != nil {
		s.log.Warn("spans are lost", "error", err)
	}
}

// closeUnserved closes what newService opened before an error.
func (s *service) closeUnserved() {
	for _, ln := range []net.Listener{s.publicListener, s.metricsListener} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	if s.httpServer != nil {
		s.httpServer.CloseUnserved()
	}
	if s.engineLink != nil {
		s.engineLink.Close()
	}
	s.closeRateLimits()
	s.closeSpans()
}

// run serves until ctx ends or a listener is lost, then stops everything in the order that lets answers in flight
// finish.
func (s *service) run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	defer stop()
	var running sync.WaitGroup
	listenerErrors := make(chan error, 3)
	serving := func(f func() error) { running.Go(func() { listenerErrors <- f() }) }

	running.Go(func() { s.requestTable.Run(background) })
	running.Go(func() { s.live.Run(background) })
	serving(s.engineLink.Serve)
	serving(func() error { return s.httpServer.Serve(s.publicListener) })
	if s.metricsListener != nil {
		serving(func() error { return s.httpServer.ServeMetrics(s.metricsListener) })
	}
	if s.keys != nil {
		running.Go(func() { s.keys.Watch(background, s.keysReloaded) })
	}
	s.log.Info("listening", "address", s.publicListener.Addr().String(), "engine_socket", s.config.EngineSocket)

	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "drain_delay", s.config.DrainDelay, "drain_timeout", s.config.DrainTimeout)
	case err = <-listenerErrors:
		err = fmt.Errorf("a listener is lost: %w", err)
	}
	err = errors.Join(err, s.httpServer.Shutdown(context.Background()))
	s.adminSocket.Close()
	stop()
	s.engineLink.Close()
	running.Wait()
	s.closeRateLimits()
	s.closeSpans()
	if err == nil {
		s.log.Info("stopped")
	}
	return err
}

func (s *service) keysReloaded(r auth.Reload) {
	if r.Err != nil {
		s.metrics.KeyReloadFailed()
		s.log.Error("the key file can't be used; the keys before stay in force", "error", r.Err)
		return
	}
	s.metrics.ConfigLoaded(time.Now())
	s.bindDomains()
	s.log.Info("API keys reloaded", "keys", r.Keys)
}

// bindDomains adds the domains of the keys to the known domains.
func (s *service) bindDomains() {
	for _, domain := range s.keys.Domains() {
		s.domains.Bind(domain)
		s.metrics.BindDomain(domain)
	}
}
