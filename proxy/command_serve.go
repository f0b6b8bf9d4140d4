package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
	"tandem/proxy/link"
	"tandem/proxy/metrics"
	"tandem/proxy/server"
	"tandem/proxy/trace"
	"tandem/schema/settings"
	tracing "tandem/schema/trace"
)

// trackedIDs bounds the keys and addresses whose requests are counted one by one.
const trackedIDs = 100_000

// serve runs the proxy until ctx ends, then drains.
func serve(ctx context.Context, p program) error {
	c, keys, err := loadAll(p.args, p.environ)
	if err != nil {
		return err
	}
	log := newLogger(p.stderr, c)
	slog.SetDefault(log)
	welcome(log, c, keys)

	s, err := assemble(ctx, c, keys, log)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

func newLogger(w io.Writer, c *Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// welcome says what an operator should know at once.
func welcome(log *slog.Logger, c *Config, keys *auth.Keys) {
	log.Info("tandem-proxy starts", "version", version, "revision", revision)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	if keys == nil {
		log.Warn("AUTH_DISABLED=true: everybody who reaches this server may use it")
	} else {
		log.Info("API keys are loaded", "keys", keys.Len())
	}
	if !c.DefaultModelSet {
		log.Info("DEFAULT_MODEL is not set: the documented default where it is installed, otherwise the only installed model, else the demo model", "default", c.DefaultModel)
	}
}

// service is everything that runs, in the order in which it is started.
type service struct {
	c        *Config
	log      *slog.Logger
	keys     *auth.Keys // nil: off
	metrics  *metrics.Metrics
	live     *metrics.LiveSampler
	domains  *api.Domains
	requests *inflight.Table
	link     *link.Listener
	limits   server.Limiter
	store    *limit.SharedLimiter // nil without a store of the rate limits
	http     *server.Server
	public   net.Listener
	scrapes  net.Listener // nil without METRICS_ADDR
	admin    *admin
	spans    *tracing.Exporter // nil without a collector
}

// assemble makes and opens everything; nothing is served yet. After an error nothing stays open.
func assemble(ctx context.Context, c *Config, keys *auth.Keys, log *slog.Logger) (_ *service, err error) {
	s := &service{c: c, log: log, keys: keys}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	s.metrics = metrics.New(s.metricsOptions())
	s.live = s.metrics.NewLiveSampler()
	s.domains = api.NewDomains(c.Domains)
	if keys != nil {
		s.bindDomains()
	}
	s.metrics.ConfigLoaded(time.Now())
	s.requests = inflight.New(s.flightOptions())
	if s.spans, err = openSpans(ctx, c, log); err != nil {
		return nil, err
	}
	if s.link, err = link.Listen(s.linkOptions()); err != nil {
		return nil, err
	}
	if err = s.openLimits(ctx); err != nil {
		return nil, err
	}
	if s.http, err = server.New(s.serverOptions()); err != nil {
		return nil, err
	}
	if s.public, err = server.Listen(ctx, net.JoinHostPort(c.Host, strconv.Itoa(c.Port))); err != nil {
		return nil, err
	}
	if c.MetricsAddr != "" && c.PrometheusEnabled {
		if s.scrapes, err = server.Listen(ctx, c.MetricsAddr); err != nil {
			return nil, err
		}
	}
	if s.admin, err = startAdmin(adminSocket(c), s.http.Drain, log); err != nil {
		return nil, err
	}
	return s, nil
}

// openLimits connects to the store of the rate limits, where there is one.
func (s *service) openLimits(ctx context.Context) (err error) {
	local := limit.NewLocal(trackedIDs, time.Now())
	s.limits = local
	if s.c.StoreURL == "" {
		return nil
	}
	s.store, err = limit.OpenShared(ctx, local, limit.SharedLimiterOptions{
		URL: s.c.StoreURL, Timeout: s.c.StoreTimeout, Up: s.metrics.SetRateLimitStoreUp, Log: s.log,
	})
	s.limits = s.store
	return err
}

func (s *service) closeLimits() {
	if s.store != nil {
		s.store.Close()
	}
}

// flushTimeout is for the last spans, after everything else has ended.
const flushTimeout = 2 * time.Second

// openSpans prepares the way to the collector, where there is one.
func openSpans(ctx context.Context, c *Config, log *slog.Logger) (*tracing.Exporter, error) {
	if c.TraceCollector == "" {
		return nil, nil
	}
	return tracing.Open(ctx, tracing.Options{
		Endpoint: c.TraceCollector, Service: c.TraceService, Program: "proxy", Version: version, Ratio: c.TraceRatio, Log: log, IDs: trace.IDGenerator{},
	})
}

// closeSpans sends what is left. A collector that is away is not a reason to end with an error.
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

// abandon closes what assemble opened before it met an error.
func (s *service) abandon() {
	for _, ln := range []net.Listener{s.public, s.scrapes} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	if s.http != nil {
		s.http.CloseUnserved()
	}
	if s.link != nil {
		s.link.Close()
	}
	s.closeLimits()
	s.closeSpans()
}

// run serves until ctx ends or a listener is lost, then stops everything in the order that lets answers in hand finish.
func (s *service) run(ctx context.Context) error {
	background, stop := context.WithCancel(context.Background())
	defer stop()
	var running sync.WaitGroup
	lost := make(chan error, 3)
	serving := func(f func() error) { running.Go(func() { lost <- f() }) }

	running.Go(func() { s.requests.Run(background) })
	running.Go(func() { s.live.Run(background) })
	serving(s.link.Serve)
	serving(func() error { return s.http.Serve(s.public) })
	if s.scrapes != nil {
		serving(func() error { return s.http.ServeMetrics(s.scrapes) })
	}
	if s.keys != nil {
		running.Go(func() { s.keys.Watch(background, s.keysReloaded) })
	}
	s.log.Info("listening", "address", s.public.Addr().String(), "engine_socket", s.c.EngineSocket)

	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "drain_delay", s.c.DrainDelay, "drain_timeout", s.c.DrainTimeout)
	case err = <-lost:
		err = fmt.Errorf("a listener is lost: %w", err)
	}
	err = errors.Join(err, s.http.Shutdown(context.Background()))
	s.admin.close()
	stop()
	s.link.Close()
	running.Wait()
	s.closeLimits()
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

// bindDomains makes the domains of the keys known.
func (s *service) bindDomains() {
	for _, domain := range s.keys.Domains() {
		s.domains.Bind(domain)
		s.metrics.BindDomain(domain)
	}
}

func (s *service) metricsOptions() metrics.Options {
	c := s.c
	return metrics.Options{
		DefaultModel: c.DefaultModel, DefaultVersion: c.DefaultVersion, Domains: c.Domains, QueueCapacity: c.QueueCapacity, CacheSize: c.CacheSize,
		Build:            metrics.BuildInfo{Version: version, Revision: revision},
		SLO:              metrics.SLO{FirstToken: c.SLOFirstToken, PerToken: c.SLOPerToken, Request: c.SLORequest},
		NativeHistograms: c.NativeHistograms, HideCustom: !c.CustomMetrics, KeepRemoved: c.KeepRemoved, Log: s.log,
		// The request table is made after the metrics, and before anybody scrapes.
		EngineText: func(ctx context.Context) ([]byte, error) { return s.requests.EngineMetrics(ctx) },
	}
}

func (s *service) flightOptions() inflight.Options {
	c := s.c
	return inflight.Options{
		Metrics: s.metrics, Log: s.log,
		DefaultModel: c.DefaultModel, DefaultModelSet: c.DefaultModelSet, DefaultVersion: c.DefaultVersion,
		ChooseDefault: func(installed []string) string {
			return settings.DefaultModel(c.DefaultModel, c.DefaultModelSet, installed)
		},
		QueueCapacity: c.QueueCapacity, QueueMaxBytes: c.QueueMaxBytes, JournalMaxBytes: c.JournalMaxBytes,
		EngineWait: c.EngineWait, ModelLoadWait: c.ModelLoadWait, ReplayWait: c.ReplayWait, QuarantineTTL: c.QuarantineTTL, ReplaySteps: c.ReplayDecode,
	}
}

func (s *service) linkOptions() link.Options {
	return link.Options{Socket: s.c.EngineSocket, PeerUIDs: s.c.EnginePeerUIDs, Handler: s.requests, Meter: s.metrics, Build: version, StallTimeout: s.c.EngineStallTimeout, Log: s.log}
}

func (s *service) serverOptions() server.Options {
	c := s.c
	var tracer trace.Tracer
	if s.spans != nil {
		tracer = trace.New(s.spans.Tracer())
	}
	return server.Options{
		Requests: s.requests, Metrics: s.metrics, Live: s.live, DisablePage: !c.PageEnabled, Keys: s.keys, Log: s.log, Domains: s.domains,
		Limits: s.limits, DefaultLimit: c.RateLimit, IETFRateLimitHeaders: c.IETFHeaders,
		KeyHeader: c.APIKeyHeader, MetricsPath: c.MetricsPath, Prometheus: c.PrometheusEnabled, SeparateMetrics: c.MetricsAddr != "",
		RequestLimits: api.Limits{PromptBytes: c.PromptBytes},
		MaxBodyBytes:  c.MaxBodyBytes, MaxHeaderBytes: c.MaxHeaderBytes, MaxConnections: c.MaxConnections,
		ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout, IdleTimeout: c.IdleTimeout, RequestTimeout: c.RequestTimeout,
		StreamHeartbeat: c.StreamHeartbeat, StreamHeaderWait: c.StreamHeaderWait, EngineWait: c.EngineWait,
		DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout,
		CORSOrigins: c.CORSOrigins, TrustedProxies: c.TrustedProxies, CertFile: c.TLSCert, KeyFile: c.TLSKey,
		LogPrompts: c.LogPrompts, LogSample: c.LogSample, Tracer: tracer,
	}
}
