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
	r := &sseReader{eventSource: eventSource{x: x}, conn: x.ctx.Conn(), timer: time.NewTimer(x.s.opts.StreamHeaderWait)}
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
	if x.request.ResumeFor > 0 {
		r.timer.Stop()
		x.s.resumable.begin(r.eventSource)
		return
	}
	r.start()
}

// eventBody is the body of a stream as fasthttp takes it. It is written by WriteTo on the connection's goroutine:
// fasthttp sends what one Write gets as one chunk at once. So an event is in one chunk whatever its size, where
// endpoint pickers look for the usage, and what was written has reached the kernel.
type eventBody struct{}

// Read is never called, but fasthttp asks for it.
func (eventBody) Read([]byte) (int, error) { return 0, errStreamBroken }

// SupportsBodyWriteTo has fasthttp call WriteTo.
func (eventBody) SupportsBodyWriteTo() bool { return true }

// writeEvents writes what next returns until the end, or an error.
func (x *exchange) writeEvents(w io.Writer, next func() ([]byte, error)) (total int64, err error) {
	for {
		events, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, err
		}
		n, err := w.Write(events)
		total += int64(n)
		x.sentBytes += n
		if err != nil {
			return total, err
		}
	}
}

// sseReader is the body of a stream.
type sseReader struct {
	eventBody
	eventSource
	conn   net.Conn
	timer  *time.Timer // of the next keep-alive
	unread []byte      // events that aren't written yet

	lastWrite   time.Time
	deadlineSet time.Time // when the write deadline was set last
	written     bool      // the last event was written
	closed      bool
}

// start passes the body to fasthttp.
func (r *sseReader) start() {
	x := r.x
	now := time.Now()
	r.lastWrite = now
	r.timer.Reset(x.s.opts.StreamHeartbeat)
	r.unread = r.events
	x.setStreamHeaders()
	x.setRevision()
	x.ctx.Response.ImmediateHeaderFlush = len(r.unread) == 0
	x.streaming, r.started = true, true
	// Set through ctx, so that fasthttp doesn't apply its own deadline, which is for a whole reply.
	r.deadlineSet = now
	_ = x.ctx.SetWriteDeadline(now.Add(x.s.opts.WriteTimeout))
	x.ctx.SetBodyStream(r, -1)
}

// setStreamHeaders says that the body is a stream of events.
func (x *exchange) setStreamHeaders() {
	h := &x.ctx.Response.Header
	h.SetContentType(eventStream)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
}

// WriteTo implements io.WriterTo.
func (r *sseReader) WriteTo(w io.Writer) (n int64, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			r.x.failAfterPanic(fault)
			err = errStreamBroken
		}
	}()
	return r.x.writeEvents(w, func() ([]byte, error) {
		if len(r.unread) == 0 {
			if err := r.next(); err != nil {
				return nil, err
			}
		}
		events := r.unread
		r.unread = nil
		return events, nil
	})
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
				r.unread = r.events
				r.extendWriteDeadline()
				return nil
			}
		case clientDisconnected:
			return errClientGone
		case serverStopping:
			r.breakOff()
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
	x.s.endStreamWhileDraining(r.conn)
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
