package server

import (
	"errors"
	"fmt"
	"strings"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// route is one endpoint.
type route struct {
	path    string
	about   string // for the table at /
	post    bool   // POST only; otherwise GET and HEAD
	serve   func(*exchange)
	metrics *metrics.Endpoint
}

func (r *route) allow() string {
	if r.post {
		return "POST"
	}
	return "GET, HEAD"
}

func (r *route) allows(ctx *fasthttp.RequestCtx) bool {
	if r.post {
		return ctx.IsPost()
	}
	return ctx.IsGet() || ctx.IsHead()
}

func (s *Server) makeRoutes() error {
	s.routes = make(map[string]*route)
	for _, r := range []*route{
		{path: "/health", about: "whether the service lives; always 200", serve: s.health},
		{path: "/livez", about: "liveness probe", serve: s.livez},
		{path: "/readyz", about: "readiness probe; says what is missing", serve: s.readyz},
		{path: "/status", about: "status, devices and loaded models", serve: s.status},
		{path: "/status/live", about: "the figures of this moment", serve: s.live},
		{path: "/models", about: "installed models with their versions", serve: s.models},
		{path: inferPath, about: "inference; with an API key", post: true, serve: s.infer},
	} {
		s.addRoute(r)
	}
	s.addPage()
	s.other = &route{path: "other", metrics: s.o.Metrics.Endpoint("other")}
	if !s.o.Prometheus {
		return nil
	}
	return s.addMetricsRoutes()
}

func (s *Server) addMetricsRoutes() error {
	if !strings.HasPrefix(s.o.MetricsPath, "/") {
		return fmt.Errorf("METRICS_PATH=%s doesn't begin with /", s.o.MetricsPath)
	}
	scrape := fasthttpadaptor.NewFastHTTPHandler(s.o.Metrics.Handler())
	for _, r := range []*route{
		{path: s.o.MetricsPath, about: "metrics for Prometheus", serve: func(x *exchange) { s.scrape(x, scrape) }},
		{path: "/metrics/router", about: "a short page of metrics for routers", serve: s.routerPage},
	} {
		if s.routes[r.path] != nil {
			return fmt.Errorf("METRICS_PATH=%s is the path of another endpoint", r.path)
		}
		s.addRoute(r)
	}
	return nil
}

// scrape renders the metrics page. What only changes by the clock is measured now.
func (s *Server) scrape(x *exchange, page fasthttp.RequestHandler) {
	if s.o.Limits != nil {
		s.o.Metrics.SetRateLimitKeys(s.o.Limits.Len())
	}
	page(x.ctx)
	if len(x.ctx.Response.Header.Peek(requestIDHeader)) == 0 { // the adaptor gave up, and began the reply anew
		x.ctx.Response.Reset()
		x.mark()
		x.fail(api.Internal(errors.New("the metrics page can't be made for this request")))
		return
	}
	if x.status = x.ctx.Response.StatusCode(); x.status >= fasthttp.StatusInternalServerError {
		x.label = api.LabelError
	}
}

func (s *Server) addRoute(r *route) {
	r.metrics = s.o.Metrics.Endpoint(r.path)
	s.routes[r.path] = r
}

func (s *Server) isMetrics(path string) bool {
	return path == s.o.MetricsPath || path == "/metrics/router"
}

// handle is the way of every request on the main listener.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r := s.routes[string(ctx.Path())]
	if r != nil && s.o.MetricsElsewhere && s.isMetrics(r.path) {
		r = nil
	}
	s.serve(ctx, r)
}

// handleScrape is the way of every request on the listener for metrics.
func (s *Server) handleScrape(ctx *fasthttp.RequestCtx) {
	r := s.routes[string(ctx.Path())]
	if r != nil && !s.isMetrics(r.path) && r.path != "/livez" {
		r = nil
	}
	s.serve(ctx, r)
}

// serve leads one request through recover, id, count and route. A nil route is a path that nobody serves.
func (s *Server) serve(ctx *fasthttp.RequestCtx, r *route) {
	x := s.begin(ctx, r, ctx.Time())
	defer x.recovered()
	switch {
	case s.preflight(x, r):
	case r == nil:
		x.fail(api.NotFound(string(ctx.Path())))
	case !r.allows(ctx):
		ctx.Response.Header.Set(fasthttp.HeaderAllow, r.allow())
		x.fail(api.MethodNotAllowed(string(ctx.Method()), r.allow()))
	default:
		r.serve(x)
	}
	if !x.streaming {
		x.finish()
	}
}
