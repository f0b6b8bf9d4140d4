// Package trace records the requests that have ended in the engine: a log line each and, with a collector, a span in
// the trace that the proxy began. It gets link.Attempt values and decides nothing about requests.
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

// maxQueued is how many attempts may wait to be recorded; further ones are dropped, because the step loop never waits.
const maxQueued = 1024

// dropWarnInterval is the least time between two warnings about dropped attempts.
const dropWarnInterval = time.Minute

// Recorder implements link.Recorder.
type Recorder struct {
	tracer    otel.Tracer
	log       *slog.Logger
	logSample int
	ended     chan link.Attempt
	dropped   atomic.Int64
	warnedAt  time.Time // of Run's goroutine
}

// New makes a recorder; Run does the work. A nil tracer: no spans. Of the requests that went well in their first
// attempt, one in sample gets a log line.
func New(spans otel.Tracer, log *slog.Logger, sample int) *Recorder {
	return &Recorder{tracer: spans, log: log, logSample: sample, ended: make(chan link.Attempt, maxQueued)}
}

// Ended implements link.Recorder.
func (r *Recorder) Ended(a link.Attempt) {
	select {
	case r.ended <- a:
	default:
		r.dropped.Add(1)
	}
}

// Run records attempts until ctx ends, then those that are left.
func (r *Recorder) Run(ctx context.Context) {
	for {
		select {
		case a := <-r.ended:
			r.write(&a)
		case <-ctx.Done():
			for {
				select {
				case a := <-r.ended:
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
	if r.tracer != nil {
		r.writeSpan(a, parent)
	}
	r.writeLine(a, traceID)
	if n := r.dropped.Load(); n > 0 && time.Since(r.warnedAt) >= dropWarnInterval {
		r.warnedAt = time.Now()
		r.dropped.Add(-n)
		r.log.Warn("requests ended faster than they could be written down", "left_out", n)
	}
}

// wentWell reports whether the attempt ended normally.
func wentWell(a *link.Attempt) bool { return a.Reason == "stop" || a.Reason == "length" }

// writeLine writes the engine's log line of a request, at info. A failure is for the proxy to warn about, since it may
// send the request again.
func (r *Recorder) writeLine(a *link.Attempt, traceID string) {
	if wentWell(a) && a.Attempt == 0 && !trace.InLogSample(a.RequestID, r.logSample) || !r.log.Enabled(context.Background(), slog.LevelInfo) {
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
