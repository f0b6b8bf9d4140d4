package server

import (
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"tandem/proxy/limit"
)

// corsMaxAge is how long a browser may remember a preflight, in seconds.
const corsMaxAge = "600"

// anyOrigin in CORS_ORIGINS lets every page read a reply.
const anyOrigin = "*"

// exposedHeaders are the reply headers that a page may read, besides the few that it may always read.
var exposedHeaders = strings.Join([]string{requestIDHeader, anthropicIDHeader, revisionHeader, streamIDHeader, traceresponseHeader, fasthttp.HeaderRetryAfter, fasthttp.HeaderAllow,
	limit.HeaderLimit, limit.HeaderRemaining, limit.HeaderReset, limit.HeaderLimitTokens, limit.HeaderRemainingTokens, limit.HeaderResetTokens,
	limit.HeaderPolicy, limit.HeaderRateLimit}, ", ")

// sdkHeaders are request headers that OpenAI's and Anthropic's client libraries for browsers send by themselves. A page
// whose preflight doesn't allow one of them can't send its request.
var sdkHeaders = strings.Join([]string{fasthttp.HeaderUserAgent, "OpenAI-Organization", "OpenAI-Project",
	"Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access", "X-Stainless-Helper", "X-Stainless-Arch", "X-Stainless-Helper-Method",
	"X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version", "X-Stainless-Poll-Helper", "X-Stainless-Custom-Poll-Interval",
	"X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version", "X-Stainless-Timeout"}, ", ")

// corsOrigins are the origins whose pages may read replies (CORS_ORIGINS). None: cross-origin requests are off.
type corsOrigins []string

func (o corsOrigins) allows(origin string) bool {
	return slices.Contains(o, origin) || slices.Contains(o, anyOrigin)
}

// addHeaders adds the CORS headers to a reply. Every reply varies by origin, also when the request's origin isn't
// listed or the request has none: a cache must not give one origin the reply for another.
func (o corsOrigins) addHeaders(request *fasthttp.RequestHeader, reply *fasthttp.ResponseHeader) {
	if len(o) == 0 {
		return
	}
	reply.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	if origin := string(request.Peek(fasthttp.HeaderOrigin)); origin != "" && o.allows(origin) {
		o.allowOrigin(origin, reply)
	}
}

// addHeadersUnread is addHeaders for a request whose header is unknown: it was too large, or came too slowly. Any page
// may read the error, since it reveals nothing about anybody.
func (o corsOrigins) addHeadersUnread(request *fasthttp.RequestHeader, reply *fasthttp.ResponseHeader) {
	if len(o) > 0 && len(request.Host()) == 0 && len(request.Peek(fasthttp.HeaderOrigin)) == 0 {
		o.allowOrigin(anyOrigin, reply)
	}
}

func (o corsOrigins) allowOrigin(origin string, reply *fasthttp.ResponseHeader) {
	reply.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	reply.Set(fasthttp.HeaderAccessControlExposeHeaders, exposedHeaders)
}

// rawHeaderLines are the lines of addHeadersUnread, for a reply that is written without an HTTP server.
func (o corsOrigins) rawHeaderLines() string {
	if len(o) == 0 {
		return ""
	}
	return fasthttp.HeaderVary + ": " + fasthttp.HeaderOrigin + "\r\n" +
		fasthttp.HeaderAccessControlAllowOrigin + ": " + anyOrigin + "\r\n" +
		fasthttp.HeaderAccessControlExposeHeaders + ": " + exposedHeaders + "\r\n"
}

// answerPreflight answers a CORS preflight request. It returns false if the request isn't one, or not of a listed
// origin. A path without a route is allowed, too: the page then sees the 404 rather than an error without a reason.
func (s *Server) answerPreflight(x *exchange, r *route) bool {
	request := &x.ctx.Request.Header
	origin := string(request.Peek(fasthttp.HeaderOrigin))
	if !x.ctx.IsOptions() || origin == "" || len(request.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 || !s.corsOrigins.allows(origin) {
		return false
	}
	methods := "GET, HEAD, POST"
	if r.serve != nil {
		methods = r.allow()
	}
	h := &x.ctx.Response.Header
	h.Set(fasthttp.HeaderAccessControlAllowMethods, methods)
	h.Set(fasthttp.HeaderAccessControlAllowHeaders, strings.Join([]string{fasthttp.HeaderContentType, fasthttp.HeaderAuthorization, s.opts.KeyHeader,
		requestIDHeader, timeoutHeader, domainHeader, lastEventHeader, traceparentHeader, tracestateHeader, sdkHeaders}, ", "))
	h.Set(fasthttp.HeaderAccessControlMaxAge, corsMaxAge)
	x.status = fasthttp.StatusNoContent
	x.ctx.SetStatusCode(x.status)
	return true
}
