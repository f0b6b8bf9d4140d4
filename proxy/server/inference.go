package server

import (
	"encoding/hex"
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
	if err := s.checkKeyLimits(x, who, x.request); err != nil {
		x.reject(err)
		return
	}
	if err := s.resumable.reserve(x, x.request); err != nil {
		x.reject(err)
		return
	}
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
	if n := len(body.UnknownFields); n > 0 {
		s.opts.Metrics.UnknownFields(n)
		s.log.Debug("unknown fields were ignored", "request_id", x.id, "endpoint", x.route.path, "fields", body.UnknownFields)
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
		ID: x.id, Key: who.name, Weight: who.weight(), Models: who.models(), Domain: s.domain(who, body.Domain, string(h.Peek(domainHeader))), Traceparent: x.span.Traceparent(),
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

// takePiece takes the new part of one choice, which may be a failure. It remembers whether an engine has accepted the
// request, which the metric labels depend on, and how many engines it was taken back from.
func (x *exchange) takePiece(dst []byte) inflight.Piece {
	piece := x.answer.Take(dst)
	x.accepted = x.accepted || piece.Accepted
	for _, r := range piece.Requeues {
		x.requeues++
		x.span.Requeued(r.At, int(r.Attempt))
	}
	x.countTokens(&piece)
	return piece
}

// replyWhole waits for all choices and replies with them.
func (x *exchange) replyWhole() {
	var text []byte
	for {
		switch x.waitForEvent(nil) {
		case answerReady:
			for more := true; more; {
				piece := x.takePiece(text[:0])
				text, more = piece.Text, piece.More
				if x.addToWhole(&piece) {
					return
				}
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

// addToWhole takes a piece in and replies if it was the last one, or an error.
func (x *exchange) addToWhole(piece *inflight.Piece) (replied bool) {
	if piece.Err == nil {
		if _, err := x.addPiece(piece); err != nil {
			piece.Err, piece.Last = api.Internal(err), true
		}
	}
	if piece.Last {
		x.replyFinished(piece)
	}
	return piece.Last
}

// replyFinished replies with the finished choices, or an error.
func (x *exchange) replyFinished(piece *inflight.Piece) {
	switch {
	case x.clientCtx.Err() != nil:
		x.cancelForDisconnect()
	case piece.Err != nil:
		x.replyError(piece.Err)
		x.answer.Cancel(x.err)
		x.settle(inflight.Failed)
	default:
		reply, encoder := x.finalReply(), x.replyEncoder()
		if err := x.request.CheckReply(&reply); err != nil {
			x.replyError(err)
			x.settle(inflight.Failed)
			return
		}
		x.setRevision()
		x.settle(inflight.Delivered)
		x.reply(encoder.AppendReply(make([]byte, 0, len(reply.Results[0].Text)+metadataBytes), &reply))
	}
}

// metadataBytes is about the size of the metadata in a reply.
const metadataBytes = 320

// replyEncoder is the encoder of the reply, made with the first output: the model is known by then.
func (x *exchange) replyEncoder() api.Encoder {
	if x.encoder == nil {
		x.encoder = x.route.dialect.NewEncoder(api.ReplyStart{
			Request: x.request, RequestID: x.id, Created: x.received, ModelID: x.answer.ModelID(),
			Revision: hex.EncodeToString(x.answer.Revision()), PromptTokens: x.answer.PromptTokens(),
		})
	}
	return x.encoder
}

// setRevision names the model's files in a header, if an engine has taken the request.
func (x *exchange) setRevision() { x.setRevisionHeader(x.answer.Revision()) }

func (x *exchange) setRevisionHeader(revision []byte) {
	if len(revision) > 0 {
		x.ctx.Response.Header.Set(revisionHeader, hex.EncodeToString(revision))
	}
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
