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
	requestIDHeader     = "X-Request-Id"
	timeoutHeader       = "X-Request-Timeout"
	domainHeader        = "X-Domain"
	traceparentHeader   = "traceparent"
	tracestateHeader    = "tracestate"
	traceresponseHeader = "traceresponse"
	revisionHeader      = "X-Model-Revision" // checksum of the files of the model that answered

	maxRequestIDBytes = 64
)

// requestID copies the client's id if it is harmless in a log, and makes one otherwise.
func requestID(asked []byte) string {
	if len(asked) == 0 || len(asked) > maxRequestIDBytes {
		return newRequestID()
	}
	for _, c := range asked {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return newRequestID()
		}
	}
	return string(asked)
}

// newRequestID makes an id that is unique, not secret.
func newRequestID() string {
	var raw [16]byte
	for i := range 2 {
		n := rand.Uint64()
		for j := range 8 {
			raw[8*i+j] = byte(n >> (8 * j))
		}
	}
	return hex.EncodeToString(raw[:])
}

// requestTimeout is the smaller of the server's and the client's X-Request-Timeout, which is seconds (2.5) or a Go
// duration (1m30s).
func requestTimeout(server time.Duration, asked []byte) (time.Duration, *api.Error) {
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

// checkContentType checks that the body is plain JSON.
func checkContentType(h *fasthttp.RequestHeader) *api.Error {
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
