package main

import (
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"time"

	"tandem/proxy/limit"
	"tandem/proxy/server"
	"tandem/schema/settings"
)

// Config has all settings of the proxy. The meaning of each is in schema/settings/settings_table.go.
type Config struct {
	Values   *settings.Values // for check-config: where each value came from
	Warnings []string         // probable mistakes, for the log

	Host       string
	Port       int // 0: a free one
	LogLevel   slog.Level
	LogJSON    bool
	LogPrompts bool
	LogSample  int    // one in LogSample
	TLSCert    string // with TLSKey, or both empty
	TLSKey     string

	MaxConnections int
	MaxBodyBytes   int
	MaxHeaderBytes int
	PromptBytes    int

	ReadTimeout      time.Duration
	WriteTimeout     time.Duration
	IdleTimeout      time.Duration
	RequestTimeout   time.Duration
	StreamHeaderWait time.Duration
	StreamHeartbeat  time.Duration
	DrainDelay       time.Duration
	DrainTimeout     time.Duration

	TrustedProxies []netip.Prefix
	CORSOrigins    []string

	PrometheusEnabled bool
	MetricsPath       string
	MetricsAddr       string // host:port; empty: on the main listener
	CustomMetrics     bool
	NativeHistograms  bool
	KeepRemoved       time.Duration // series of removed models
	PageEnabled       bool
	Domains           []string
	SLOFirstToken     time.Duration
	SLOPerToken       time.Duration
	SLORequest        time.Duration

	TraceCollector string // base URL; empty: no spans
	TraceService   string
	TraceRatio     float64

	DefaultModel    string
	DefaultModelSet bool // it was set explicitly; otherwise another model may be used (settings.DefaultModel)
	DefaultVersion  string
	CacheSize       int

	APIKeyHeader string
	APIKeysFile  string
	APIKeys      []string // name:secret
	AuthDisabled bool
	RateLimit    limit.Rate
	IETFHeaders  bool
	StoreURL     string // of the rate limits, with its password; empty: none
	StoreTimeout time.Duration

	QueueCapacity   int
	QueueMaxBytes   int64
	QueueMaxTokens  int
	QueueKeyShare   float64
	JournalMaxBytes int64

	EngineSocket       string
	EnginePeerUIDs     []uint32 // besides our own
	EngineWait         time.Duration
	EngineStallTimeout time.Duration
	ModelLoadWait      time.Duration
	ReplayWait         time.Duration
	ReplayDecode       bool // token by token instead of one prefill
	QuarantineTTL      time.Duration
}

// loadConfig reads the proxy's settings. Errors are settings.ErrHelp, settings.ErrVersion or a list of everything that
// is wrong; the list comes with the settings that are valid.
func loadConfig(args, environ []string) (*Config, error) {
	c, err := loadConfigUnchecked(args, environ)
	if c == nil {
		return nil, err
	}
	return c, settings.Check(err, c.check())
}

// loadConfigUnchecked is loadConfig without checking that the settings fit together, for commands that only look for a
// server that runs with them.
func loadConfigUnchecked(args, environ []string) (*Config, error) {
	v, err := settings.Load(settings.Proxy, args, environ, os.ReadFile)
	if v == nil {
		return nil, err
	}
	c := &Config{Values: v, Warnings: v.Warnings()}
	c.readServer(v)
	c.readMonitoring(v)
	c.readModels(v)
	c.readEngine(v)
	return c, err
}

func (c *Config) readServer(v *settings.Values) {
	c.Host, c.Port = v.String("HOST"), v.Int("PORT")
	c.LogLevel, c.LogJSON, c.LogPrompts = logLevel(v.String("LOG_LEVEL")), v.String("LOG_FORMAT") == "json", v.Bool("LOG_PROMPTS")
	c.LogSample = v.Int("LOG_SAMPLE")
	c.TLSCert, c.TLSKey = v.String("TLS_CERT_FILE"), v.String("TLS_KEY_FILE")
	c.MaxConnections = v.Int("MAX_CONNECTIONS")
	c.MaxBodyBytes, c.MaxHeaderBytes = int(v.Bytes("MAX_BODY_BYTES")), int(v.Bytes("MAX_HEADER_BYTES"))
	c.PromptBytes = int(v.Bytes("PROMPT_MAX"))
	c.ReadTimeout, c.WriteTimeout, c.IdleTimeout = v.Duration("READ_TIMEOUT"), v.Duration("WRITE_TIMEOUT"), v.Duration("IDLE_TIMEOUT")
	c.RequestTimeout = v.Duration("REQUEST_TIMEOUT")
	c.StreamHeaderWait, c.StreamHeartbeat = v.Duration("STREAM_HEADER_WAIT"), v.Duration("STREAM_HEARTBEAT")
	c.DrainDelay, c.DrainTimeout = v.Duration("DRAIN_DELAY"), v.Duration("DRAIN_TIMEOUT")
	c.TrustedProxies, c.CORSOrigins = networks(v.List("TRUSTED_PROXIES")), v.List("CORS_ORIGINS")

	c.APIKeyHeader, c.APIKeysFile = v.String("API_KEY_HEADER"), v.String("API_KEYS_FILE")
	c.APIKeys, c.AuthDisabled = v.List("API_KEYS"), v.Bool("AUTH_DISABLED")
	rate := v.Rate("RATE_LIMIT")
	c.RateLimit, c.IETFHeaders = limit.Rate{Requests: rate.Count, Unit: rate.Per}, v.Bool("RATE_LIMIT_IETF_HEADERS")
	c.StoreURL, c.StoreTimeout = v.String("RATE_LIMIT_STORE"), v.Duration("RATE_LIMIT_STORE_TIMEOUT")
}

