package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Server serves HTTP until Shutdown.
type Server struct {
	opts        Options
	log         *slog.Logger
	http        *fasthttp.Server
	metricsHTTP *fasthttp.Server // of ServeMetrics
	routes      map[string]*route
	otherRoute  *route // for paths without a route
	// modelRoute has every path below /v1/models/; otherOpenAIRoute is for paths below /v1/ without a route,
	// otherAnthropicRoute for those below /v1/messages/.
	modelRoute, otherOpenAIRoute, otherAnthropicRoute *route
	// anthropicModelsRoute and anthropicModelRoute are the list of models and its entries for Anthropic's clients.
	anthropicModelsRoute, anthropicModelRoute *route
	// storedResponseRoute has the paths below /v1/responses/ that are about a stored response, streamRoute those of
	// streams that can be resumed.
	storedResponseRoute, streamRoute *route
	madeAt                           time.Time
	arrivals                         *bodyArrivals
	disconnects                      *disconnectWatcher
	certs                            *certificates // nil without TLS
	corsOrigins                      corsOrigins

	draining      atomic.Bool   // readiness is off
	drainExpired  chan struct{} // closed when answers in flight have to end now
	expireOnce    sync.Once     // closes drainExpired
	openExchanges atomic.Int64
	resumable     *resumableStreams
	places        keyPlaces

	mu           sync.Mutex
	listeners    []*listener
	stopped      bool // no listener accepts any more
	drainStarted time.Time
	refuseTimer  *time.Timer // makes the request table refuse new requests

	pageBuffers sync.Pool // *bytes.Buffer
}

// New prepares a server; Serve starts it.
func New(o Options) (*Server, error) {
	o.fillDefaults()
	s := &Server{opts: o, log: o.Log, corsOrigins: o.CORSOrigins, madeAt: time.Now(), drainExpired: make(chan struct{})}
	s.arrivals = newBodyArrivals(o.ReadTimeout)
	s.resumable = newResumableStreams(s)
	s.pageBuffers.New = func() any { return new(bytes.Buffer) }
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
	disconnects, err := newDisconnectWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	s.disconnects = disconnects
	s.http = s.newHTTP(s.handle)
	s.metricsHTTP = s.newHTTP(s.handleMetrics)
	return s, nil
}

// newHTTP makes a fasthttp server with every limit set.
func (s *Server) newHTTP(handler fasthttp.RequestHandler) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:        handler,
		HeaderReceived: s.headerReceived,
		ErrorHandler:   s.handleUnreadable,
		ConnState:      s.connState,
		ExpectHandler:  s.handleExpect,
		Logger:         fasthttpLog{s.log},

		// the listener refuses first, with a JSON error
		Concurrency:        s.opts.MaxConnections + maxConcurrentRefusals,
		ReadBufferSize:     s.opts.MaxHeaderBytes,
		WriteBufferSize:    16 << 10,
		MaxRequestBodySize: s.opts.MaxBodyBytes,
		ReadTimeout:        s.opts.ReadTimeout,
		WriteTimeout:       s.opts.WriteTimeout,
		IdleTimeout:        s.opts.IdleTimeout,

		SecureErrorLogMessage:        true,
		NoDefaultServerHeader:        true,
		CloseOnShutdown:              true,
		DisablePreParseMultipartForm: true,
	}
}

// Serve accepts connections from ln until Shutdown, which it doesn't wait for.
func (s *Server) Serve(ln net.Listener) error {
	tracked := s.addListener(ln)
	if tracked == nil {
		return nil
	}
	var accept net.Listener = tracked
	if s.certs != nil {
		tracked.tls = s.certs.config()
		accept = tls.NewListener(tracked, tracked.tls)
	}
	return serveError(s.http.Serve(accept), ln)
}

// ServeMetrics serves only the metrics and /livez from ln, until Shutdown.
func (s *Server) ServeMetrics(ln net.Listener) error {
	tracked := s.addListener(ln)
	if tracked == nil {
		return nil
	}
	return serveError(s.metricsHTTP.Serve(tracked), ln)
}

func serveError(err error, ln net.Listener) error {
	if err != nil {
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	}
	return nil
}

// addListener returns the listener to accept from; nil after Shutdown.
func (s *Server) addListener(ln net.Listener) *listener {
	tracked := newListener(ln, s.disconnects, s.opts.MaxConnections, s.corsOrigins, s.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = tracked.Close()
		return nil
	}
	s.listeners = append(s.listeners, tracked)
	return tracked
}

// fasthttpLog receives fasthttp's messages. They are about clients that misbehave and may repeat parts of their
// requests, so they are logged at debug only.
type fasthttpLog struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (l fasthttpLog) Printf(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("http", "event", fmt.Sprintf(format, args...))
	}
}
