// Package trace gives each inference request its place in a trace: the ids that go into logs, headers and frames, always, and with a
// collector the span of the request. It knows no HTTP server and sends nothing by itself.
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

// maxStateBytes of a tracestate that is kept; the standard asks for at least 512.
const maxStateBytes = 512

// Arrival is what is known of a request at its beginning.
type Arrival struct {
	RequestID string
	OwnID     bool   // RequestID was made here: then a trace that begins with the request has the same id
	Parent    string // traceparent, as it came
	State     string // tracestate, as it came
	Received  time.Time
	Scheme    string // http, https
}

// End is what is known of a request at its end.
type End struct {
	Key            string // name of the API key
	Model, Version string
	Status         int
	ErrorType      string // of this API; empty for success
	Attempts       int    // engines that had it; 0: none
}

// Tracer begins spans. Its zero value only gives ids.
type Tracer struct{ spans otel.Tracer }

// New makes a tracer. The exporter behind spans should make its ids with IDs.
func New(spans otel.Tracer) Tracer { return Tracer{spans: spans} }

// Chosen tells whether a request belongs to the one in n that are logged; the engine chooses the same ones.
func Chosen(requestID string, n int) bool { return trace.InLogSample(requestID, n) }

// Span is the place of one request in its trace. The zero value is of a request without one.
type Span struct {
	parent string    // for whoever continues the trace
	span   otel.Span // nil without a collector
}

// Begin finds the place of a request: below the sender's span, or at the top of a new trace.
func (t Tracer) Begin(a Arrival) Span {
	parent, told := trace.Parse(a.Parent)
	if t.spans == nil {
		if !told {
			parent = otel.NewSpanContext(otel.SpanContextConfig{TraceID: newTraceID(a.wish()), SpanID: newSpanID()})
		}
		return Span{parent: trace.Format(parent)}
	}
	ctx := context.WithValue(context.Background(), wishKey{}, a.wish())
	if told {
		if state, err := otel.ParseTraceState(a.State); err == nil && len(a.State) <= maxStateBytes {
			parent = parent.WithTraceState(state)
		}
		ctx = otel.ContextWithRemoteSpanContext(ctx, parent)
	}
	_, span := t.spans.Start(ctx, "POST /infer", otel.WithSpanKind(otel.SpanKindServer), otel.WithTimestamp(a.Received), otel.WithAttributes(
		attribute.String("http.request.method", "POST"), attribute.String("http.route", "/infer"), attribute.String("url.path", "/infer"),
		attribute.String("url.scheme", a.Scheme), attribute.String("tandem.request_id", a.RequestID)))
	return Span{parent: trace.Format(span.SpanContext()), span: span}
}

// ID is the trace id, or empty.
func (s Span) ID() string {
	if s.parent == "" {
		return ""
	}
	return s.parent[3:35]
}

// Parent is the traceparent for whoever continues the trace, or empty.
func (s Span) Parent() string { return s.parent }

// Requeued notes that the request was taken back from an engine that was lost or gave it up.
func (s Span) Requeued(at time.Time, attempt int) {
	if s.span != nil {
		s.span.AddEvent("requeued", otel.WithTimestamp(at), otel.WithAttributes(attribute.Int("tandem.attempt", attempt)))
	}
}

// End ends the span.
func (s Span) End(at time.Time, e End) {
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

// wish is the trace id to begin with, or empty: so an error that a client quotes leads to its trace. What a client calls its request may
// not be unique.
func (a *Arrival) wish() string {
	if a.OwnID {
		return a.RequestID
	}
	return ""
}

type wishKey struct{}

// IDs makes the ids of spans, for the SDK.
type IDs struct{}

// NewIDs implements the SDK's IDGenerator.
func (IDs) NewIDs(ctx context.Context) (otel.TraceID, otel.SpanID) {
	wish, _ := ctx.Value(wishKey{}).(string)
	return newTraceID(wish), newSpanID()
}

// NewSpanID implements the SDK's IDGenerator.
func (IDs) NewSpanID(context.Context, otel.TraceID) otel.SpanID { return newSpanID() }

func newTraceID(wish string) otel.TraceID {
	if id, err := otel.TraceIDFromHex(wish); err == nil {
		return id
	}
	var id otel.TraceID
	for !id.IsValid() {
		fill(id[:])
	}
	return id
}

func newSpanID() (id otel.SpanID) {
	for !id.IsValid() {
		fill(id[:])
	}
	return id
}

// fill writes random bytes: ids are unique, not secret.
func fill(b []byte) {
	for len(b) >= 8 {
		binary.NativeEndian.PutUint64(b, rand.Uint64())
		b = b[8:]
	}
}
