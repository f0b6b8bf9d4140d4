package server

import (
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/limit"
)

// caller is the owner of a request: a key, or an anonymous caller where keys are off.
type caller struct {
	key    *auth.Key // nil without keys
	name   string
	domain string
	rate   limit.Rate
}

// authenticate finds the key. All problems with a key get the same answer; the log at debug has the reason.
func (s *Server) authenticate(x *exchange) (caller, *api.Error) {
	if s.opts.Keys == nil {
		return caller{}, nil
	}
	key, outcome := s.lookup(&x.ctx.Request.Header)
	if outcome != auth.OK {
		s.log.Debug("API key refused", "request_id", x.id, "reason", outcome.String())
		return caller{}, api.Unauthorized(s.opts.KeyHeader)
	}
	x.key = key.Name
	who := caller{key: key, name: key.Name, domain: key.Domain, rate: s.opts.DefaultLimit}
	if key.Rate != nil {
		who.rate = limit.Rate(*key.Rate)
	}
	return who, nil
}

// lookup finds the key that a request presents. Where keys are off it returns no key and OK.
func (s *Server) lookup(h *fasthttp.RequestHeader) (*auth.Key, auth.Outcome) {
	if s.opts.Keys == nil {
		return nil, auth.OK
	}
	secret, outcome := auth.Credentials(string(h.Peek(s.opts.KeyHeader)), string(h.Peek(fasthttp.HeaderAuthorization)))
	if outcome != auth.OK {
		return nil, outcome
	}
	return s.opts.Keys.Lookup(secret, time.Now())
}

// checkModelScope checks that the key may use the model that a request names. A request that names none gets the
// default model, which the request table knows and checks.
func (who *caller) checkModelScope(asked string) *api.Error {
	if who.key != nil && asked != "" && !who.key.MayUse(asked) {
		return api.Forbidden(asked)
	}
	return nil
}

// weight returns the key's weight among the others; 0: the usual one.
func (who *caller) weight() float64 {
	if who.key == nil {
		return 0
	}
	return who.key.Weight
}

// models returns the models that the key may use; nil: all.
func (who *caller) models() []string {
	if who.key == nil {
		return nil
	}
	return who.key.Models
}
