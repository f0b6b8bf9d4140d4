package server

import (
	"encoding/hex"
	"math/rand/v2"
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
