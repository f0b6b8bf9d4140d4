package trace

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	otel "go.opentelemetry.io/otel/trace"
)

const (
	parent     = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ownTraceID = "4bf92f3577b34da6a3ce929d0e0e4736"
)

func newRecordingTracer(t *testing.T) (Tracer, *tracetest.InMemoryExporter) {
	kept := tracetest.NewInMemoryExporter()
	p := sdk.NewTracerProvider(sdk.WithSyncer(kept), sdk.WithIDGenerator(IDGenerator{}))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return New(p.Tracer("test")), kept
}

// TestIDs holds with a collector and without.
func TestIDs(t *testing.T) {
	with, _ := newRecordingTracer(t)
	for name, tracer := range map[string]Tracer{"collector": with, "none": {}} {
		for _, test := range []struct {
			arrival RequestStart
			want    string // empty: any other than those given
		}{
			{RequestStart{Traceparent: parent, RequestID: ownTraceID, GeneratedID: true}, parent[3:35]},
			{RequestStart{Traceparent: "01" + parent[2:] + "-more", RequestID: ownTraceID, GeneratedID: true}, parent[3:35]},
			{RequestStart{Traceparent: "garbage", RequestID: ownTraceID, GeneratedID: true}, ownTraceID},
			{RequestStart{RequestID: ownTraceID, GeneratedID: true}, ownTraceID},
			{RequestStart{RequestID: ownTraceID}, ""}, // of a client, who may use it twice
			{RequestStart{RequestID: "order-7"}, ""},
		} {
			s := tracer.Begin(test.arrival)
			s.End(time.Now(), RequestEnd{Status: 200})
			if test.want != "" && s.TraceID() != test.want || test.want == "" && (s.TraceID() == ownTraceID || len(s.TraceID()) != 32) {
				t.Errorf("%s: %+v is in trace %q, want %q", name, test.arrival, s.TraceID(), test.want)
			}
			if !strings.HasPrefix(s.Traceparent(), "00-"+s.TraceID()+"-") || len(s.Traceparent()) != 55 {
				t.Errorf("%s: traceparent is %q", name, s.Traceparent())
			}
		}
	}
	if s := (Tracer{}).Begin(RequestStart{Traceparent: parent}); s.Traceparent() != parent {
		t.Errorf("without a collector the sender's context becomes %s", s.Traceparent())
	}
	if (Span{}).TraceID() != "" {
		t.Error("no span has an id")
	}
}

func TestSpan(t *testing.T) {
	tracer, kept := newRecordingTracer(t)
	began := time.Unix(1000, 0)
	s := tracer.Begin(RequestStart{Traceparent: parent, Tracestate: "a=1", Route: "/infer", RequestID: "r", Received: began, Scheme: "https"})
	s.Requeued(began.Add(time.Second), 1)
	s.End(began.Add(2*time.Second), RequestEnd{Status: 503, ErrorType: "engine_unavailable", Model: "m", Version: "v", Key: "k", Attempts: 2})
	got := kept.GetSpans()[0]
	if got.Name != "POST /infer" || got.SpanKind != otel.SpanKindServer || got.Status.Code != codes.Error || got.SpanContext.TraceState().String() != "a=1" ||
		!got.StartTime.Equal(began) || got.EndTime.Sub(began) != 2*time.Second || len(got.Events) != 1 || !got.Events[0].Time.Equal(began.Add(time.Second)) {
		t.Errorf("%+v", got)
	}
	kept.Reset()
	s = tracer.Begin(RequestStart{RequestID: "r", Tracestate: "dropped=1"})
	s.End(time.Now(), RequestEnd{Status: 404, ErrorType: "model_not_found"})
	if got := kept.GetSpans()[0]; got.Status.Code != codes.Unset || got.Parent.IsValid() || got.SpanContext.TraceState().Len() != 0 {
		t.Errorf("a client's error: %+v", got)
	}
}

func TestUnsampledTracesAreNotKept(t *testing.T) {
	tracer, kept := newRecordingTracer(t)
	s := tracer.Begin(RequestStart{Traceparent: parent[:53] + "00"})
	s.End(time.Now(), RequestEnd{Status: 200})
	if len(kept.GetSpans()) != 0 || s.TraceID() != parent[3:35] || !strings.HasSuffix(s.Traceparent(), "-00") {
		t.Errorf("kept %d spans, goes on as %s", len(kept.GetSpans()), s.Traceparent())
	}
}

func BenchmarkBeginWithoutACollector(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = Tracer{}.Begin(RequestStart{RequestID: ownTraceID, GeneratedID: true})
	}
}
