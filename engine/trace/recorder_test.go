package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tandem/engine/link"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	parent  = "00-" + traceID + "-b7ad6b7169203331-01"
)

var arrived = time.Unix(1000, 0)

func testAttempt(change func(*link.Attempt)) link.Attempt {
	a := link.Attempt{
		RequestID: "r", Traceparent: parent, Model: "m", Version: "v", Arrived: arrived, Submitted: arrived.Add(time.Second), Ended: arrived.Add(10 * time.Second),
		Queue: time.Second, Prefill: 2 * time.Second, Decode: 5 * time.Second, PromptTokens: 7, OutputTokens: 3, Reason: "stop",
	}
	change(&a)
	return a
}

func TestSpanOfAFailure(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	p := sdk.NewTracerProvider(sdk.WithSyncer(kept), sdk.WithSampler(sdk.ParentBased(sdk.AlwaysSample())))
	r := New(p.Tracer("t"), slog.New(slog.DiscardHandler), 1)
	r.Ended(testAttempt(func(a *link.Attempt) { a.Reason, a.ErrorType = "error", "grammar_too_complex" }))
	r.Ended(testAttempt(func(a *link.Attempt) { a.Traceparent = parent[:53] + "00" })) // its sender doesn't keep it
	drainRecorder(r)
	spans := kept.GetSpans()
	if len(spans) != 1 {
		t.Fatalf("%d spans, want 1", len(spans))
	}
	s := spans[0]
	if s.Name != "text_completion m" || s.Status.Code != codes.Error || s.Parent.SpanID().String() != parent[36:52] || s.SpanContext.TraceID().String() != traceID ||
		!s.StartTime.Equal(arrived) || s.EndTime.Sub(arrived) != 10*time.Second {
		t.Errorf("%+v", s)
	}
}

// drainRecorder makes a recorder record what it was given.
func drainRecorder(r *Recorder) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.Run(ctx)
}

func TestLines(t *testing.T) {
	var log bytes.Buffer
	r := New(nil, slog.New(slog.NewJSONHandler(&log, nil)), 1_000_000)
	r.Ended(testAttempt(func(*link.Attempt) {})) // went well, isn't chosen
	r.Ended(testAttempt(func(a *link.Attempt) { a.Attempt, a.ReplayedTokens, a.Restart = 1, 2, time.Second }))
	r.Ended(testAttempt(func(a *link.Attempt) { a.Reason, a.ErrorType = "error", "internal" }))
	r.Ended(testAttempt(func(a *link.Attempt) { a.Reason, a.Traceparent = "lost", "" }))
	drainRecorder(r)
	var reasons []string
	for _, raw := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		var line map[string]any
		if err := json.Unmarshal([]byte(raw), &line); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		reason := line["finish"].(string)
		reasons = append(reasons, reason)
		if line["request_id"] != "r" || line["model"] != "m" || line["version"] != "v" || line["seconds"] != 10.0 || line["queue_seconds"] != 1.0 {
			t.Errorf("line %v", line)
		}
		if id := line["trace_id"]; id != traceID && reason != "lost" {
			t.Errorf("trace id %v", id)
		}
	}
	if want := []string{"stop", "error", "lost"}; !slices.Equal(reasons, want) {
		t.Errorf("lines of %v, want %v", reasons, want)
	}
}

func TestEndedNeverWaits(t *testing.T) {
	var log bytes.Buffer
	r := New(nil, slog.New(slog.NewTextHandler(&log, nil)), 1)
	for range maxQueued + 5 { // nobody runs
		r.Ended(testAttempt(func(*link.Attempt) {}))
	}
	drainRecorder(r)
	if n := strings.Count(log.String(), "msg=request "); n != maxQueued {
		t.Errorf("%d lines, want %d", n, maxQueued)
	}
	if !strings.Contains(log.String(), "left_out=5") {
		t.Error("what was left out isn't spoken of")
	}
}
