// Package trace writes down the requests that the engine is done with: a log line each, and with a collector a span in the trace that the
// proxy began. It takes plain facts from package link and decides nothing about requests.
package trace

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	otel "go.opentelemetry.io/otel/trace"

	"tandem/engine/link"
	"tandem/schema/trace"
)

// queued is how many attempts may wait to be written down; further ones are dropped, because the step loop never waits.
const queued = 1024

// sayEvery is how often dropped attempts are spoken of.
const sayEvery = time.Minute

// Recorder implements link.Recorder.
type Recorder struct {
	spans   otel.Tracer
	log     *slog.Logger
	sample  int
	over    chan link.Attempt
	dropped atomic.Int64
	said    time.Time // of Run's goroutine
}

// New makes a recorder; Run does the work. A nil spans leaves it at log lines, of which one in sample is written for requests that went
// well in their first attempt.
func New(spans otel.Tracer, log *slog.Logger, sample int) *Recorder {
	return &Recorder{spans: spans, log: log, sample: sample, over: make(chan link.Attempt, queued)}
}

// Ended implements link.Recorder.
func (r *Recorder) Ended(a link.Attempt) {
	select {
	case r.over <- a:
	default:
		r.dropped.Add(1)
	}
}

// Run writes attempts down until ctx ends, then those that are left.
func (r *Recorder) Run(ctx context.Context) {
	for {
		select {
		case a := <-r.over:
			r.write(&a)
		case <-ctx.Done():
			for {
				select {
				case a := <-r.over:
					r.write(&a)
				default:
					return
				}
			}
		}
	}
}

func (r *Recorder) write(a *link.Attempt) {
	parent, traced := trace.Parse(a.Traceparent)
	traceID := ""
	if traced {
		traceID = parent.TraceID().String()
	}
	if r.spans != nil {
		r.span(a, parent)
	}
	r.line(a, traceID)
	if n := r.dropped.Load(); n > 0 && time.Since(r.said) >= sayEvery {
		r.said = time.Now()
		r.dropped.Add(-n)
		r.log.Warn("requests ended faster than they could be written down", "left_out", n)
	}
}

// Outcomes that are nobody's fault.
func went(a *link.Attempt) bool { return a.Reason == "stop" || a.Reason == "length" }

// line writes the engine's line about a request, at info. What failed is the proxy's to warn about, since it may send it again.
func (r *Recorder) line(a *link.Attempt, traceID string) {
	if went(a) && a.Attempt == 0 && !trace.Chosen(a.RequestID, r.sample) || !r.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	fields := make([]slog.Attr, 0, 16)
	fields = append(fields, slog.String("request_id", a.RequestID), slog.String("trace_id", traceID), slog.Int("attempt", int(a.Attempt)),
		slog.String("model", a.Model), slog.String("version", a.Version), slog.String("finish", a.Reason),
		slog.Float64("seconds", seconds(a.Ended.Sub(a.Arrived))), slog.Float64("render_seconds", seconds(a.Rendering)),
		slog.Float64("queue_seconds", seconds(a.Queue)), slog.Float64("prefill_seconds", seconds(a.Prefill)),
		slog.Float64("decode_seconds", seconds(a.Decode)), slog.Int("prompt_tokens", a.PromptTokens),
		slog.Int("cached_tokens", a.CachedTokens), slog.Int("tokens", a.OutputTokens))
	if a.ReplayedTokens > 0 {
		fields = append(fields, slog.Int("replayed_tokens", a.ReplayedTokens), slog.Float64("restart_seconds", seconds(a.Restart)))
	}
	if a.ErrorType != "" {
		fields = append(fields, slog.String("error_type", a.ErrorType))
	}
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "request", fields...)
}

func seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }
