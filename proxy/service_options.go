package main

import (
	"context"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/link"
	"tandem/proxy/metrics"
	"tandem/proxy/server"
	"tandem/proxy/trace"
	"tandem/schema/settings"
)

func (s *service) metricsOptions() metrics.Options {
	c := s.config
	return metrics.Options{
		DefaultModel: c.DefaultModel, DefaultVersion: c.DefaultVersion, Domains: c.Domains, QueueCapacity: c.QueueCapacity, CacheSize: c.CacheSize,
		Build:            metrics.BuildInfo{Version: version, Revision: revision},
		SLO:              metrics.SLO{FirstToken: c.SLOFirstToken, PerToken: c.SLOPerToken, Request: c.SLORequest},
		NativeHistograms: c.NativeHistograms, HideCustom: !c.CustomMetrics, KeepRemoved: c.KeepRemoved, Log: s.log,
		// The request table is made after the metrics, and before anybody scrapes.
		EngineText: func(ctx context.Context) ([]byte, error) { return s.requestTable.EngineMetrics(ctx) },
	}
}

func (s *service) requestTableOptions() inflight.Options {
	c := s.config
	return inflight.Options{
		Metrics: s.metrics, Log: s.log,
		DefaultModel: c.DefaultModel, DefaultModelSet: c.DefaultModelSet, DefaultVersion: c.DefaultVersion,
		ChooseDefault: func(installed []string) string {
			return settings.DefaultModel(c.DefaultModel, c.DefaultModelSet, installed)
		},
		QueueCapacity: c.QueueCapacity, QueueMaxBytes: c.QueueMaxBytes, QueueMaxTokens: int64(c.QueueMaxTokens), QueueKeyShare: c.QueueKeyShare, JournalMaxBytes: c.JournalMaxBytes,
		EngineWait: c.EngineWait, ModelLoadWait: c.ModelLoadWait, ReplayWait: c.ReplayWait, QuarantineTTL: c.QuarantineTTL, ReplaySteps: c.ReplayDecode,
	}
}

func (s *service) linkOptions() link.Options {
	return link.Options{Socket: s.config.EngineSocket, PeerUIDs: s.config.EnginePeerUIDs, Handler: s.requestTable, Meter: s.metrics, Build: version, StallTimeout: s.config.EngineStallTimeout, Log: s.log}
}

func (s *service) serverOptions() server.Options {
	c := s.config
	var tracer trace.Tracer
	if s.spans != nil {
		tracer = trace.New(s.spans.Tracer())
	}
	return server.Options{
		Requests: s.requestTable, Metrics: s.metrics, Live: s.live, DisablePage: !c.PageEnabled, Keys: s.keys, Log: s.log, Domains: s.domains,
		Limits: s.rateLimiter, DefaultLimit: c.RateLimit, IETFRateLimitHeaders: c.IETFHeaders,
		Version: version, KeyHeader: c.APIKeyHeader, MetricsPath: c.MetricsPath, Prometheus: c.PrometheusEnabled, SeparateMetrics: c.MetricsAddr != "",
		RequestLimits: api.Limits{PromptBytes: c.PromptBytes},
		MaxBodyBytes:  c.MaxBodyBytes, MaxHeaderBytes: c.MaxHeaderBytes, MaxConnections: c.MaxConnections,
		ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout, IdleTimeout: c.IdleTimeout, RequestTimeout: c.RequestTimeout,
		StreamHeartbeat: c.StreamHeartbeat, StreamHeaderWait: c.StreamHeaderWait, EngineWait: c.EngineWait,
		DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout,
		CORSOrigins: c.CORSOrigins, TrustedProxies: c.TrustedProxies, CertFile: c.TLSCert, KeyFile: c.TLSKey,
		LogPrompts: c.LogPrompts, LogSample: c.LogSample, Tracer: tracer,
	}
}
