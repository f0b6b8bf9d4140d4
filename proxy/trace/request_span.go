// Package trace makes the span of each inference request: without a collector only the ids that go into logs, headers
// and frames, with one also the span itself. It knows no HTTP server and exports nothing itself; that is schema/trace.
package trace

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	otel "go.opentelemetry.io/otel/trace"

	"tandem/schema/trace"
)

// maxTracestateBytes is the length of the longest tracestate that is kept; the standard asks for at least 512.
const maxTracestateBytes = 512

// RequestStart is what is known about a request when it arrives.
type RequestStart struct {
	Route       string // path of the endpoint: /infer
	RequestID   string
	GeneratedID bool   // RequestID was made by the proxy: then a trace that begins with the request has the same id
	Traceparent string // the header, as it came
	Tracestate  string // the header, as it came
	Received    time.Time
	Scheme      string // http, https
}

// RequestEnd is what is known about a request at its end.
type RequestEnd struct {
	Key            string // name of the API key
	Model, Version string
	Status         int
	ErrorType      string // of this API; empty for success
	Attempts       int    // how many engines it was sent to
}

// Tracer begins spans. Its zero value only makes ids.
type Tracer struct{ spans otel.Tracer }

// New makes a tracer. The exporter behind spans should make its ids with IDGenerator.
func New(spans otel.Tracer) Tracer { return Tracer{spans: spans} }

// InLogSample reports whether a request belongs to the one in n whose access lines are written; the engine logs the
// same ones.
func InLogSample(requestID string, n int) bool { return trace.InLogSample(requestID, n) }

// Span is the span of one request. The zero value is of a request that isn't traced.
type Span struct {
	traceparent string    // for those who continue the trace
	span        otel.Span // nil without a collector
}

// Begin begins the span of a request: below the sender's span, or at the top of a new trace.
func (t Tracer) Begin(a RequestStart) Span {
	parent, hasParent := trace.Parse(a.Traceparent)
	if t.spans == nil {
		if !hasParent {
			parent = otel.NewSpanContext(otel.SpanContextConfig{TraceID: newTraceID(a.preferredTraceID()), SpanID: newSpanID()})
		}
		return Span{traceparent: trace.Format(parent)}
	}
	ctx := context.WithValue(context.Background(), preferredTraceIDKey{}, a.preferredTraceID())
	if hasParent {
		if state, err := otel.ParseTraceState(a.Tracestate); err == nil && len(a.Tracestate) <= maxTracestateBytes {
			parent = parent.WithTraceState(state)
		}
		ctx = otel.ContextWithRemoteSpanContext(ctx, parent)
	}
	_, span := t.spans.Start(ctx, "POST "+a.Route, otel.WithSpanKind(otel.SpanKindServer), otel.WithTimestamp(a.Received), otel.WithAttributes(
		attribute.String("http.request.method", "POST"), attribute.String("http.route", a.Route), attribute.String("url.path", a.Route),
		attribute.String("url.scheme", a.Scheme), attribute.String("tandem.request_id", a.RequestID)))
	return Span{traceparent: trace.Format(span.SpanContext()), span: span}
}

// TraceID is the trace id, or empty.
func (s Span) TraceID() string {
	if s.traceparent == "" {
		return ""
	}
	return s.traceparent[3:35]
}

// Traceparent is the header for those who continue the trace, or empty.
func (s Span) Traceparent() string { return s.traceparent }

// Requeued adds an event: the request was taken back from an engine that was lost or returned it.
func (s Span) Requeued(at time.Time, attempt int) {
	if s.span != nil {
		s.span.AddEvent("requeued", otel.WithTimestamp(at), otel.WithAttributes(attribute.Int("tandem.attempt", attempt)))
	}
}

// End ends the span.
func (s Span) End(at time.Time, e RequestEnd) {
	if s.span == nil || !s.span.IsRecording() {
		return
	}
	attributes := []attribute.KeyValue{attribute.Int("http.response.status_code", e.Status), attribute.Int("tandem.attempts", e.Attempts)}
	for _, text := range []struct{ name, value string }{
		{"tandem.key", e.Key}, {"tandem.model", e.Model}, {"tandem.version", e.Version}, {"error.type", e.ErrorType},
	} {
		if text.value != "" {
			attributes = append(attributes, attribute.String(text.name, text.value))
		}
	}
	s.span.SetAttributes(attributes...)
	if e.Status >= 500 {
		s.span.SetStatus(codes.Error, e.ErrorType)
	}
	s.span.End(otel.WithTimestamp(at))
}

// preferredTraceID is the id for a new trace, or empty. It equals the request id, so that an error that a client quotes
// leads to its trace; a request id from the client isn't used, since it may not be unique.
func (a *RequestStart) preferredTraceID() string {
	if a.GeneratedID {
		return a.RequestID
	}
	return ""
}

type preferredTraceIDKey struct{}

// IDGenerator makes the ids of spans for the SDK.
type IDGenerator struct{}

// NewIDs implements the SDK's IDGenerator.
func (IDGenerator) NewIDs(ctx context.Context) (otel.TraceID, otel.SpanID) {
	preferredTraceID, _ := ctx.Value(preferredTraceIDKey{}).(string)
	return newTraceID(preferredTraceID), newSpanID()
}

// NewSpanID implements the SDK's IDGenerator.
func (IDGenerator) NewSpanID(context.Context, otel.TraceID) otel.SpanID { return newSpanID() }

func newTraceID(preferredTraceID string) otel.TraceID {
	if id, err := otel.TraceIDFromHex(preferredTraceID); err == nil {
		return id
	}
	var id otel.TraceID
	for !id.IsValid() {
		fillRandom(id[:])
	}
	return id
}

func newSpanID() (id otel.SpanID) {
	for !id.IsValid() {
		fillRandom(id[:])
	}
	return id
}

// fillRandom writes random bytes: ids are unique, not secret.
func fillRandom(b []byte) {
	for len(b) >= 8 {
		binary.NativeEndian.PutUint64(b, rand.Uint64())
		b = b[8:]
	}
}
