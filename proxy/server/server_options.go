package server

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
	"tandem/proxy/metrics"
	"tandem/proxy/trace"
)

// Requests is the table of requests in flight as this package uses it; *inflight.Table implements it.
type Requests interface {
	// Admit accepts a request or rejects it, without waiting. It doesn't count a rejection: the caller does, as for its
	// own rejections. Every Answer must be settled. ctx only carries values, its end is not a Cancel. Before the first
	// engine has connected, Model and Version are empty until an engine lists its models; a model that isn't installed
	// then ends with an error.
	Admit(ctx context.Context, r inflight.Request) (inflight.Answer, *api.Error)
	// Tokenize, Detokenize and Render use a model's vocabulary and chat template. They wait for an engine if there is
	// none, at most until ctx ends.
	Tokenize(ctx context.Context, c inflight.ModelCall, text string, addSpecial bool) ([]int32, *api.Error)
	Detokenize(ctx context.Context, c inflight.ModelCall, tokens []int32) ([]byte, *api.Error)
	Render(ctx context.Context, c inflight.ModelCall, r *api.Request) (inflight.RenderedText, *api.Error)
	// ExpectedTokens is how many tokens a request probably takes, of prompt and answer.
	ExpectedTokens(r *api.Request) int
	Status() inflight.Status
	// Drain makes the table reject every further request.
	Drain()
}

// Options of New. Requests and Metrics are required; a zero means the default, or what the field's comment says.
type Options struct {
	Requests Requests
	Metrics  *metrics.Metrics
	Live     *metrics.LiveSampler // recent figures for /status/live; its owner runs it
	Keys     *auth.Keys           // nil: no key is needed (AUTH_DISABLED)
	Limits   Limiter              // nil: no rate limit
	Domains  *api.Domains         // nil: general and other only
	Log      *slog.Logger         // nil: slog.Default()

	DefaultLimit limit.Rate // of keys without a limit of their own and of clients without a key
	KeyHeader    string     // X-API-Key
	MetricsPath  string     // /prometheus
	Prometheus   bool       // serve MetricsPath and /metrics/router
	// SeparateMetrics keeps the metrics off the main listener, since ServeMetrics serves them on a listener of their
	// own.
	SeparateMetrics bool
	DisablePage     bool   // / is 404; /status/live stays
	Version         string // of the program, for the OpenAPI document; empty: api.ServiceVersion
	RequestLimits   api.Limits

	MaxBodyBytes   int // 8 MiB
	MaxHeaderBytes int // 16 KiB
	MaxConnections int // 4096

	ReadTimeout      time.Duration // 10 s: a whole request, from its first byte
	WriteTimeout     time.Duration // 10 s: a reply, and each event of a stream
	IdleTimeout      time.Duration // 75 s: between two requests of a connection
	RequestTimeout   time.Duration // 300 s: from receipt to the end of the answer
	StreamHeartbeat  time.Duration // 15 s
	StreamHeaderWait time.Duration // as it is: 0 sends the status line at once
	EngineWait       time.Duration // as it is: how long the engine may be away before /readyz returns 503
	DrainDelay       time.Duration // between readiness off and the end of accepting; 0: none
	DrainTimeout     time.Duration // as it is: for answers in flight

	CORSOrigins    []string       // exact origins, or * for any; none: off
	TrustedProxies []netip.Prefix // whose X-Forwarded-For counts
	CertFile       string         // with KeyFile: TLS, reloaded when the files change
	KeyFile        string

	// LogPrompts writes prompts and answers to the log at level debug.
	LogPrompts bool
	// LogSample writes the access line of one in LogSample successful inference requests; 0 or 1: of all.
	LogSample int
	// Tracer begins the spans; zero: it makes only ids.
	Tracer trace.Tracer
	// IETFRateLimitHeaders adds the header fields of the IETF draft to the X-Ratelimit ones.
	IETFRateLimitHeaders bool
}

// Defaults that the OpenAPI document has as well.
const (
	defaultKeyHeader   = "X-API-Key"
	defaultMetricsPath = "/prometheus"
)

func (o *Options) fillDefaults() {
	defaultTo(&o.KeyHeader, defaultKeyHeader)
	defaultTo(&o.MetricsPath, defaultMetricsPath)
	defaultTo(&o.Version, api.ServiceVersion)
	defaultTo(&o.MaxBodyBytes, 8<<20)
	defaultTo(&o.MaxHeaderBytes, 16<<10)
	defaultTo(&o.MaxConnections, 4096)
	defaultTo(&o.ReadTimeout, 10*time.Second)
	defaultTo(&o.WriteTimeout, 10*time.Second)
	defaultTo(&o.IdleTimeout, 75*time.Second)
	defaultTo(&o.RequestTimeout, 300*time.Second)
	defaultTo(&o.StreamHeartbeat, 15*time.Second)
	if o.Domains == nil {
		o.Domains = api.NewDomains(nil)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Live == nil {
		o.Live = o.Metrics.NewLiveSampler()
	}
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
