package server

import (
	"errors"
	"io"
	"net"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// eventStream names the character set although it is always this one: without it Python's requests assumes ISO 8859-1.
const eventStream = "text/event-stream; charset=utf-8"

// errStreamBroken ends a stream that can't continue. fasthttp then closes the connection without the last chunk, so the
// client notices.
var errStreamBroken = errors.New("stream broken off")

// replyStream answers with server-sent events. The status line waits for the first token, or StreamHeaderWait; until
// then an error has a status of its own.
func (x *exchange) replyStream() {
	r := &sseReader{x: x, conn: x.ctx.Conn(), timer: time.NewTimer(x.s.opts.StreamHeaderWait)}
	for started := false; !started; {
		switch x.waitForEvent(r.timer.C) {
		case answerReady:
			if started = r.takePieces(); r.refusal != nil {
				r.timer.Stop()
				x.replyFinished(r.refusal)
				return
			}
		case clientDisconnected:
			r.timer.Stop()
			x.cancelForDisconnect()
			return
		case serverStopping:
			r.timer.Stop()
			x.cancelForShutdown()
			return
		case timerFired:
			started = true
		}
	}
	r.start()
}

// sseReader is the body of a stream. fasthttp reads from it on the connection's goroutine and writes each Read as one
// chunk at once, so what is read has reached the kernel by the next Read.
type sseReader struct {
	x     *exchange
	conn  net.Conn
	timer *time.Timer // of the next keep-alive

	text   []byte // the piece taken last
	events []byte // buffer behind unread
	unread []byte // part of events that fasthttp hasn't read yet
	tokens bool   // there are some in unread
	// refusal is the failure of an answer of which nothing was written: it is answered with a status of its own
	refusal *inflight.Piece
	started bool // the status line was passed on

	lastWrite   time.Time
	deadlineSet time.Time // when the write deadline was set last
	begun       bool      // the events before the first text were appended
	complete    bool      // unread holds the last event
	written     bool      // the last event was written
	outcome     inflight.Outcome
	closed      bool
}

// start passes the body to fasthttp.
func (r *sseReader) start() {
	x := r.x
	now := time.Now()
	r.lastWrite = now
	r.timer.Reset(x.s.opts.StreamHeartbeat)
	h := &x.ctx.Response.Header
	h.SetContentType(eventStream)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	x.setRevision()
	x.ctx.Response.ImmediateHeaderFlush = len(r.unread) == 0
	x.streaming, r.started = true, true
	// Set through ctx, so that fasthttp doesn't apply its own deadline, which is for a whole reply.
	r.deadlineSet = now
	_ = x.ctx.SetWriteDeadline(now.Add(x.s.opts.WriteTimeout))
	x.ctx.SetBodyStream(r, -1)
}

// Read implements io.Reader.
func (r *sseReader) Read(p []byte) (n int, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			r.x.failAfterPanic(fault)
			n, err = 0, errStreamBroken
		}
	}()
	if len(r.unread) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n = copy(p, r.unread)
	r.unread = r.unread[n:]
	r.x.sentBytes += n
	return n, nil
}

// next reports the tokens that were written and waits for the next event, or the next keep-alive.
func (r *sseReader) next() error {
	x := r.x
	now := time.Now()
	r.lastWrite = now
	if r.tokens {
		r.tokens = false
		r.reportWritten(now)
	}
	for !r.complete {
		switch x.waitForEvent(r.timer.C) {
		case answerReady:
			if r.takePieces() {
				r.extendWriteDeadline()
				return nil
			}
		case clientDisconnected:
			return errClientGone
		case serverStopping:
			r.events = r.events[:0]
			r.appendError(api.Draining())
			x.answer.Cancel(x.err)
			r.unread = r.events
			r.extendWriteDeadline()
			return nil
		case timerFired:
			if r.keepAliveDue() {
				r.extendWriteDeadline()
				return nil
			}
		}
	}
	r.written = true
	return io.EOF
}

// reportWritten tells the table which tokens have reached the client.
func (r *sseReader) reportWritten(now time.Time) {
	for i := range r.x.choices {
		if c := &r.x.choices[i]; c.unwritten > 0 {
			r.x.answer.Wrote(i, c.unwritten, now)
			c.unwritten = 0
		}
	}
}

// takePieces turns what has come into events. It reports whether there is something to write.
func (r *sseReader) takePieces() bool {
	r.events = r.events[:0]
	for more := true; more && !r.complete; {
		piece := r.x.takePiece(r.text[:0])
		r.text, more = piece.Text, piece.More
		if piece.Err != nil && !r.started && len(r.events) == 0 {
			r.refusal = &piece
			return false
		}
		r.appendPiece(&piece)
	}
	r.unread = r.events
	return len(r.unread) > 0
}

// appendPiece turns a piece into events.
func (r *sseReader) appendPiece(p *inflight.Piece) {
	if p.Err != nil {
		r.appendError(p.Err)
		r.x.answer.Cancel(p.Err)
		return
	}
	deltas, err := r.x.addPiece(p)
	if err != nil {
		r.appendError(api.Internal(err))
		r.x.answer.Cancel(r.x.err)
		return
	}
	r.tokens = r.tokens || p.Tokens > 0
	for i := range deltas {
		r.appendStart()
		r.events = r.x.encoder.AppendDelta(r.events, &deltas[i])
	}
	if p.Done {
		r.appendStart()
		r.events = r.x.encoder.AppendChoiceEnd(r.events, p.Choice, r.x.finalResult(p.Choice))
	}
	if p.Last {
		reply := r.x.finalReply()
		r.events = r.x.encoder.AppendEnd(r.events, &reply)
		r.complete, r.outcome = true, inflight.Delivered
	}
}

// appendStart appends the events that come before the first text, once.
func (r *sseReader) appendStart() {
	if !r.begun {
		r.begun = true
		r.events = r.x.replyEncoder().AppendStart(r.events)
	}
}

// appendError ends the events with an error.
func (r *sseReader) appendError(err *api.Error) {
	r.x.recordError(err)
	r.events = r.x.replyEncoder().AppendErrorEvent(r.events, err)
	r.complete, r.outcome = true, inflight.Failed
}

// keepAliveDue appends a keep-alive if nothing was written for StreamHeartbeat. The timer isn't reset with every event,
// so it may fire early.
func (r *sseReader) keepAliveDue() bool {
	pause := r.x.s.opts.StreamHeartbeat
	quiet := time.Since(r.lastWrite)
	if quiet < pause {
		r.timer.Reset(pause - quiet)
		return false
	}
	r.timer.Reset(pause)
	r.unread = append(r.events[:0], api.KeepAlive...)
	return true
}

// extendWriteDeadline sets the deadline of the next write. A deadline of which less than a quarter has passed is kept.
func (r *sseReader) extendWriteDeadline() {
	now := time.Now()
	if limit := r.x.s.opts.WriteTimeout; now.Sub(r.deadlineSet) > limit/4 {
		r.deadlineSet = now
		_ = r.conn.SetWriteDeadline(now.Add(limit))
	}
}

// CloseWithError is called by fasthttp when the body is written, or can't be.
func (r *sseReader) CloseWithError(error) error {
	if r.closed {
		return nil
	}
	r.closed = true
	x := r.x
	defer x.recoverPanic()
	r.timer.Stop()
	if x.answer != nil { // nil after a panic, when failAfterPanic has settled it
		if !r.written {
			r.outcome = inflight.ClientGone
			x.recordError(api.Cancelled())
			x.answer.Cancel(x.err)
		}
		x.settle(r.outcome)
	}
	x.finish()
	return nil
}
