// Package trace is what both programs share about tracing: the W3C trace context as it is sent in headers and frames,
// the exporter to an OTLP collector, and the choice of requests for the log sample. Which spans there are is decided in
// proxy/trace and engine/trace.
package trace

import (
	"encoding/hex"

	otel "go.opentelemetry.io/otel/trace"
)

// traceparentBytes is the length of a traceparent of version 00: 00-<32 hex>-<16 hex>-<2 hex>.
const traceparentBytes = 55

// Parse reads a traceparent. One that breaks a rule of the standard counts as absent. A later version may be longer;
// its beginning is that of version 00.
func Parse(header string) (otel.SpanContext, bool) {
	var none otel.SpanContext
	if len(header) < traceparentBytes || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return none, false
	}
	var raw [26]byte // version, trace id, span id, flags
	for _, part := range []struct {
		into []byte
		text string
	}{{raw[:1], header[:2]}, {raw[1:17], header[3:35]}, {raw[17:25], header[36:52]}, {raw[25:], header[53:55]}} {
		if !isLowerHex(part.text) {
			return none, false
		}
		_, _ = hex.Decode(part.into, []byte(part.text)) // isLowerHex
	}
	switch version := raw[0]; {
	case version == 0xff,
		version == 0 && len(header) != traceparentBytes,
		version != 0 && len(header) > traceparentBytes && header[traceparentBytes] != '-':
		return none, false
	}
	c := otel.NewSpanContext(otel.SpanContextConfig{
		TraceID: otel.TraceID(raw[1:17]), SpanID: otel.SpanID(raw[17:25]), TraceFlags: otel.TraceFlags(raw[25]) & forwardedFlags, Remote: true,
	})
	return c, c.IsValid()
}

// forwardedFlags are sampled and random; a sender must not forward others.
const forwardedFlags = otel.FlagsSampled | otel.FlagsRandom

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Format writes a traceparent of version 00.
func Format(c otel.SpanContext) string {
	id, span := c.TraceID(), c.SpanID()
	var b [traceparentBytes]byte
	b[0], b[1], b[2], b[35], b[52] = '0', '0', '-', '-', '-'
	hex.Encode(b[3:35], id[:])
	hex.Encode(b[36:52], span[:])
	hex.Encode(b[53:], []byte{byte(c.TraceFlags())})
	return string(b[:])
}
