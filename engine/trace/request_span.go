package trace

import (
	"context"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	otel "go.opentelemetry.io/otel/trace"

	"tandem/engine/link"
)

// operationName is the name of OpenTelemetry's conventions for generative AI for completing a prompt.
const operationName = "text_completion"

// writeSpan makes the span of an attempt that has ended: parent is the proxy's span of the request, so that all
// attempts are in its trace.
func (r *Recorder) writeSpan(a *link.Attempt, parent otel.SpanContext) {
	ctx := otel.ContextWithRemoteSpanContext(context.Background(), parent)
	_, span := r.tracer.Start(ctx, operationName+" "+a.Model, otel.WithSpanKind(otel.SpanKindInternal), otel.WithTimestamp(a.Arrived))
	if !span.IsRecording() {
		span.End()
		return
	}
	span.SetAttributes(attributes(a)...)
	for _, e := range spanEvents(a) {
		span.AddEvent(e.name, otel.WithTimestamp(e.at))
	}
	if a.ErrorType != "" {
		span.SetStatus(codes.Error, a.ErrorType)
	}
	span.End(otel.WithTimestamp(a.Ended))
}

func attributes(a *link.Attempt) []attribute.KeyValue {
	list := []attribute.KeyValue{
		attribute.String("gen_ai.operation.name", operationName), attribute.String("gen_ai.provider.name", "llama.cpp"),
		attribute.String("gen_ai.request.model", a.Model), attribute.String("gen_ai.response.model", a.Model),
		attribute.String("gen_ai.response.id", a.RequestID), attribute.StringSlice("gen_ai.response.finish_reasons", []string{a.Reason}),
		attribute.Int64("gen_ai.request.seed", int64(a.Seed&math.MaxInt64)),
		attribute.String("tandem.request_id", a.RequestID), attribute.String("tandem.version", a.Version),
		attribute.Int("tandem.attempt", int(a.Attempt)), attribute.Int("tandem.replayed_tokens", a.ReplayedTokens),
	}
	if !goesOn(a) {
		list = append(list, attribute.Int("gen_ai.usage.input_tokens", a.PromptTokens), attribute.Int("gen_ai.usage.output_tokens", a.OutputTokens),
			attribute.Int("gen_ai.usage.cache_read.input_tokens", a.CachedTokens))
	}
	if a.MaxNewTokens > 0 {
		list = append(list, attribute.Int("gen_ai.request.max_tokens", a.MaxNewTokens))
	}
	if a.Temperature != nil {
		list = append(list, attribute.Float64("gen_ai.request.temperature", float64(*a.Temperature)))
	}
	if a.TopP != nil {
		list = append(list, attribute.Float64("gen_ai.request.top_p", float64(*a.TopP)))
	}
	if a.TopK != nil {
		list = append(list, attribute.Int("gen_ai.request.top_k", *a.TopK))
	}
	if a.ErrorType != "" {
		list = append(list, attribute.String("error.type", a.ErrorType))
	}
	return list
}

// goesOn reports whether another attempt follows. That has the usage of both: the prompt is its prompt as well, and its
// answer has the tokens of this one.
func goesOn(a *link.Attempt) bool { return a.Reason == "movedAway" || a.Reason == "lost" }

// spanEvent is an event of a span.
type spanEvent struct {
	name string
	at   time.Time
}

// spanEvents computes the times of the span's events from the durations of the summary: queued at the executor,
// scheduled into its first step, the first token of this attempt, finished. What never happened is left out. Durations
// are of the step loop's clock, so times are limited to the end.
func spanEvents(a *link.Attempt) []spanEvent {
	var list []spanEvent
	add := func(name string, at time.Time) {
		if at.After(a.Ended) {
			at = a.Ended
		}
		list = append(list, spanEvent{name, at})
	}
	if !a.Submitted.IsZero() {
		add("queued", a.Submitted)
		scheduled := a.Submitted.Add(a.Queue)
		if a.Prefill+a.Decode+a.Restart > 0 {
			add("scheduled", scheduled)
		}
		if a.OutputTokens > a.ReplayedTokens {
			add("first_token", scheduled.Add(a.Prefill+a.Restart))
		}
	}
	add("finished", a.Ended)
	return list
}
