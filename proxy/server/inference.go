package server

import (
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// infer checks a request, first the key and what is cheap to check, and passes it to the request table. It is the same
// for every dialect; the route's dialect reads the body and writes the reply.
func (s *Server) infer(x *exchange) {
	who, err := s.authenticate(x)
	if err != nil {
		x.reject(err)
		return
	}
	if err := s.checkRateLimit(x, who); err != nil {
		x.reject(err)
		return
	}
	request, err := s.decode(x, who)
	if err != nil {
		x.reject(err)
		return
	}
	x.request = request.Infer
	x.answer, err = s.opts.Requests.Admit(x.clientCtx, *request)
	if err != nil {
		x.answer = nil
		x.reject(err)
		return
	}
	if request.Infer.Stream {
		x.replyStream()
		return
	}
	x.replyWhole()
}

// decode checks header and body and builds the request for the request table. Nothing in it points into the
// connection's buffers.
func (s *Server) decode(x *exchange, who caller) (*inflight.Request, *api.Error) {
	h := &x.ctx.Request.Header
	if err := checkContentType(h); err != nil {
		return nil, err
	}
	limit, err := requestTimeout(s.opts.RequestTimeout, h.Peek(timeoutHeader))
	if err != nil {
		return nil, err
	}
	body, err := x.route.dialect.Decode(x.ctx.Request.Body(), s.opts.RequestLimits)
	if err != nil {
		return nil, err
	}
	if body.Stream && !h.IsHTTP11() {
		return nil, api.UpgradeRequired()
	}
	if err := who.checkModelScope(body.Model); err != nil {
		return nil, err
	}
	if s.opts.LogPrompts {
		x.logPrompt(body)
	}
	return &inflight.Request{
		ID: x.id, Key: who.name, Models: who.models(), Domain: s.domain(who, body.Domain, string(h.Peek(domainHeader))), Traceparent: x.span.Traceparent(),
		Received: x.received, Timeout: limit, Infer: body,
	}, nil
}

// logPrompt writes what the model is going to read to the log: a prompt, or a conversation.
func (x *exchange) logPrompt(r *api.Request) {
	fields := []any{"request_id", x.id, "trace_id", x.span.TraceID()}
	if len(r.Messages) > 0 {
		fields = append(fields, "messages", r.Messages)
	} else {
		fields = append(fields, "prompt", r.Prompt, "system", r.System)
	}
	x.s.log.Debug("prompt", fields...)
}

// domain is the domain that the key or the request names; empty: the model decides.
func (s *Server) domain(who caller, field, header string) string {
	if who.domain == "" && field == "" && header == "" {
		return ""
	}
	return s.opts.Domains.Resolve(api.DomainSources{Key: who.domain, Field: field, Header: header})
}

// wakeReason is why waitForEvent returned.
type wakeReason uint8

const (
	answerReady wakeReason = iota
	clientDisconnected
	serverStopping
	timerFired
)

// waitForEvent waits for the next event of an answer in flight. A nil timer never fires.
func (x *exchange) waitForEvent(timer <-chan time.Time) wakeReason {
	select {
	case <-x.answer.Ready():
		return answerReady
	case <-x.clientCtx.Done():
		return clientDisconnected
	case <-x.s.drainExpired:
		return serverStopping
	case <-timer:
		return timerFired
	}
}

// takePiece takes the new part of the answer and remembers whether an engine has accepted the request, which the metric
// labels depend on.
func (x *exchange) takePiece(dst []byte) inflight.Piece {
	piece := x.answer.Take(dst)
	x.accepted = x.accepted || piece.Accepted
	if piece.Attempt != x.attempt {
		x.span.Requeued(piece.LostAt, int(piece.Attempt))
		x.attempt = piece.Attempt
	}
	return piece
}

// replyWhole waits for the whole answer and replies with it.
func (x *exchange) replyWhole() {
	var text []byte
	for {
		switch x.waitForEvent(nil) {
		case answerReady:
			piece := x.takePiece(text)
			text = piece.Text
			if piece.Done {
				x.replyFinished(&piece, text)
				return
			}
		case clientDisconnected:
			x.cancelForDisconnect()
			return
		case serverStopping:
			x.cancelForShutdown()
			return
		}
	}
}

// replyFinished replies with a finished answer, or its error.
func (x *exchange) replyFinished(piece *inflight.Piece, text []byte) {
	switch {
	case x.clientCtx.Err() != nil:
		x.cancelForDisconnect()
	case piece.Err != nil:
		x.replyError(piece.Err)
		x.settle(inflight.Failed)
	default:
		x.result = piece.Result
		reply, encoder := x.finalResult(text), x.replyEncoder()
		x.settle(inflight.Delivered)
		x.reply(encoder.AppendReply(make([]byte, 0, len(text)+metadataBytes), &reply))
	}
}

// metadataBytes is about the size of the metadata in a reply.
const metadataBytes = 320

// replyEncoder is the encoder of the reply, made with the first output: the model is known by then.
func (x *exchange) replyEncoder() api.Encoder {
	if x.encoder == nil {
		x.encoder = x.route.dialect.NewEncoder(api.ReplyStart{
			Request: x.request, RequestID: x.id, Created: x.received, Model: x.answer.Model(), Version: x.answer.Version(),
		})
	}
	return x.encoder
}

// finalResult is the whole result. ResponseTime is the time until here.
func (x *exchange) finalResult(text []byte) api.Result {
	r := x.result
	if x.s.opts.LogPrompts {
		x.s.log.Debug("answer", "request_id", x.id, "trace_id", x.span.TraceID(), "answer", string(text))
	}
	return api.Result{Text: string(text), Metadata: api.Metadata{
		Model: x.answer.Model(), Version: x.answer.Version(),
		TokensGenerated: r.OutputTokens, PromptTokens: r.PromptTokens, CachedTokens: r.CachedTokens, Seed: r.Seed, FinishReason: api.FinishReason(r.FinishReason),
		GenerationTime: r.GenerationTime, ResponseTime: time.Since(x.received),
	}}
}

// cancelForDisconnect cancels an answer whose client has disconnected, and closes the connection.
func (x *exchange) cancelForDisconnect() {
	x.recordError(api.Cancelled())
	x.answer.Cancel(x.err)
	x.takePiece(nil)
	x.settle(inflight.ClientGone)
	if c := unwrap(x.ctx.Conn()); c != nil {
		c.abort()
	}
}

// cancelForShutdown ends an answer with an error when the time of the drain is over.
func (x *exchange) cancelForShutdown() {
	x.replyError(api.Draining())
	x.answer.Cancel(x.err)
	x.takePiece(nil)
	x.settle(inflight.Failed)
}
