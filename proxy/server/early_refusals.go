package server

import (
	"errors"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/auth"
)

// unauthenticatedBodyBytes is the size of the largest body that is read from a client without a good key. Bodies are
// read before a handler can check the key, so without this limit anybody could make the server hold MAX_BODY_BYTES on
// every connection.
const unauthenticatedBodyBytes = 64 << 10

// headerReceived is called by fasthttp before it reads the body.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	s.arrivals.begin(h)
	return s.bodyLimit(h)
}

// bodyLimit is how large a body may be. A zero value means MAX_BODY_BYTES.
func (s *Server) bodyLimit(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if n := h.ContentLength(); n >= 0 && n <= unauthenticatedBodyBytes || s.isAuthenticated(h) {
		return fasthttp.RequestConfig{}
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: min(unauthenticatedBodyBytes, s.opts.MaxBodyBytes)}
}

func (s *Server) isAuthenticated(h *fasthttp.RequestHeader) bool {
	_, outcome := s.lookup(h)
	return outcome == auth.OK
}

// handleUnreadable answers a request that could not be read: too large, too slow, not HTTP. fasthttp closes the
// connection afterwards.
func (s *Server) handleUnreadable(ctx *fasthttp.RequestCtx, cause error) {
	if c := unwrap(ctx.Conn()); c != nil {
		if !c.hasRead.Load() {
			c.abort() // no request was sent: a port check, or a connection kept for later
			return
		}
		c.lingerOnClose.Store(true)
		s.arrivals.restore(&ctx.Request.Header, time.Duration(c.requestSince.Load()))
	}
	r := s.findRoute(ctx)
	if r.path == "/" {
		r = s.otherRoute // also the value of a path that wasn't read
	}
	x := s.beginExchange(ctx, r, time.Now())
	defer x.recoverPanic()
	s.corsOrigins.addHeadersUnread(&ctx.Request.Header, &ctx.Response.Header)
	x.reject(s.unreadableError(&ctx.Request.Header, cause))
	x.finish()
}

// unreadableError turns fasthttp's error into one for the client.
func (s *Server) unreadableError(h *fasthttp.RequestHeader, cause error) *api.Error {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.Is(cause, fasthttp.ErrBodyTooLarge):
		return s.bodyTooLargeError(h)
	case errors.As(cause, &small):
		return api.HeaderTooLarge(s.opts.MaxHeaderBytes)
	case errors.As(cause, &network) && network.Timeout():
		return api.RequestTimeout()
	}
	// The cause may repeat parts of the request, so it isn't passed on.
	return api.Invalid("", "this is not a valid HTTP/1.1 request")
}

// bodyTooLargeError distinguishes a body over the limit from one that is only too large without a good key.
func (s *Server) bodyTooLargeError(h *fasthttp.RequestHeader) *api.Error {
	if s.isAuthenticated(h) {
		return api.BodyTooLarge(s.opts.MaxBodyBytes)
	}
	return api.Unauthorized(s.opts.KeyHeader)
}

// handleExpect rejects a body that is too large before the client sends it (Expect: 100-continue).
func (s *Server) handleExpect(ctx *fasthttp.RequestCtx) int {
	h := &ctx.Request.Header
	limit := s.opts.MaxBodyBytes
	if c := s.bodyLimit(h); c.MaxRequestBodySize > 0 {
		limit = c.MaxRequestBodySize
	}
	if h.ContentLength() <= limit {
		return fasthttp.StatusContinue
	}
	s.handleUnreadable(ctx, fasthttp.ErrBodyTooLarge)
	return ctx.Response.StatusCode()
}
