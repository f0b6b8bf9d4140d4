package server

import (
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"tandem/proxy/limit"
)

// corsMaxAge is how long a browser may remember a preflight, in seconds.
const corsMaxAge = "600"

// anyOrigin lets every page read a reply.
const anyOrigin = "*"

// exposedHeaders are those that a page may read besides the few that it always may.
var exposedHeaders = strings.Join([]string{requestIDHeader, traceReply, fasthttp.HeaderRetryAfter, fasthttp.HeaderAllow,
	limit.HeaderLimit, limit.HeaderRemaining, limit.HeaderReset, limit.HeaderPolicy, limit.HeaderRateLimit}, ", ")

// origins are the pages of other hosts that may read replies (CORS_ORIGINS). None: cross-origin requests are off.
type origins []string

func (o origins) allow(origin string) bool {
	return slices.Contains(o, origin) || slices.Contains(o, anyOrigin)
}

// mark says on a reply which page may read it. Every reply is marked, and varies by origin also when the asking one isn't listed, or
// asks for nothing: a cache must not give one origin the reply for another.
func (o origins) mark(request *fasthttp.RequestHeader, reply *fasthttp.ResponseHeader) {
	if len(o) == 0 {
		return
	}
	reply.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	if origin := string(request.Peek(fasthttp.HeaderOrigin)); origin != "" && o.allow(origin) {
		o.open(origin, reply)
	}
}

// markUnread is mark for a request of which nothing is known: its header was too large, or came too slowly, or fasthttp forgot it with a
// body in chunks. Any page may read that this is so, which says nothing about anybody.
func (o origins) markUnread(request *fasthttp.RequestHeader, reply *fasthttp.ResponseHeader) {
	if len(o) > 0 && len(request.Host()) == 0 && len(request.Peek(fasthttp.HeaderOrigin)) == 0 {
		o.open(anyOrigin, reply)
	}
}

func (o origins) open(origin string, reply *fasthttp.ResponseHeader) {
	reply.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	reply.Set(fasthttp.HeaderAccessControlExposeHeaders, exposedHeaders)
}

// markedLines is markUnread for a reply that is written without an HTTP server.
func (o origins) markedLines() string {
	if len(o) == 0 {
		return ""
	}
	return fasthttp.HeaderVary + ": " + fasthttp.HeaderOrigin + "\r\n" +
		fasthttp.HeaderAccessControlAllowOrigin + ": " + anyOrigin + "\r\n" +
		fasthttp.HeaderAccessControlExposeHeaders + ": " + exposedHeaders + "\r\n"
}

// preflight answers a browser that asks whether a page may send a request. It tells whether this was one, of a listed origin. A path
// without a route gets a yes, too: the page then sees the 404 rather than an error that tells it nothing.
func (s *Server) preflight(x *exchange, r *route) bool {
	request := &x.ctx.Request.Header
	origin := string(request.Peek(fasthttp.HeaderOrigin))
	if !x.ctx.IsOptions() || origin == "" || len(request.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 || !s.origins.allow(origin) {
		return false
	}
	methods := "GET, HEAD, POST"
	if r != nil {
		methods = r.allow()
	}
	h := &x.ctx.Response.Header
	h.Set(fasthttp.HeaderAccessControlAllowMethods, methods)
	h.Set(fasthttp.HeaderAccessControlAllowHeaders, strings.Join([]string{fasthttp.HeaderContentType, fasthttp.HeaderAuthorization, s.o.KeyHeader,
		requestIDHeader, timeoutHeader, domainHeader, traceHeader, stateHeader}, ", "))
	h.Set(fasthttp.HeaderAccessControlMaxAge, corsMaxAge)
	x.status = fasthttp.StatusNoContent
	x.ctx.SetStatusCode(x.status)
	return true
}
