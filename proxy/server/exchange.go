package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
	"tandem/proxy/trace"
)

// exchange is one request and its reply, owned by the goroutine of its connection. Nothing in it but ctx points into
// fasthttp's buffers; ctx ends with the handler, or with the body stream.
type exchange struct {
	s         *Server
	ctx       *fasthttp.RequestCtx
	clientCtx context.Context // ends when the client disconnects
	route     *route
	id        string
	span      trace.Span // of inference; zero on other routes
	received  time.Time

	key       string         // name of the API key
	rateLimit rateLimitCheck // zero: nothing was counted
	use       keyUse         // of the key's limits
	status    int
	label     api.StatusLabel
	model     *metrics.ModelMetrics // nil: none
	err       *api.Error            // the error that was replied, or nil
	request   *api.Request          // nil before it is decoded
	encoder   api.Encoder           // of the reply; nil before its first output
	choices   []choice              // of the reply; nil before the first output
	deltas    []api.Delta           // scratch of addPiece
	result    *api.Metadata         // of all choices; nil before they are complete
	answer    inflight.Answer       // must be settled; nil before Admit and after settling
	accepted  bool                  // an engine took the request
	requeues  int                   // from engines that were lost or gave it back
	streaming bool                  // the body stream finishes the exchange
	sentBytes int                   // of a stream
	// resumable is the room for a stream that can be resumed, until that stream has it
	resumable     *resumableStream
	receivedBytes int // of the body, once ctx is gone
	finished      bool
}

// beginExchange counts the request as in flight and gives it its id. received is passed, since ctx has no time for a
// request that couldn't be read.
func (s *Server) beginExchange(ctx *fasthttp.RequestCtx, r *route, received time.Time) *exchange {
	x := &exchange{s: s, ctx: ctx, clientCtx: context.Background(), route: r, received: received, status: fasthttp.StatusOK, label: api.LabelSuccess}
	if c := unwrap(ctx.Conn()); c != nil {
		x.clientCtx = c.ctx
	}
	given := ctx.Request.Header.Peek(requestIDHeader)
	x.id = requestID(given)
	x.setCommonHeaders()
	if r.inference {
		x.beginTrace(x.id != string(given))
	}
	r.metrics.Begin()
	s.openExchanges.Add(1)
	return x
}

// setCommonHeaders sets the headers that every reply has.
func (x *exchange) setCommonHeaders() {
	h := &x.ctx.Response.Header
	h.Set(requestIDHeader, x.id)
	if x.route.idHeader != "" {
		h.Set(x.route.idHeader, x.id)
	}
	x.s.corsOrigins.addHeaders(&x.ctx.Request.Header, h)
}

// reply sends a JSON body with status 200.
func (x *exchange) reply(body []byte) {
	x.ctx.SetContentType("application/json")
	x.ctx.Response.SetBodyRaw(body)
}

// replyStatus sends a JSON body with another status that isn't an error of the API, as the probes do.
func (x *exchange) replyStatus(status int, body []byte) {
	x.reply(body)
	x.status = status
	x.ctx.SetStatusCode(status)
	if status >= fasthttp.StatusInternalServerError {
		x.label = api.LabelError
	}
}

// replyError sends an error in the dialect of the route.
func (x *exchange) replyError(err *api.Error) {
	x.recordError(err)
	if x.status == fasthttp.StatusServiceUnavailable {
		x.refundRateLimit()
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
	x.reply(x.route.dialect.AppendError(nil, err, x.id))
}

// recordError remembers an error for log and metrics.
func (x *exchange) recordError(err *api.Error) {
	o := err.Outcome()
	x.err, x.status, x.label = err, o.Status, o.Label
	if err.Type == api.TypeModelNotFound || err.Type == api.TypeVersionNotFound {
		x.model = x.s.opts.Metrics.Unknown()
	}
}

// reject is replyError for a request that the request table never admitted, and counts it as rejected.
func (x *exchange) reject(err *api.Error) {
	if reason := err.Outcome().Rejected; reason != "" {
		x.s.opts.Metrics.Rejected(reason)
	}
	x.replyError(err)
}

func (x *exchange) sinceReceived() time.Duration { return time.Since(x.received) }

// settle reports the outcome of the answer to the request table. Before an engine accepted the request, no model
// applies to it.
func (x *exchange) settle(outcome inflight.Outcome) {
	a := x.answer
	if a == nil {
		return
	}
	x.answer = nil
	x.use.prompt, x.use.new = a.PromptTokens(), a.OutputTokens() // of choices that weren't taken, too
	if x.accepted {
		x.model = x.s.opts.Metrics.Model(a.Model(), a.Version())
	}
	a.Settle(outcome)
}

// recoverPanic keeps a panic from ending the process.
func (x *exchange) recoverPanic() {
	fault := recover()
	if fault == nil {
		return
	}
	x.failAfterPanic(fault)
	if !x.streaming {
		x.ctx.Response.ResetBody()
		x.replyError(x.err)
	}
	x.finish()
}

// failAfterPanic logs a panic and cancels the answer.
func (x *exchange) failAfterPanic(fault any) {
	x.s.log.Error("panic while serving a request", "request_id", x.id, "endpoint", x.route.path, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
	x.recordError(api.Internal(fmt.Errorf("panic: %v", fault)))
	if x.answer != nil {
		x.answer.Cancel(x.err)
		x.settle(inflight.Failed)
	}
}

// finish counts and logs the exchange, once, at its end.
func (x *exchange) finish() {
	if x.finished {
		return
	}
	x.finished = true
	took := time.Since(x.received)
	sent := x.sentBytes
	if !x.streaming && !x.ctx.IsHead() {
		sent = len(x.ctx.Response.Body())
	}
	received := x.receivedBytes
	if x.ctx != nil {
		received = len(x.ctx.Request.Body())
	}
	x.s.resumable.release(x.resumable)
	x.endKeyUse()
	x.route.metrics.Record(metrics.Reply{Status: string(x.label), Model: x.model, Took: took, RequestBytes: received, ResponseBytes: sent,
		TraceID: metrics.SampledTraceID(x.span.Traceparent())})
	x.s.openExchanges.Add(-1)
	x.endTrace(x.received.Add(took))
	x.writeAccessLog(took, received, sent)
}
