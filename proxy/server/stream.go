package server

import (
	"errors"
	"io"
	"net"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// eventStream names the character set although it is always this one: Python's requests reads ISO 8859-1 where nobody says so.
const eventStream = "text/event-stream; charset=utf-8"

// errBroken ends a stream that can't go on. fasthttp then closes the connection without the last chunk, so the client sees the cut.
var errBroken = errors.New("stream broken off")

// stream answers with server-sent events. The status line waits for the first token, or StreamHeaderWait; until then an error has a
// status of its own.
func (x *exchange) stream() {
	r := &eventReader{x: x, conn: x.ctx.Conn(), timer: time.NewTimer(x.s.o.StreamHeaderWait)}
	for started := false; !started; {
		switch x.await(r.timer.C) {
		case answerReady:
			piece := x.take(r.text[:0])
			r.text = piece.Text
			if piece.Done && piece.Err != nil {
				r.timer.Stop()
				x.conclude(&piece, nil)
				return
			}
			started = r.put(&piece)
		case clientLeft:
			r.timer.Stop()
			x.leave()
			return
		case serverStops:
			r.timer.Stop()
			x.breakOff()
			return
		case timePassed:
			started = true
		}
	}
	r.begin()
}

// eventReader is the body of a stream. fasthttp reads from it on the connection's goroutine and writes each Read as one chunk at once,
// so what is read has reached the kernel by the next Read.
type eventReader struct {
	x     *exchange
	conn  net.Conn
	timer *time.Timer // of the next keep-alive

	text   []byte // piece of the answer in hand
	events []byte // buffer of rest
	rest   []byte // not read yet
	all    []byte // the answer so far, for the last event
	tokens int    // behind rest

	wrote   time.Time // when something was last written
	armed   time.Time // when the write deadline was last set
	ended   bool      // rest holds the last event
	written bool      // and it was written
	outcome inflight.Outcome
	closed  bool
}

// begin hands the body to fasthttp.
func (r *eventReader) begin() {
	x := r.x
	now := time.Now()
	r.wrote = now
	r.timer.Reset(x.s.o.StreamHeartbeat)
	h := &x.ctx.Response.Header
	h.SetContentType(eventStream)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	x.ctx.Response.ImmediateHeaderFlush = len(r.rest) == 0
	x.streaming = true
	// Through ctx, so that fasthttp keeps its own deadline, which holds for a whole reply, off this one.
	r.armed = now
	_ = x.ctx.SetWriteDeadline(now.Add(x.s.o.WriteTimeout))
	x.ctx.SetBodyStream(r, -1)
}

// Read implements io.Reader.
func (r *eventReader) Read(p []byte) (n int, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			r.x.broken(fault)
			n, err = 0, errBroken
		}
	}()
	if len(r.rest) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n = copy(p, r.rest)
	r.rest = r.rest[n:]
	r.x.sent += n
	return n, nil
}

// next reports what was written and waits for the next event, or the next keep-alive.
func (r *eventReader) next() error {
	x := r.x
	now := time.Now()
	r.wrote = now
	if r.tokens > 0 {
		x.answer.Wrote(r.tokens, now)
		r.tokens = 0
	}
	for !r.ended {
		switch x.await(r.timer.C) {
		case answerReady:
			piece := x.take(r.text[:0])
			r.text = piece.Text
			if r.put(&piece) {
				r.arm()
				return nil
			}
		case clientLeft:
			return errClientGone
		case serverStops:
			r.events = r.events[:0]
			r.fail(api.Draining())
			x.answer.Cancel(x.err)
			r.rest = r.events
			r.arm()
			return nil
		case timePassed:
			if r.keepAlive() {
				r.arm()
				return nil
			}
		}
	}
	r.written = true
	return io.EOF
}

// put turns a piece into events. It tells whether there is something to write.
func (r *eventReader) put(p *inflight.Piece) bool {
	r.events = r.events[:0]
	r.tokens += p.Tokens
	if len(p.Text) > 0 {
		r.all = append(r.all, p.Text...)
		r.events = api.AppendTextEvent(r.events, p.Text)
	}
	switch {
	case p.Done && p.Err != nil:
		r.fail(p.Err)
	case p.Done:
		r.x.result = p.Result
		last := r.x.final(r.all)
		r.events = api.AppendFinalEvent(r.events, &last)
		r.ended, r.outcome = true, inflight.Delivered
	}
	r.rest = r.events
	return len(r.rest) > 0
}

// fail ends the events with an error.
func (r *eventReader) fail(err *api.Error) {
	r.x.note(err)
	r.events = api.AppendErrorEvent(r.events, err, r.x.id)
	r.ended, r.outcome = true, inflight.Failed
}

// keepAlive is due when nothing was written for a while. The timer isn't set again with every event, so it may be early.
func (r *eventReader) keepAlive() bool {
	pause := r.x.s.o.StreamHeartbeat
	quiet := time.Since(r.wrote)
	if quiet < pause {
		r.timer.Reset(pause - quiet)
		return false
	}
	r.timer.Reset(pause)
	r.rest = append(r.events[:0], api.KeepAlive...)
	return true
}

// arm gives the coming write its time. A deadline that is less than a quarter used is left as it is.
func (r *eventReader) arm() {
	now := time.Now()
	if limit := r.x.s.o.WriteTimeout; now.Sub(r.armed) > limit/4 {
		r.armed = now
		_ = r.conn.SetWriteDeadline(now.Add(limit))
	}
}

// CloseWithError is called by fasthttp when the body is written, or can't be.
func (r *eventReader) CloseWithError(error) error {
	if r.closed {
		return nil
	}
	r.closed = true
	x := r.x
	defer x.recovered()
	r.timer.Stop()
	if x.answer != nil { // nil after a panic, which settled it
		if !r.written {
			r.outcome = inflight.ClientGone
			x.note(api.Cancelled())
			x.answer.Cancel(x.err)
		}
		x.settle(r.outcome)
	}
	x.finish()
	return nil
}
