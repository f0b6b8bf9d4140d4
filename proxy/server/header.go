package server

import (
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
)

const (
	requestIDHeader = "X-Request-Id"
	timeoutHeader   = "X-Request-Timeout"
	domainHeader    = "X-Domain"
	traceHeader     = "traceparent"
	stateHeader     = "tracestate"
	traceReply      = "traceresponse"

	maxRequestIDBytes = 64
)

// requestID copies the client's id where it can't do harm in a log, and makes one otherwise.
func requestID(asked []byte) string {
	if len(asked) == 0 || len(asked) > maxRequestIDBytes {
		return newID()
	}
	for _, c := range asked {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return newID()
		}
	}
	return string(asked)
}

// newID is unique, not secret.
func newID() string {
	var raw [16]byte
	for i := range 2 {
		n := rand.Uint64()
		for j := range 8 {
			raw[8*i+j] = byte(n >> (8 * j))
		}
	}
	return hex.EncodeToString(raw[:])
}

// timeout is the smaller of the server's and the client's X-Request-Timeout, which is seconds (2.5) or a Go duration (1m30s).
func timeout(server time.Duration, asked []byte) (time.Duration, *api.Error) {
	if len(asked) == 0 {
		return server, nil
	}
	text := string(asked)
	d, err := time.ParseDuration(text)
	if n, numErr := strconv.ParseFloat(text, 64); numErr == nil {
		d, err = time.Duration(min(n, 1e6)*float64(time.Second)), nil
	}
	if err != nil || !(d > 0) {
		return 0, api.Invalid(timeoutHeader, "%s must be seconds above 0, such as 2.5, or a duration such as 1m30s", timeoutHeader)
	}
	if server > 0 && server < d {
		return server, nil
	}
	return d, nil
}

// contentType checks that the body is plain JSON.
func contentType(h *fasthttp.RequestHeader) *api.Error {
	if encoding := h.Peek(fasthttp.HeaderContentEncoding); len(encoding) > 0 && !strings.EqualFold(string(encoding), "identity") {
		return api.NewError(api.TypeUnsupportedMediaType, "Content-Encoding is not supported; send the body as it is")
	}
	full := string(h.ContentType())
	media, parameters, _ := strings.Cut(full, ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/json") {
		return api.UnsupportedMediaType(full)
	}
	if name, value, ok := strings.Cut(strings.TrimSpace(parameters), "="); ok && strings.EqualFold(name, "charset") &&
		!strings.EqualFold(strings.Trim(value, `"`), "utf-8") {
		return api.UnsupportedMediaType(full)
	}
	return nil
}

// corsMaxAge is how long a browser may remember a preflight, in seconds.
const corsMaxAge = "600"

// crossOrigin lets pages of the listed origins in. It tells whether it has answered: a preflight.
func (s *Server) crossOrigin(x *exchange, r *route) bool {
	if len(s.o.CORSOrigins) == 0 {
		return false
	}
	h := &x.ctx.Response.Header
	h.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	origin := string(x.ctx.Request.Header.Peek(fasthttp.HeaderOrigin))
	if origin == "" || !(slices.Contains(s.o.CORSOrigins, origin) || slices.Contains(s.o.CORSOrigins, "*")) {
		return false
	}
	h.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	h.Set(fasthttp.HeaderAccessControlExposeHeaders, "X-Request-Id, Traceresponse, Retry-After, X-Ratelimit-Limit-Requests, X-Ratelimit-Remaining-Requests, X-Ratelimit-Reset-Requests")
	if r == nil || !x.ctx.IsOptions() || len(x.ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 {
		return false
	}
	h.Set(fasthttp.HeaderAccessControlAllowMethods, r.allow())
	h.Set(fasthttp.HeaderAccessControlAllowHeaders, strings.Join([]string{"Content-Type", "Authorization", s.o.KeyHeader, requestIDHeader, timeoutHeader, domainHeader, traceHeader, stateHeader}, ", "))
	h.Set(fasthttp.HeaderAccessControlMaxAge, corsMaxAge)
	x.status = fasthttp.StatusNoContent
	x.ctx.SetStatusCode(x.status)
	return true
}
