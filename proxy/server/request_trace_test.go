package server

import (
	"context"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/trace"
)

// What engines did to a request is what its trace is read for when it failed.
func TestLostEnginesAreInLineAndSpanOfRequestsThatFail(t *testing.T) {
	for name, body := range map[string]string{"whole": `{"prompt":"x"}`, "stream": `{"prompt":"x","stream":true}`} {
		t.Run(name, func(t *testing.T) {
			kept := tracetest.NewInMemoryExporter()
			p := sdk.NewTracerProvider(sdk.WithSyncer(kept))
			defer func() { _ = p.Shutdown(context.Background()) }()
			first := time.Unix(1000, 0)
			table := &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
				a := newAnswer(r)
				a.add(func(p *inflight.Piece) {
					p.Requeues = []inflight.Requeue{{At: first, Attempt: 1}, {At: first.Add(time.Second), Attempt: 2}}
				})
				a.fail(api.EngineCrashed(time.Minute), true)
				return a, nil
			}}
			ts := startTestServer(t, table, func(o *Options) { o.Tracer = trace.New(p.Tracer("test")) })
			ts.do("POST", "/infer", body, "Authorization", "Bearer "+testKey, "Content-Type", "application/json")
			ts.shutdown()
			if log := ts.log.String(); !strings.Contains(log, " attempts=3 ") {
				t.Errorf("no three attempts in the log: %s", log)
			}
			span := kept.GetSpans()[0]
			if len(span.Events) != 2 || !span.Events[0].Time.Equal(first) || span.Events[1].Name != "requeued" {
				t.Errorf("events %+v", span.Events)
			}
			for _, a := range span.Attributes {
				if a.Key == "tandem.attempts" && a.Value.AsInt64() != 3 {
					t.Errorf("%s is %d, want 3", a.Key, a.Value.AsInt64())
				}
			}
		})
	}
}
