package server

import (
	"errors"
	"fmt"
	"strings"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"tandem/proxy/api"
	"tandem/proxy/api/infer"
	"tandem/proxy/metrics"
)

// defaultDialect is that of /infer and of the errors of every endpoint that belongs to no other one.
var defaultDialect api.Dialect = infer.Dialect{}

// route is one endpoint.
type route struct {
	path        string
	description string // for the table at /
	inference   bool   // POST only, and traced and logged as inference
	post        bool   // POST only; the others are GET and HEAD
	everyMethod bool   // DELETE, too
	// dialect writes the errors, and for inference reads requests and writes replies; nil: defaultDialect.
	dialect  api.Dialect
	idHeader string          // of replies, a second name for X-Request-Id that the dialect's clients know; empty: none
	serve    func(*exchange) // nil: there is no such endpoint
	metrics  *metrics.Endpoint
}

func (r *route) allow() string {
	switch {
	case r.everyMethod:
		return "DELETE, GET, HEAD, POST"
	case r.inference || r.post:
		return "POST"
	}
	return "GET, HEAD"
}

func (r *route) allows(ctx *fasthttp.RequestCtx) bool {
	switch {
	case r.everyMethod:
		return true
	case r.inference || r.post:
		return ctx.IsPost()
	}
	return ctx.IsGet() || ctx.IsHead()
}

func (s *Server) makeRoutes() error {
	s.routes = make(map[string]*route)
	for _, r := range []*route{
		{path: "/health", description: "whether the service lives; always 200", serve: s.health},
		{path: "/livez", description: "liveness probe", serve: s.livez},
		{path: "/readyz", description: "readiness probe; says what is missing", serve: s.readyz},
		{path: "/status", description: "status, devices and loaded models", serve: s.status},
		{path: "/status/live", description: "the figures of this moment", serve: s.statusLive},
		{path: "/models", description: "installed models with their versions", serve: s.models},
		{path: "/infer", description: "inference; with an API key", inference: true, serve: s.infer},
	} {
		s.addRoute(r)
	}
	s.addOpenAIRoutes()
	s.addResponsesRoutes()
	s.addVocabularyRoutes()
	s.addAnthropicRoutes()
	s.addOpenAPIRoute()
	s.addLivePageRoutes()
	s.otherRoute = &route{path: "other", dialect: defaultDialect, metrics: s.opts.Metrics.Endpoint("other")}
	if !s.opts.Prometheus {
		return nil
	}
	return s.addMetricsRoutes()
}

func (s *Server) addMetricsRoutes() error {
	if !strings.HasPrefix(s.opts.MetricsPath, "/") {
		return fmt.Errorf("METRICS_PATH=%s doesn't begin with /", s.opts.MetricsPath)
	}
	scrape := fasthttpadaptor.NewFastHTTPHandler(s.opts.Metrics.Handler())
	for _, r := range []*route{
		{path: s.opts.MetricsPath, description: "metrics for Prometheus", serve: func(x *exchange) { s.scrape(x, scrape) }},
		{path: "/metrics/router", description: "a short page of metrics for routers", serve: s.routerPage},
	} {
		if s.routes[r.path] != nil {
			return fmt.Errorf("METRICS_PATH=%s is the path of another endpoint", r.path)
		}
		s.addRoute(r)
	}
	return nil
}

// scrape serves the metrics page. The number of rate-limit keys, which changes with time, is set now.
func (s *Server) scrape(x *exchange, page fasthttp.RequestHandler) {
	if s.opts.Limits != nil {
		s.opts.Metrics.SetRateLimitKeys(s.opts.Limits.Len())
	}
	page(x.ctx)
	if len(x.ctx.Response.Header.Peek(requestIDHeader)) == 0 { // the adaptor failed and has reset the reply
		x.ctx.Response.Reset()
		x.setCommonHeaders()
		x.replyError(api.Internal(errors.New("the metrics page can't be made for this request")))
		return
	}
	if x.status = x.ctx.Response.StatusCode(); x.status >= fasthttp.StatusInternalServerError {
		x.label = api.LabelError
	}
}

func (s *Server) addRoute(r *route) {
	if r.dialect == nil {
		r.dialect = defaultDialect
	}
	r.metrics = s.opts.Metrics.Endpoint(r.path)
	s.routes[r.path] = r
}

func (s *Server) isMetrics(path string) bool {
	return path == s.opts.MetricsPath || path == "/metrics/router"
}

// findRoute never returns nil.
func (s *Server) findRoute(ctx *fasthttp.RequestCtx) *route {
	return s.forClient(ctx, s.findPath(string(ctx.Path())))
}

// findPath never returns nil.
func (s *Server) findPath(path string) *route {
	if r := s.routes[path]; r != nil {
		return r
	}
	for _, find := range []func(string) *route{s.findAnthropicRoute, s.findResponsesRoute, s.findOpenAIRoute} {
		if r := find(path); r != nil {
			return r
		}
	}
	return s.otherRoute
}

// handle serves every request on the main listener.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r := s.findRoute(ctx)
	if s.opts.SeparateMetrics && s.isMetrics(r.path) {
		r = s.otherRoute
	}
	s.serve(ctx, r)
}

// handleMetrics serves every request on the listener for metrics.
func (s *Server) handleMetrics(ctx *fasthttp.RequestCtx) {
	r := s.findRoute(ctx)
	if !s.isMetrics(r.path) && r.path != "/livez" {
		r = s.otherRoute
	}
	s.serve(ctx, r)
}

// serve wraps a route with the recovery from panics, the request id, the count and the log.
func (s *Server) serve(ctx *fasthttp.RequestCtx, r *route) {
	s.arrivals.end(&ctx.Request.Header)
	x := s.beginExchange(ctx, r, ctx.Time())
	defer s.closeWhileDraining(ctx)
	defer x.recoverPanic()
	switch {
	case s.answerPreflight(x, r):
	case r.serve == nil:
		x.replyError(api.NotFound(string(ctx.Path())))
	case !r.allows(ctx):
		ctx.Response.Header.Set(fasthttp.HeaderAllow, r.allow())
		x.replyError(api.MethodNotAllowed(string(ctx.Method()), r.allow()))
	default:
		r.serve(x)
	}
	if !x.streaming {
		x.finish()
	}
}
