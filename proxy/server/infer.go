package server

import (
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

const inferPath = "/infer"

// infer checks a request in the order of cost and trust, and hands it to the request table.
func (s *Server) infer(x *exchange) {
	caller, err := s.authenticate(x)
	if err != nil {
		x.refuse(err)
		return
	}
	if err := s.charge(x, caller); err != nil {
		x.refuse(err)
		return
	}
	request, err := s.decode(x, caller)
	if err != nil {
		x.refuse(err)
		return
	}
	x.answer, err = s.o.Requests.Admit(x.client, *request)
	if err != nil {
		x.answer = nil
		x.refuse(err)
		return
	}
	if request.Infer.Stream {
		x.stream()
		return
	}
	x.collect()
}

// decode checks header and body and makes the request for the request table. Nothing in it points into the connection's buffers.
func (s *Server) decode(x *exchange, who caller) (*inflight.Request, *api.Error) {
	h := &x.ctx.Request.Header
	if err := contentType(h); err != nil {
		return nil, err
	}
	limit, err := timeout(s.o.RequestTimeout, h.Peek(timeoutHeader))
	if err != nil {
		return nil, err
	}
	body, err := api.DecodeInfer(x.ctx.Request.Body(), s.o.Request)
	if err != nil {
		return nil, err
	}
	if body.Stream && !h.IsHTTP11() {
		return nil, api.UpgradeRequired()
	}
	if err := who.inScope(body.Model); err != nil {
		return nil, err
	}
	if s.o.LogPrompts {
		s.log.Debug("prompt", "request_id", x.id, "trace_id", x.span.TraceID(), "prompt", body.Prompt, "system", body.System)
	}
	return &inflight.Request{
		ID: x.id, Key: who.name, Models: who.models(), Domain: s.domain(who, body.Domain, string(h.Peek(domainHeader))), Traceparent: x.span.Traceparent(),
		Received: x.received, Timeout: limit, Infer: body,
	}, nil
}

// domain is what key or request name; empty leaves it to the model.
func (s *Server) domain(who caller, field, header string) string {
	if who.domain == "" && field == "" && header == "" {
		return ""
	}
	return s.o.Domains.Resolve(api.DomainSources{Key: who.domain, Field: field, Header: header})
}

// news is why await returned.
type news uint8

const (
	answerReady news = iota
	clientLeft
	serverStops
	timePassed
)

// await waits for the first of what can happen to an answer in hand. A nil timer never fires.
func (x *exchange) await(timer <-chan time.Time) news {
	select {
	case <-x.answer.Ready():
		return answerReady
	case <-x.client.Done():
		return clientLeft
	case <-x.s.expired:
		return serverStops
	case <-timer:
		return timePassed
	}
}

// take takes what is new and remembers whether an engine has accepted the request, which labels depend on.
func (x *exchange) take(dst []byte) inflight.Piece {
	piece := x.answer.Take(dst)
	x.accepted = x.accepted || piece.Accepted
	if piece.Attempt != x.attempt {
		x.span.Requeued(piece.LostAt, int(piece.Attempt))
		x.attempt = piece.Attempt
	}
	return piece
}

// collect waits for the whole answer and replies with it.
func (x *exchange) collect() {
	var text []byte
	for {
		switch x.await(nil) {
		case answerReady:
			piece := x.take(text)
			text = piece.Text
			if piece.Done {
				x.conclude(&piece, text)
				return
			}
		case clientLeft:
			x.leave()
			return
		case serverStops:
			x.breakOff()
			return
		}
	}
}

// conclude replies with a finished answer.
func (x *exchange) conclude(piece *inflight.Piece, text []byte) {
	switch {
	case x.client.Err() != nil:
		x.leave()
	case piece.Err != nil:
		x.fail(piece.Err)
		x.settle(inflight.Failed)
	default:
		x.result = piece.Result
		reply := x.final(text)
		x.settle(inflight.Delivered)
		x.reply(api.AppendResult(make([]byte, 0, len(text)+replyRoom), &reply))
	}
}

// replyRoom is about what metadata takes.
const replyRoom = 320

// final is the documented reply. response_time ends where it is written.
func (x *exchange) final(text []byte) api.Result {
	r := x.result
	if x.s.o.LogPrompts {
		x.s.log.Debug("answer", "request_id", x.id, "trace_id", x.span.TraceID(), "answer", string(text))
	}
	return api.Result{Text: string(text), Metadata: api.Metadata{
		Model: x.answer.Model(), Version: x.answer.Version(),
		TokensGenerated: r.OutputTokens, PromptTokens: r.PromptTokens, Seed: r.Seed, FinishReason: api.FinishReason(r.FinishReason),
		GenerationTime: r.GenerationTime, ResponseTime: time.Since(x.received),
	}}
}

// leave gives an answer up that nobody waits for, and the connection with it.
func (x *exchange) leave() {
	x.note(api.Cancelled())
	x.answer.Cancel(x.err)
	x.take(nil)
	x.settle(inflight.ClientGone)
	if c := unwrap(x.ctx.Conn()); c != nil {
		c.abort()
	}
}

// breakOff ends an answer for which the drain left no time.
func (x *exchange) breakOff() {
	x.fail(api.Draining())
	x.answer.Cancel(x.err)
	x.take(nil)
	x.settle(inflight.Failed)
}
