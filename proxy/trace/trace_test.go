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
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	own    = "4bf92f3577b34da6a3ce929d0e0e4736"
)

func recording(t *testing.T) (Tracer, *tracetest.InMemoryExporter) {
	kept := tracetest.NewInMemoryExporter()
	p := sdk.NewTracerProvider(sdk.WithSyncer(kept), sdk.WithIDGenerator(IDs{}))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return New(p.Tracer("test")), kept
}

// TestIDs holds with a collector and without.
func TestIDs(t *testing.T) {
	with, _ := recording(t)
	for name, tracer := range map[string]Tracer{"collector": with, "none": {}} {
		for _, test := range []struct {
			arrival Arrival
			want    string // empty: any other than those given
		}{
			{Arrival{Parent: parent, RequestID: own, OwnID: true}, parent[3:35]},
			{Arrival{Parent: "01" + parent[2:] + "-more", RequestID: own, OwnID: true}, parent[3:35]},
			{Arrival{Parent: "garbage", RequestID: own, OwnID: true}, own},
			{Arrival{RequestID: own, OwnID: true}, own},
			{Arrival{RequestID: own}, ""}, // of a client, who may use it twice
			{Arrival{RequestID: "order-7"}, ""},
		} {
			s := tracer.Begin(test.arrival)
			s.End(time.Now(), End{Status: 200})
			if test.want != "" && s.ID() != test.want || test.want == "" && (s.ID() == own || len(s.ID()) != 32) {
				t.Errorf("%s: %+v is in trace %q, want %q", name, test.arrival, s.ID(), test.want)
			}
			if !strings.HasPrefix(s.Parent(), "00-"+s.ID()+"-") || len(s.Parent()) != 55 {
				t.Errorf("%s: traceparent is %q", name, s.Parent())
			}
		}
	}
	if s := (Tracer{}).Begin(Arrival{Parent: parent}); s.Parent() != parent {
		t.Errorf("without a collector the sender's context becomes %s", s.Parent())
	}
	if (Span{}).ID() != "" {
		t.Error("no span has an id")
	}
}

func TestSpan(t *testing.T) {
	tracer, kept := recording(t)
	began := time.Unix(1000, 0)
	s := tracer.Begin(Arrival{Parent: parent, State: "a=1", RequestID: "r", Received: began, Scheme: "https"})
	s.Requeued(began.Add(time.Second), 1)
	s.End(began.Add(2*time.Second), End{Status: 503, ErrorType: "engine_unavailable", Model: "m", Version: "v", Key: "k", Attempts: 2})
	got := kept.GetSpans()[0]
	if got.SpanKind != otel.SpanKindServer || got.Status.Code != codes.Error || got.SpanContext.TraceState().String() != "a=1" ||
		!got.StartTime.Equal(began) || got.EndTime.Sub(began) != 2*time.Second || len(got.Events) != 1 || !got.Events[0].Time.Equal(began.Add(time.Second)) {
		t.Errorf("%+v", got)
	}
	kept.Reset()
	s = tracer.Begin(Arrival{RequestID: "r", State: "dropped=1"})
	s.End(time.Now(), End{Status: 404, ErrorType: "model_not_found"})
	if got := kept.GetSpans()[0]; got.Status.Code != codes.Unset || got.Parent.IsValid() || got.SpanContext.TraceState().Len() != 0 {
		t.Errorf("a client's error: %+v", got)
	}
}

func TestUnsampledTracesAreNotKept(t *testing.T) {
	tracer, kept := recording(t)
	s := tracer.Begin(Arrival{Parent: parent[:53] + "00"})
	s.End(time.Now(), End{Status: 200})
	if len(kept.GetSpans()) != 0 || s.ID() != parent[3:35] || !strings.HasSuffix(s.Parent(), "-00") {
		t.Errorf("kept %d spans, goes on as %s", len(kept.GetSpans()), s.Parent())
	}
}

func BenchmarkBeginWithoutACollector(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = Tracer{}.Begin(Arrival{RequestID: own, OwnID: true})
	}
}
