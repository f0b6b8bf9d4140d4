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

// Limiter counts requests by id. Every request calls it, so it must not block for long.
type Limiter interface {
	Allow(id string, rate limit.Rate, now time.Time) limit.Decision
	Refund(id string, d limit.Decision, now time.Time) limit.Decision // of a request that Allow allowed with d
	// AllowN counts n of what the rate counts, or refuses all of them; Correct counts n more of them in any case, or
	// takes -n back.
	AllowN(id string, rate limit.Rate, n int, now time.Time) limit.Decision
	Correct(id string, d limit.Decision, n int, now time.Time) limit.Decision
	Len() int // ids that are tracked
}

// rateLimitCheck is the id under which a request was counted, and the decision.
type rateLimitCheck struct {
	id       string
	decision limit.Decision
}

// checkRateLimit counts the request against the limit of its key, or of its address where keys are off. The headers
// that it sets stay, whatever the reply will be.
func (s *Server) checkRateLimit(x *exchange, who caller) *api.Error {
	id, rate, scope := s.rateLimitFor(x, who)
	if s.opts.Limits == nil || rate.Unlimited() {
		return nil
	}
	d := s.opts.Limits.Allow(id, rate, time.Now())
	s.opts.Metrics.RateLimited(scope, !d.Allowed)
	x.setRateLimitHeaders(d)
	if !d.Allowed {
		return api.RateLimited(rate.String(), d.RetryAfter)
	}
	x.rateLimit = rateLimitCheck{id, d}
	return nil
}

// refundRateLimit takes the request back from the count when it is rejected for lack of room or of an engine, which
// isn't the client's fault.
func (x *exchange) refundRateLimit() {
	if x.rateLimit.id == "" {
		return
	}
	x.setRateLimitHeaders(x.s.opts.Limits.Refund(x.rateLimit.id, x.rateLimit.decision, time.Now()))
	x.rateLimit = rateLimitCheck{}
}

func (x *exchange) setRateLimitHeaders(d limit.Decision) {
	for name, value := range d.Headers(x.s.opts.IETFRateLimitHeaders) {
		x.ctx.Response.Header.Set(name, value)
	}
}

// rateLimitFor returns under which id the request is counted, the rate, and the kind of the id for the metric.
func (s *Server) rateLimitFor(x *exchange, who caller) (id string, rate limit.Rate, scope string) {
	if who.key != nil {
		return "key:" + who.name, who.rate, "key"
	}
	forwarded := ""
	if len(s.opts.TrustedProxies) > 0 {
		forwarded = string(bytes.Join(x.ctx.Request.Header.PeekAll(fasthttp.HeaderXForwardedFor), []byte(",")))
	}
	client := limit.ClientAddress(peerAddress(x.ctx.RemoteAddr()), forwarded, s.opts.TrustedProxies)
	return limit.AddressID(client), s.opts.DefaultLimit, "ip"
}

func peerAddress(peer net.Addr) netip.Addr {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr()
}
