package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
	"tandem/proxy/metrics"
	"tandem/proxy/trace"
)

// Requests is the table of requests in flight as this package uses it; *inflight.Table implements it.
type Requests interface {
	// Admit takes a request in or refuses it, without waiting. A refusal is not counted there: the caller counts it
	// like its own. Every Answer must be settled. ctx only carries values, its end is not a Cancel. While no engine
	// was ever seen, Model and Version are empty until one lists its models; what isn't installed then ends with an
	// error.
	Admit(ctx context.Context, r inflight.Request) (inflight.Answer, *api.Error)
	Status() inflight.Status
	// Drain makes the table refuse every further request.
	Drain()
}

// Options of New. Requests and Metrics are needed; a zero means the default, or what
// the field's comment says.
type Options struct {
	Requests Requests
	Metrics  *metrics.Metrics
	Live     *metrics.LiveSampler // recent figures for /status/live; its owner runs it
	Keys     *auth.Keys           // nil: no key is asked for (AUTH_DISABLED)
	Limits   Limiter              // nil: no rate limit
	Domains  *api.Domains         // nil: general and other only
	Log      *slog.Logger         // nil: slog.Default()

	DefaultLimit limit.Rate // of keys without one of their own and of clients without a key
	KeyHeader    string     // X-API-Key
	MetricsPath  string     // /prometheus
	Prometheus   bool       // serve MetricsPath and /metrics/router
	// MetricsElsewhere keeps the metrics off the main listener, since ServeMetrics serves them on one of their own.
	MetricsElsewhere bool
	NoPage           bool // / is 404; /status/live stays
	Request          api.Limits

	MaxBodyBytes   int // 8 MiB
	MaxHeaderBytes int // 16 KiB
	MaxConnections int // 4096

	ReadTimeout      time.Duration // 10 s: a whole request, from its first byte
	WriteTimeout     time.Duration // 10 s: a reply, and each event of a stream
	IdleTimeout      time.Duration // 75 s: between two requests of a connection
	RequestTimeout   time.Duration // 300 s: from receipt to the end of the answer
	StreamHeartbeat  time.Duration // 15 s
	StreamHeaderWait time.Duration // as it is: 0 sends the status line at once
	EngineWait       time.Duration // as it is: how long the engine may be away before /readyz says no
	DrainDelay       time.Duration // between readiness off and the end of accepting; 0 for none
	DrainTimeout     time.Duration // as it is: for answers in hand

	CORSOrigins    []string       // exact origins, or * for any; none: off
	TrustedProxies []netip.Prefix // whose X-Forwarded-For counts
	CertFile       string         // with KeyFile: TLS, reloaded when the files change
	KeyFile        string

	// LogPrompts writes prompts and answers to the log at level debug.
	LogPrompts bool
	// LogSample writes the access line of one in so many successful inference requests; 0 or 1: of all.
	LogSample int
	// Tracer begins the spans; zero: there are only ids.
	Tracer trace.Tracer
	// RateLimitDraft adds the header fields of the IETF draft to those that clients know.
	RateLimitDraft bool
}

// Server serves HTTP until Shutdown.
type Server struct {
	o       Options
	log     *slog.Logger
	http    *fasthttp.Server
	scrapes *fasthttp.Server // of ServeMetrics
	routes  map[string]*route
	other   *route // for paths without a route
	watch   *watcher
	certs   *certificates // nil without TLS
	origins origins

	draining atomic.Bool   // readiness is off
	expired  chan struct{} // closed when answers in hand have to end now
	expire   sync.Once
	open     atomic.Int64 // exchanges in hand

	mu         sync.Mutex
	listeners  []*listener
	ended      bool // nothing is accepted any more
	drainBegan time.Time
	refuse     *time.Timer // makes the request table take nothing new

	pages sync.Pool // *bytes.Buffer
}

// New prepares a server; Serve starts it.
func New(o Options) (*Server, error) {
	o.fillDefaults()
	s := &Server{o: o, log: o.Log, origins: o.CORSOrigins, expired: make(chan struct{})}
	s.pages.New = func() any { return new(bytes.Buffer) }
	if o.CertFile != "" {
		certs, err := loadCertificates(o.CertFile, o.KeyFile, o.Log)
		if err != nil {
			return nil, err
		}
		s.certs = certs
	}
	if err := s.makeRoutes(); err != nil {
		return nil, err
	}
	watch, err := newWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	s.watch = watch
	s.http = s.newHTTP(s.handle)
	s.scrapes = s.newHTTP(s.handleScrape)
	return s, nil
}

