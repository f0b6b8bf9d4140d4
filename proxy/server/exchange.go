package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
	"tandem/proxy/trace"
)

// exchange is one request and its reply, owned by the goroutine of its connection. Nothing in it but ctx points into fasthttp's
// buffers; ctx ends with the handler, or with the body stream.
type exchange struct {
	s        *Server
	ctx      *fasthttp.RequestCtx
	client   context.Context // ends when the client leaves
	route    *route
	id       string
	span     trace.Span // of inference; zero on other routes
	received time.Time

	key       string // name of the API key
	charged   charge // zero: nothing was counted
	status    int
	label     api.StatusLabel
	model     *metrics.ModelMetrics // nil: none
	err       *api.Error            // the answer, when it is an error
	result    *inflight.Result
	answer    inflight.Answer // to be settled; nil before and after
	accepted  bool            // an engine took the request
	attempt   uint32          // at how many engines it was before the present one
	streaming bool            // the body stream finishes the exchange
	sent      int             // bytes of a stream
	finished  bool
}

// begin counts the request in and gives it its id. What could not be read has no time of its own in ctx.
func (s *Server) begin(ctx *fasthttp.RequestCtx, r *route, received time.Time) *exchange {
	if r == nil {
		r = s.other
	}
	x := &exchange{s: s, ctx: ctx, client: context.Background(), route: r, received: received, status: fasthttp.StatusOK, label: api.LabelSuccess}
	if c := unwrap(ctx.Conn()); c != nil {
		x.client = c.ctx
	}
	asked := ctx.Request.Header.Peek(requestIDHeader)
	x.id = requestID(asked)
	x.mark()
	if r.path == inferPath {
		x.beginTrace(x.id != string(asked))
	}
	r.metrics.Begin()
	s.open.Add(1)
	return x
}

// mark sets the headers of every reply.
func (x *exchange) mark() {
	h := &x.ctx.Response.Header
	h.Set(requestIDHeader, x.id)
	x.s.origins.mark(&x.ctx.Request.Header, h)
}

// reply is a JSON answer that went well.
func (x *exchange) reply(body []byte) {
	x.ctx.SetContentType("application/json")
	x.ctx.Response.SetBodyRaw(body)
}

// replyStatus is a JSON answer with another status that isn't an error of the API: probes.
func (x *exchange) replyStatus(status int, body []byte) {
	x.reply(body)
	x.status = status
	x.ctx.SetStatusCode(status)
	if status >= fasthttp.StatusInternalServerError {
		x.label = api.LabelError
	}
}

// fail answers with an error.
func (x *exchange) fail(err *api.Error) {
	x.note(err)
	if x.status == fasthttp.StatusServiceUnavailable {
		x.refund()
	}
	h := &x.ctx.Response.Header
	if seconds := err.RetryAfterSeconds(); seconds > 0 {
		h.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(seconds))
	}
	switch err.Type {
	case api.TypeUnauthorized:
		h.Set(fasthttp.HeaderWWWAuthenticate, `Bearer realm="tandem"`)
	case api.TypeUpgradeRequired:
		h.Set(fasthttp.HeaderUpgrade, "HTTP/1.1")
	case api.TypeDraining:
		x.ctx.SetConnectionClose()
	}
	x.ctx.SetStatusCode(x.status)
	x.reply(api.AppendError(nil, err, x.id))
}

// note takes an error down for log and metrics.
func (x *exchange) note(err *api.Error) {
	o := err.Outcome()
	x.err, x.status, x.label = err, o.Status, o.Label
	if err.Type == api.TypeModelNotFound || err.Type == api.TypeVersionNotFound {
		x.model = x.s.o.Metrics.Unknown()
	}
}

// refuse is fail for a request that the request table never saw, and counts it.
func (x *exchange) refuse(err *api.Error) {
	if reason := err.Outcome().Rejected; reason != "" {
		x.s.o.Metrics.Rejected(reason)
	}
	x.fail(err)
}

// settle ends the answer in every metric of inference. Before an engine accepted the request, no model applies to it.
func (x *exchange) settle(outcome inflight.Outcome) {
	a := x.answer
	if a == nil {
		return
	}
	x.answer = nil
	if x.accepted {
		x.model = x.s.o.Metrics.Model(a.Model(), a.Version())
	}
	a.Settle(outcome)
}

// recovered keeps a fault of ours from taking the process down.
func (x *exchange) recovered() {
	fault := recover()
	if fault == nil {
		return
	}
	x.broken(fault)
	if !x.streaming {
		x.ctx.Response.ResetBody()
		x.fail(x.err)
	}
	x.finish()
}

// broken logs a panic and gives the answer up.
func (x *exchange) broken(fault any) {
	x.s.log.Error("panic while serving a request", "request_id", x.id, "endpoint", x.route.path, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
	x.note(api.Internal(fmt.Errorf("panic: %v", fault)))
	if x.answer != nil {
		x.answer.Cancel(x.err)
		x.settle(inflight.Failed)
	}
}

// finish counts and logs the exchange, once, at its true end.
func (x *exchange) finish() {
	if x.finished {
		return
	}
	x.finished = true
	took := time.Since(x.received)
	sent := x.sent
	if !x.streaming && !x.ctx.IsHead() {
		sent = len(x.ctx.Response.Body())
	}
	received := len(x.ctx.Request.Body())
	x.route.metrics.Record(metrics.Reply{Status: string(x.label), Model: x.model, Took: took, RequestBytes: received, ResponseBytes: sent,
		TraceID: metrics.SampledTraceID(x.span.Traceparent())})
	x.s.open.Add(-1)
	x.endTrace(x.received.Add(took))
	x.log(took, received, sent)
}

// log writes the access line: inference at info, probes and pages at debug, failures of ours at warn. Never a prompt, an answer or
// a key. Of inference that went as it should, LogSample may leave lines out.
func (x *exchange) log(took time.Duration, received, sent int) {
	level := slog.LevelDebug
	switch {
	case x.status >= fasthttp.StatusInternalServerError && x.route.path != "/readyz":
		level = slog.LevelWarn
	case x.route.path == inferPath:
		level = slog.LevelInfo
		if x.err == nil && x.attempt == 0 && !trace.InLogSample(x.id, x.s.o.LogSample) {
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
		fields = append(fields, slog.Int("prompt_tokens", r.PromptTokens), slog.Int("tokens", r.OutputTokens),
			slog.Float64("generation_seconds", seconds(r.GenerationTime)), slog.String("finish", r.FinishReason))
	}
	if x.attempt > 0 {
		fields = append(fields, slog.Int("attempts", int(x.attempt)+1))
	}
	if e := x.err; e != nil {
		fields = append(fields, slog.String("error_type", string(e.Type)))
		if e.Cause != nil {
			fields = append(fields, slog.String("error", e.Cause.Error()))
		}
	}
	// Straight to the handler: where in the program this was said is of no use, and looking it up costs.
	line := slog.NewRecord(x.received.Add(took), level, "request", 0)
	line.AddAttrs(fields...)
	_ = x.s.log.Handler().Handle(context.Background(), line)
}

func seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }
