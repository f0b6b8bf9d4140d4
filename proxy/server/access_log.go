package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/trace"
)

// writeAccessLog writes the access line: inference at info, probes and pages at debug, errors of the server at warn. It
// never holds a prompt, an answer or a key. LogSample may leave out lines of successful inference.
func (x *exchange) writeAccessLog(took time.Duration, received, sent int) {
	level := slog.LevelDebug
	switch {
	case x.status >= fasthttp.StatusInternalServerError && x.route.path != "/readyz":
		level = slog.LevelWarn
	case x.route.inference:
		level = slog.LevelInfo
		if x.err == nil && x.requeues == 0 && !trace.InLogSample(x.id, x.s.opts.LogSample) {
			return
		}
	}
	if !x.s.log.Enabled(context.Background(), level) {
		return
	}
	fields := make([]slog.Attr, 0, 16)
	fields = append(fields, slog.String("request_id", x.id), slog.String("endpoint", x.route.path), slog.Int("status", x.status),
		slog.Float64("seconds", seconds(took)), slog.Int("bytes_in", received), slog.Int("bytes_out", sent))
	if x.key != "" {
		fields = append(fields, slog.String("key", x.key))
	}
	if id := x.span.TraceID(); id != "" {
		fields = append(fields, slog.String("trace_id", id))
	}
	if x.model != nil {
		model, version := x.model.Labels()
		fields = append(fields, slog.String("model", model), slog.String("version", version))
	}
	if r := x.result; r != nil {
		fields = append(fields, slog.Int("prompt_tokens", r.PromptTokens), slog.Int("tokens", r.TokensGenerated),
			slog.Float64("generation_seconds", seconds(r.GenerationTime)), slog.String("finish", string(r.FinishReason)))
	}
	if x.requeues > 0 {
		fields = append(fields, slog.Int("attempts", x.requeues+1))
	}
	if e := x.err; e != nil {
		fields = append(fields, slog.String("error_type", string(e.Type)))
		if e.Cause != nil {
			fields = append(fields, slog.String("error", e.Cause.Error()))
		}
	}
	// Straight to the handler: the source position of this call is of no use, and slog's look-up of it costs time.
	line := slog.NewRecord(x.received.Add(took), level, "request", 0)
	line.AddAttrs(fields...)
	_ = x.s.log.Handler().Handle(context.Background(), line)
}

func seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }
