package server

import (
	"bytes"
	"net"
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/limit"
)

// Limiter counts requests by id. It is called by every request, and must not hold one up.
type Limiter interface {
	Allow(id string, rate limit.Rate, now time.Time) limit.Decision
	Refund(id string, d limit.Decision, now time.Time) limit.Decision // of what Allow let pass with d
	Len() int                                                         // ids that are tracked
}

// charge is what a request was counted under, and how.
type charge struct {
	id       string
	decision limit.Decision
}

// charge counts the request against the limit of its key, or of its address where keys are off. The headers it sets stay on whatever
// the reply will be.
func (s *Server) charge(x *exchange, who caller) *api.Error {
	id, rate, scope := s.limitOf(x, who)
	if s.o.Limits == nil || rate.Unlimited() {
		return nil
	}
	d := s.o.Limits.Allow(id, rate, time.Now())
	s.o.Metrics.RateLimited(scope, !d.Allowed)
	x.limitHeaders(d)
	if !d.Allowed {
		return api.RateLimited(rate.String(), d.RetryAfter)
	}
	x.charged = charge{id, d}
	return nil
}

// refund takes the charge back from a request that is refused for want of room or engine, which is no fault of the client.
func (x *exchange) refund() {
	if x.charged.id == "" {
		return
	}
	x.limitHeaders(x.s.o.Limits.Refund(x.charged.id, x.charged.decision, time.Now()))
	x.charged = charge{}
}

func (x *exchange) limitHeaders(d limit.Decision) {
	for name, value := range d.Headers(x.s.o.RateLimitDraft) {
		x.ctx.Response.Header.Set(name, value)
	}
}

// limitOf says whose count it is, at which rate, and what kind of id that is.
func (s *Server) limitOf(x *exchange, who caller) (id string, rate limit.Rate, scope string) {
	if who.key != nil {
		return "key:" + who.name, who.rate, "key"
	}
	forwarded := ""
	if len(s.o.TrustedProxies) > 0 {
		forwarded = string(bytes.Join(x.ctx.Request.Header.PeekAll(fasthttp.HeaderXForwardedFor), []byte(",")))
	}
	client := limit.ClientAddress(peerAddress(x.ctx.RemoteAddr()), forwarded, s.o.TrustedProxies)
	return limit.AddressID(client), s.o.DefaultLimit, "ip"
}

func peerAddress(peer net.Addr) netip.Addr {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr()
}