func (o *Options) fillDefaults() {
	defaultTo(&o.KeyHeader, "X-API-Key")
	defaultTo(&o.MetricsPath, "/prometheus")
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

// newHTTP makes a fasthttp server with every limit set.
func (s *Server) newHTTP(handler fasthttp.RequestHandler) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:        handler,
		HeaderReceived: s.bodyLimit,
		ErrorHandler:   s.handleBroken,
		ExpectHandler:  s.handleExpect,
		Logger:         debugLog{s.log},

		Concurrency:        s.o.MaxConnections + refusalsAtOnce, // ours refuses first, and in JSON
		ReadBufferSize:     s.o.MaxHeaderBytes,
		WriteBufferSize:    16 << 10,
		MaxRequestBodySize: s.o.MaxBodyBytes,
		ReadTimeout:        s.o.ReadTimeout,
		WriteTimeout:       s.o.WriteTimeout,
		IdleTimeout:        s.o.IdleTimeout,

		SecureErrorLogMessage:        true,
		NoDefaultServerHeader:        true,
		CloseOnShutdown:              true,
		DisablePreParseMultipartForm: true,
	}
}

// Serve accepts connections from ln until Shutdown, which it doesn't wait for.
func (s *Server) Serve(ln net.Listener) error {
	own := s.track(ln)
	if own == nil {
		return nil
	}
	var accept net.Listener = own
	if s.certs != nil {
		accept = s.certs.listen(own)
	}
	return wrapServe(s.http.Serve(accept), ln)
}

// ServeMetrics serves only the metrics and /livez from ln, until Shutdown.
func (s *Server) ServeMetrics(ln net.Listener) error {
	own := s.track(ln)
	if own == nil {
		return nil
	}
	return wrapServe(s.scrapes.Serve(own), ln)
}

func wrapServe(err error, ln net.Listener) error {
	if err != nil {
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	}
	return nil
}

// track gives the listener to accept from; nil after Shutdown.
func (s *Server) track(ln net.Listener) *listener {
	own := newListener(ln, s.watch, s.o.MaxConnections, s.origins, s.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = own.Close()
		return nil
	}
	s.listeners = append(s.listeners, own)
	return own
}

// stopAccepting closes listeners of which fasthttp, when it was told to stop, didn't know yet: it would accept from them for ever.
func (s *Server) stopAccepting() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	for _, l := range s.allListeners() {
		_ = l.Close()
	}
}

// Drain begins a drain: readiness goes off at once, and after DrainDelay nothing new is taken in. Answers in hand go on.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drainBegan.IsZero() {
		return
	}
	s.drainBegan = time.Now()
	s.draining.Store(true)
	s.o.Metrics.SetDraining(true)
	s.log.Info("draining: /readyz says 503 from now on", "drain_delay", s.o.DrainDelay)
	s.refuse = time.AfterFunc(s.o.DrainDelay, s.o.Requests.Drain)
}

// silentTime is how long a drain waits for connections on which the client hasn't said anything yet.
const silentTime = 500 * time.Millisecond

// closingTime is what Shutdown keeps of its time for answers that it has to break off, so that they can say so.
const closingTime = time.Second

// Shutdown drains and ends: readiness off, DrainDelay, no more connections, answers in hand finish within DrainTimeout or end with an
// error. Time that passed since Drain counts. It returns when every connection is closed, at the latest a moment after ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.mu.Lock()
	refused, refuse := s.drainBegan.Add(s.o.DrainDelay), s.refuse
	s.mu.Unlock()
	sleep(ctx, time.Until(refused))
	refuse.Stop()
	s.o.Requests.Drain()

	left := drainLeft(time.Since(refused), s.o.DrainTimeout)
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	early := time.AfterFunc(left-min(closingTime, left/4), s.breakOff)
	defer early.Stop()
	silent := time.AfterFunc(silentTime, func() { s.abort(silentConn) })
	defer silent.Stop()

	var err error
	for _, h := range []*fasthttp.Server{s.http, s.scrapes} {
		if stop := h.ShutdownWithContext(ctx); stop != nil && !errors.Is(stop, context.DeadlineExceeded) {
			err = errors.Join(err, stop)
		}
	}
	s.stopAccepting()
	s.breakOff()
	s.close()
	return err
}

// drainLeft is what is left of a drain's time; always enough to say goodbye.
func drainLeft(passed, timeout time.Duration) time.Duration {
	return max(timeout-passed, min(closingTime, timeout))
}

func (s *Server) breakOff() {
	s.expire.Do(func() {
		if n := s.open.Load(); n > 0 {
			s.log.Warn("the time for draining is over: answers in hand are broken off", "open", n)
		}
		close(s.expired)
	})
}

// Abandon ends a server that was never served from.
func (s *Server) Abandon() { s.watch.close() }

// close ends what is left of every connection.
func (s *Server) close() {
	if n := s.abort(anyConn); n > 0 {
		s.log.Warn("connections were cut", "connections", n)
	}
	for _, l := range s.allListeners() {
		l.refusing.Wait()
	}
	s.watch.close()
}

func (s *Server) abort(which func(*conn) bool) int {
	n := 0
	for _, l := range s.allListeners() {
		n += l.abort(which)
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

// debugLog takes what fasthttp has to say. It is about clients that misbehave and may repeat parts of their requests, so it is kept
// out of an operator's log.
type debugLog struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (l debugLog) Printf(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("http", "event", fmt.Sprintf(format, args...))
	}
}