func (c *Config) readMonitoring(v *settings.Values) {
	c.PrometheusEnabled, c.MetricsPath, c.MetricsAddr = v.Bool("PROMETHEUS_ENABLED"), v.String("METRICS_PATH"), v.String("METRICS_ADDR")
	c.CustomMetrics, c.NativeHistograms = v.Bool("CUSTOM_METRICS"), v.Bool("NATIVE_HISTOGRAMS")
	c.KeepRemoved = v.Duration("METRICS_KEEP_REMOVED")
	c.PageEnabled, c.Domains = v.Bool("PAGE_ENABLED"), v.List("DOMAINS")
	c.TraceCollector, c.TraceService, c.TraceRatio = v.String("OTEL_EXPORTER_OTLP_ENDPOINT"), v.String("OTEL_SERVICE_NAME"), v.Float("OTEL_TRACES_SAMPLER_ARG")
	c.SLOFirstToken, c.SLOPerToken, c.SLORequest = v.Duration("SLO_TTFT"), v.Duration("SLO_TPOT"), v.Duration("SLO_E2E")
}

func (c *Config) readModels(v *settings.Values) {
	c.DefaultModel, c.DefaultModelSet = v.String("DEFAULT_MODEL"), v.IsSet("DEFAULT_MODEL")
	c.DefaultVersion, c.CacheSize = v.String("DEFAULT_VERSION"), v.Int("CACHE_SIZE")
	c.ModelLoadWait = v.Duration("MODEL_LOAD_WAIT")
}

func (c *Config) readEngine(v *settings.Values) {
	c.QueueCapacity, c.QueueMaxBytes = v.Int("QUEUE_CAPACITY"), v.Bytes("QUEUE_MAX_BYTES")
	c.QueueMaxTokens, c.QueueKeyShare = v.Int("QUEUE_MAX_TOKENS"), v.Float("QUEUE_KEY_SHARE")
	c.JournalMaxBytes = v.Bytes("JOURNAL_MAX_BYTES")
	c.EngineSocket, c.EnginePeerUIDs = v.String("ENGINE_SOCKET"), userIDs(v.List("ENGINE_PEER_UIDS"))
	c.EngineWait, c.EngineStallTimeout = v.Duration("ENGINE_WAIT"), v.Duration("ENGINE_STALL_TIMEOUT")
	c.ReplayWait, c.ReplayDecode = v.Duration("REPLAY_WAIT"), v.String("REPLAY") == "decode"
	c.QuarantineTTL = v.Duration("QUARANTINE_TTL")
}

// check finds settings that are valid by themselves but don't fit together.
func (c *Config) check() (problems []settings.Problem) {
	add := func(name, text string) { problems = append(problems, c.Values.Problem(name, text)) }
	if (c.TLSCert == "") != (c.TLSKey == "") {
		add("TLS_CERT_FILE", "is only good together with TLS_KEY_FILE")
	}
	if server.IsTaken(c.MetricsPath) {
		add("METRICS_PATH", c.MetricsPath+" is taken by another endpoint")
	}
	if c.MaxBodyBytes < c.PromptBytes && c.Values.Good("MAX_BODY_BYTES", "PROMPT_MAX") {
		add("MAX_BODY_BYTES", "must not be less than PROMPT_MAX")
	}
	switch {
	case !c.Values.Good("AUTH_DISABLED", "API_KEYS_FILE", "API_KEYS"):
	case !c.hasKeys() && !c.AuthDisabled:
		add("API_KEYS_FILE", "there are no API keys; name a file of keys (make entries with: tandem-proxy keys new NAME), or set AUTH_DISABLED=true to serve everybody")
	case c.hasKeys() && c.AuthDisabled:
		add("AUTH_DISABLED", "API keys are configured as well; remove one of both")
	}
	return problems
}

func (c *Config) hasKeys() bool { return c.APIKeysFile != "" || len(c.APIKeys) > 0 }

// logLevel, networks and userIDs convert values that package settings has checked.
func logLevel(name string) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo
	}
	return level
}

func networks(list []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range list {
		if address, err := netip.ParseAddr(text); err == nil {
			address = address.Unmap().WithZone("")
			prefixes = append(prefixes, netip.PrefixFrom(address, address.BitLen()))
		} else if prefix, err := netip.ParsePrefix(text); err == nil {
			prefixes = append(prefixes, prefix.Masked())
		}
	}
	return prefixes
}

func userIDs(list []string) []uint32 {
	var ids []uint32
	for _, text := range list {
		if id, err := strconv.ParseUint(text, 10, 32); err == nil {
			ids = append(ids, uint32(id))
		}
	}
	return ids
}
