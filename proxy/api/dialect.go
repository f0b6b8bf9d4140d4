package api

import "time"

// Dialect is how one family of clients writes requests and reads replies: /infer, OpenAI, Anthropic. Each is a package
// below this one. What carries requests (server, inflight, link) is the same for all and knows none of them.
type Dialect interface {
	// Decode checks a body and makes the request. It keeps nothing of the body. The error is one of a client (4xx) and
	// names the field in the dialect's own words.
	Decode(body []byte, limits Limits) (*Request, *Error)
	// AppendError appends the body of an error reply.
	AppendError(dst []byte, e *Error, requestID string) []byte
	// NewEncoder makes the encoder of one reply. It is called when the first output is about to be written; from then
	// on model and version are known.
	NewEncoder(start ReplyStart) Encoder
}

// ReplyStart is what is known of a reply when it begins.
type ReplyStart struct {
	Request   *Request
	RequestID string
	Created   time.Time // when the request was received
	Model     string    // as resolved
	Version   string    // as resolved
}

// Encoder writes one reply. Every method appends to dst and returns it; one goroutine calls them. A whole reply is one
// call of AppendReply. A stream is AppendStart, any number of AppendText, and AppendEnd or AppendErrorEvent, all of
// them complete server-sent events.
type Encoder interface {
	// AppendReply appends the body of a whole reply.
	AppendReply(dst []byte, r *Result) []byte
	// AppendStart appends the events before the first text; it may append none.
	AppendStart(dst []byte) []byte
	// AppendText appends the events of a piece of the answer's text. It allocates nothing but room in dst.
	AppendText(dst, text []byte) []byte
	// AppendEnd appends the events after the last text. r.Text is the whole answer.
	AppendEnd(dst []byte, r *Result) []byte
	// AppendErrorEvent appends the last event of a stream that failed.
	AppendErrorEvent(dst []byte, e *Error) []byte
}
