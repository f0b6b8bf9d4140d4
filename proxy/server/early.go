package server

import (
	"errors"
	"net"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
)

// handleBroken answers a request that could not be read: too large, too slow, not HTTP. fasthttp closes the connection afterwards.
func (s *Server) handleBroken(ctx *fasthttp.RequestCtx, cause error) {
	if c := unwrap(ctx.Conn()); c != nil {
		c.linger.Store(true)
	}
	r := s.routes[string(ctx.Path())]
	if r != nil && r.path == "/" {
		r = nil // also what an unread path looks like
	}
	x := s.begin(ctx, r)
	defer x.recovered()
	x.refuse(s.unreadable(cause))
	x.finish()
}

// unreadable finds the words for what fasthttp found.
func (s *Server) unreadable(cause error) *api.Error {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.Is(cause, fasthttp.ErrBodyTooLarge):
		return api.BodyTooLarge(s.o.MaxBodyBytes)
	case errors.As(cause, &small):
		return api.HeaderTooLarge(s.o.MaxHeaderBytes)
	case errors.As(cause, &network) && network.Timeout():
		return api.RequestTimeout()
	}
	// The cause may repeat parts of the request, so it goes no further.
	return api.Invalid("", "this is not a valid HTTP/1.1 request")
}

// handleExpect refuses a body that is too large before the client sends it (Expect: 100-continue).
func (s *Server) handleExpect(ctx *fasthttp.RequestCtx) int {
	if ctx.Request.Header.ContentLength() <= s.o.MaxBodyBytes {
		return fasthttp.StatusContinue
	}
	s.handleBroken(ctx, fasthttp.ErrBodyTooLarge)
	return fasthttp.StatusRequestEntityTooLarge
}
