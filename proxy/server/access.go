package server

import (
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/limit"
)

// caller is who asks: a key, or nobody in particular where keys are off.
type caller struct {
	key    *auth.Key // nil without keys
	name   string
	domain string
	rate   limit.Rate
}

// authenticate finds the key. Whatever is wrong with it gets the same answer; the log at debug tells what it was.
func (s *Server) authenticate(x *exchange) (caller, *api.Error) {
	if s.o.Keys == nil {
		return caller{}, nil
	}
	key, outcome := s.lookup(&x.ctx.Request.Header)
	if outcome != auth.OK {
		s.log.Debug("API key refused", "request_id", x.id, "reason", outcome.String())
		return caller{}, api.Unauthorized(s.o.KeyHeader)
	}
	x.key = key.Name
	who := caller{key: key, name: key.Name, domain: key.Domain, rate: s.o.DefaultLimit}
	if key.Rate != nil {
		who.rate = limit.Rate(*key.Rate)
	}
	return who, nil
}

// lookup finds the key that a request presents. Without keys everybody is known, as nobody.
func (s *Server) lookup(h *fasthttp.RequestHeader) (*auth.Key, auth.Outcome) {
	if s.o.Keys == nil {
		return nil, auth.OK
	}
	secret, outcome := auth.Credentials(string(h.Peek(s.o.KeyHeader)), string(h.Peek(fasthttp.HeaderAuthorization)))
	if outcome != auth.OK {
		return nil, outcome
	}
	return s.o.Keys.Lookup(secret, time.Now())
}

// inScope checks that the key may use the model that a request names. Which one it gets when it names none only the request table knows, and checks.
func (who *caller) inScope(asked string) *api.Error {
	if who.key != nil && asked != "" && !who.key.MayUse(asked) {
		return api.Forbidden(asked)
	}
	return nil
}

// models that the key may use; nil: all.
func (who *caller) models() []string {
	if who.key == nil {
		return nil
	}
	return who.key.Models
}
