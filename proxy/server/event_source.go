package server

import (
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// eventSource turns an answer into the events of a stream. One goroutine uses it: that of the connection, or for a
// stream that can be resumed one of its own.
type eventSource struct {
	x      *exchange
	text   []byte // the piece taken last
	events []byte // made last
	tokens bool   // there are some in events
	// refusal is the failure of an answer of which nothing was written: it is answered with a status of its own
	refusal  *inflight.Piece
	started  bool // the status line was passed on
	begun    bool // the events before the first text were appended
	complete bool // the last event was made
	outcome  inflight.Outcome
}

// reportWritten tells the table which tokens have reached the client.
func (r *eventSource) reportWritten(now time.Time) {
	for i := range r.x.choices {
		if c := &r.x.choices[i]; c.unwritten > 0 {
			r.x.answer.Wrote(i, c.unwritten, now)
			c.unwritten = 0
		}
	}
}

// takePieces turns what has come into events. It reports whether there is something to write.
func (r *eventSource) takePieces() bool {
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
	return len(r.events) > 0
}

// appendPiece turns a piece into events.
func (r *eventSource) appendPiece(p *inflight.Piece) {
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
func (r *eventSource) appendStart() {
	if !r.begun {
		r.begun = true
		r.events = r.x.replyEncoder().AppendStart(r.events)
	}
}

// appendError ends the events with an error.
func (r *eventSource) appendError(err *api.Error) {
	r.x.recordError(err)
	r.events = r.x.replyEncoder().AppendErrorEvent(r.events, err)
	r.complete, r.outcome = true, inflight.Failed
}

// breakOff ends the events because the server stops.
func (r *eventSource) breakOff() {
	r.events = r.events[:0]
	r.appendError(api.Draining())
	r.x.answer.Cancel(r.x.err)
}

// abandon ends the events because nobody reads them any more.
func (r *eventSource) abandon() {
	r.x.recordError(api.Cancelled())
	r.x.answer.Cancel(r.x.err)
	r.complete, r.outcome = true, inflight.ClientGone
}
