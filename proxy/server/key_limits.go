package server

import (
	"strconv"
	"sync"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
)

// A key may be limited to so many requests at a time, and to so many tokens a minute. The tokens of a request are
// estimated when it comes, counted as they come beyond that, and put right at its end.

// tokenStep is how many tokens beyond the estimate are counted at a time, since counting may be a round trip.
const tokenStep = 64

// tokenUnit is the time of a token limit.
const tokenUnit = time.Minute

// retryPlaceAfter is the Retry-After of a key whose requests are all under way: nobody knows when one ends.
const retryPlaceAfter = time.Second

// keyPlaces counts the requests under way of keys that may have only so many.
type keyPlaces struct {
	mu    sync.Mutex
	taken map[string]int // by name of the key; none is 0
}

// take takes a place for a request, unless all are taken.
func (p *keyPlaces) take(key string, places int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[key] >= places {
		return false
	}
	if p.taken == nil {
		p.taken = make(map[string]int)
	}
	p.taken[key]++
	return true
}

func (p *keyPlaces) release(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[key]--; p.taken[key] <= 0 {
		delete(p.taken, key)
	}
}

// keyUse is what a request has of its key's limits until its end.
type keyUse struct {
	place    string         // the key in which it has a place; "": none
	tokensOf string         // id under which its tokens are counted; "": they aren't
	decision limit.Decision // of the estimate
	counted  int            // tokens, at first the estimate
	prompt   int
	new      int // so far
}

// checkKeyLimits takes a place and the expected tokens for a request, or refuses it.
func (s *Server) checkKeyLimits(x *exchange, who caller, r *api.Request) *api.Error {
	if who.key == nil {
		return nil
	}
	if places := who.key.Concurrency; places > 0 {
		if !s.places.take(who.name, places) {
			s.opts.Metrics.RateLimited("concurrency", true)
			return api.RateLimited(strconv.Itoa(places)+" requests at a time", retryPlaceAfter)
		}
		s.opts.Metrics.RateLimited("concurrency", false)
		x.use.place = who.name
	}
	if who.key.TokensPerMinute <= 0 || s.opts.Limits == nil {
		return nil
	}
	expected := s.opts.Requests.ExpectedTokens(r)
	rate := limit.Rate{Requests: who.key.TokensPerMinute, Unit: tokenUnit}
	id := "tokens:" + who.name
	d := s.opts.Limits.AllowN(id, rate, expected, time.Now())
	s.opts.Metrics.RateLimited("tokens", !d.Allowed)
	x.setTokenLimitHeaders(d)
	if !d.Allowed {
		return api.RateLimited(strconv.Itoa(rate.Requests)+" tokens a minute", d.RetryAfter)
	}
	x.use.tokensOf, x.use.decision, x.use.counted = id, d, min(expected, rate.Requests)
	return nil
}

func (x *exchange) setTokenLimitHeaders(d limit.Decision) {
	for name, value := range d.TokenHeaders() {
		x.ctx.Response.Header.Set(name, value)
	}
}

// countTokens counts the tokens of the answer as they come, and those of the prompts that engines have taken.
func (x *exchange) countTokens(p *inflight.Piece) {
	u := &x.use
	u.new += p.Tokens
	if u.tokensOf == "" {
		return
	}
	if p.Accepted {
		u.prompt = x.answer.PromptTokens()
	}
	if u.prompt+u.new >= u.counted+tokenStep {
		x.correctTokens()
	}
}

// correctTokens makes the count what the request has taken.
func (x *exchange) correctTokens() {
	u := &x.use
	if more := u.prompt + u.new - u.counted; more != 0 {
		x.s.opts.Limits.Correct(u.tokensOf, u.decision, more, time.Now())
		u.counted += more
	}
}

// endKeyUse gives back the place, and what was expected of the request and not taken.
func (x *exchange) endKeyUse() {
	if x.use.tokensOf != "" {
		x.correctTokens()
	}
	if x.use.place != "" {
		x.s.places.release(x.use.place)
	}
	x.use = keyUse{}
}
