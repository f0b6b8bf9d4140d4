package server

import (
	"errors"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/auth"
)

// strangerBodyBytes is the largest body that is read for somebody without a good key. Bodies are read before a handler can ask for the
// key, so without it anybody could make us hold MAX_BODY_BYTES on every connection.
const strangerBodyBytes = 64 << 10

// bodyLimit is asked by fasthttp once the header is read. A zero value means MAX_BODY_BYTES.
func (s *Server) bodyLimit(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if n := h.ContentLength(); n >= 0 && n <= strangerBodyBytes || s.isKnown(h) {
		return fasthttp.RequestConfig{}
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: min(strangerBodyBytes, s.o.MaxBodyBytes)}
}

func (s *Server) isKnown(h *fasthttp.RequestHeader) bool {
	_, outcome := s.lookup(h)
	return outcome == auth.OK
}

// handleBroken answers a request that could not be read: too large, too slow, not HTTP. fasthttp closes the connection afterwards.
func (s *Server) handleBroken(ctx *fasthttp.RequestCtx, cause error) {
	if c := unwrap(ctx.Conn()); c != nil {
		if !c.used.Load() {
			c.abort() // nothing was asked: a look whether the port is open, or a connection kept for later
			return
		}
		c.linger.Store(true)
	}
	r := s.routes[string(ctx.Path())]
	if r != nil && r.path == "/" {
		r = nil // also what an unread path looks like
	}
	x := s.begin(ctx, r, time.Now())
	defer x.recovered()
	s.origins.markUnread(&ctx.Request.Header, &ctx.Response.Header)
	x.refuse(s.unreadable(&ctx.Request.Header, cause))
	x.finish()
}

// unreadable finds the words for what fasthttp found.
func (s *Server) unreadable(h *fasthttp.RequestHeader, cause error) *api.Error {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.Is(cause, fasthttp.ErrBodyTooLarge):
		return s.tooLarge(h)
	case errors.As(cause, &small):
		return api.HeaderTooLarge(s.o.MaxHeaderBytes)
	case errors.As(cause, &network) && network.Timeout():
		return api.RequestTimeout()
	}
	// The cause may repeat parts of the request, so it goes no further.
	return api.Invalid("", "this is not a valid HTTP/1.1 request")
}

// tooLarge tells a body over the limit from one that is only too large for a stranger. fasthttp has forgotten the header when the body
// came in chunks.
func (s *Server) tooLarge(h *fasthttp.RequestHeader) *api.Error {
	switch {
	case s.isKnown(h):
		return api.BodyTooLarge(s.o.MaxBodyBytes)
	case len(h.Host()) > 0:
		return api.Unauthorized(s.o.KeyHeader)
	}
	return api.NewError(api.TypeBodyTooLarge, "the body is larger than %d bytes, or than %d without a good API key", s.o.MaxBodyBytes, strangerBodyBytes)
}

// handleExpect refuses a body that is too large before the client sends it (Expect: 100-continue).
func (s *Server) handleExpect(ctx *fasthttp.RequestCtx) int {
	h := &ctx.Request.Header
	limit := s.o.MaxBodyBytes
	if c := s.bodyLimit(h); c.MaxRequestBodySize > 0 {
		limit = c.MaxRequestBodySize
	}
	if h.ContentLength() <= limit {
		return fasthttp.StatusContinue
	}
	s.handleBroken(ctx, fasthttp.ErrBodyTooLarge)
	return ctx.Response.StatusCode()
}
