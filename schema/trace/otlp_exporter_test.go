package trace

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	otel "go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type refusingExporter struct{ sdk.SpanExporter }

func (refusingExporter) ExportSpans(context.Context, []sdk.ReadOnlySpan) error {
	return errors.New("no")
}

func TestFailuresAreSaidOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &lossLogger{SpanExporter: refusingExporter{}, log: slog.New(slog.NewTextHandler(&log, nil)), now: time.Now}
		three := make([]sdk.ReadOnlySpan, 3)
		for range 60 { // over a minute and a half
			if err := r.ExportSpans(t.Context(), three); err != nil {
				t.Errorf("the batcher hears of %v", err)
			}
			time.Sleep(1500 * time.Millisecond)
		}
		if said := strings.Count(log.String(), "spans are lost"); said != 2 {
			t.Errorf("said %d times, want 2:\n%s", said, &log)
		}
		if !strings.Contains(log.String(), "spans=120") {
			t.Errorf("the second line should count the spans of a minute:\n%s", &log)
		}
	})
}

func TestCloseDoesntWaitForACollectorThatHangs(t *testing.T) {
	asked, release := make(chan struct{}, 1), make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-release
	}))
	defer collector.Close()
	defer close(release)
	e := openExporter(t, collector.URL)
	span := func() {
		_, s := e.Tracer().Start(context.Background(), "x")
		s.End()
	}
	span()
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was sent")
	}
	began := time.Now()
	for range 10 * queueSpans { // far more than there is room for
		span()
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("spans waited for the collector: %s", took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began = time.Now()
	if err := e.Close(ctx); err == nil {
		t.Error("spans were lost and Close didn't say so")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %s", took)
	}
}

func TestPathOfTheCollector(t *testing.T) {
	for base, want := range map[string]string{"": "/v1/traces", "/": "/v1/traces", "/otlp": "/otlp/v1/traces", "/otlp/": "/otlp/v1/traces"} {
		var path atomic.Value
		collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { path.Store(r.URL.Path) }))
		e := openExporter(t, collector.URL+base)
		_, s := e.Tracer().Start(context.Background(), "x")
		s.End()
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
		collector.Close()
		if got := path.Load(); got != want {
			t.Errorf("base %q: spans went to %v, want %s", base, got, want)
		}
	}
}

// TestSamplingFollowsTheSender: the ratio is for traces that begin here.
func TestSamplingFollowsTheSender(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	for _, ratio := range []float64{0, 1} {
		p := sdk.NewTracerProvider(sdk.WithSyncer(kept), sdk.WithSampler(parentBasedSampler(ratio)))
		for _, parent := range []string{"", validTraceparent, validTraceparent[:53] + "00"} {
			ctx := context.Background()
			if c, ok := Parse(parent); ok {
				ctx = otel.ContextWithRemoteSpanContext(ctx, c)
			}
			kept.Reset()
			_, s := p.Tracer("t").Start(ctx, "x")
			s.End()
			want := parent == validTraceparent || parent == "" && ratio == 1
			if got := len(kept.GetSpans()) == 1; got != want {
				t.Errorf("ratio %v, parent %q: kept %v, want %v", ratio, parent, got, want)
			}
		}
	}
}

func openExporter(t *testing.T, url string) *Exporter {
	t.Helper()
	e, err := Open(t.Context(), Options{Endpoint: url, Service: "s", Program: "test", Version: "1", Ratio: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}
