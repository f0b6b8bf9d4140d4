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
	Request      *Request
	RequestID    string
	Created      time.Time // when the request was received
	ModelID      string    // of what was resolved, see ListedID
	Revision     string    // hexadecimal checksum of the model's files; empty: not known yet
	PromptTokens int       // of all prompts together; 0: not known yet
}

// Encoder writes one reply. Every method appends to dst and returns it; one goroutine calls them. A whole reply is one
// call of AppendReply. A stream is AppendStart, any number of AppendDelta, one AppendChoiceEnd for each choice, and
// AppendEnd; or AppendErrorEvent, with which it may end at any place, also before AppendStart. All of them append
// complete server-sent events.
type Encoder interface {
	// AppendReply appends the body of a whole reply.
	AppendReply(dst []byte, r *Reply) []byte
	// AppendStart appends the events before the first delta; it may append none.
	AppendStart(dst []byte) []byte
	// AppendDelta appends the events of a new part of a choice. d and what it points to are the caller's.
	AppendDelta(dst []byte, d *Delta) []byte
	// AppendChoiceEnd appends the events with which a choice ends; it may append none. r is the whole choice.
	AppendChoiceEnd(dst []byte, choice int, r *Result) []byte
	// AppendEnd appends the events after the last choice's end.
	AppendEnd(dst []byte, r *Reply) []byte
	// AppendErrorEvent appends the last event of a stream that failed.
	AppendErrorEvent(dst []byte, e *Error) []byte
}

// DeltaKind says what a delta brings.
type DeltaKind uint8

// Kinds of deltas. Without Request.SplitOutput there is only DeltaContent.
const (
	DeltaContent       DeltaKind = iota // text of the answer
	DeltaReasoning                      // what the model thinks before it answers
	DeltaToolCall                       // a tool call begins
	DeltaToolArguments                  // a part of the arguments of the tool call that began last
)

// Delta is a new part of a choice.
type Delta struct {
	Choice   int
	Kind     DeltaKind
	Text     []byte         // whole characters; empty for DeltaToolCall, and where only Logprobs are new
	ToolCall *ToolCall      // of DeltaToolCall, without arguments
	CallAt   int            // of DeltaToolCall and DeltaToolArguments: which call of the choice, from 0
	Logprobs []TokenLogprob // of the tokens behind Text; only where the request asks for them
	Tokens   int            // how many came with this delta and those after it of the same write
	Took     time.Duration  // that the engine took for them
}

// TokenLogprob is one token with its log-probability.
type TokenLogprob struct {
	Token   int32
	Bytes   []byte  // the token's own, maybe a part of a character
	Logprob float32 // natural logarithm; NaN: none (the first token of a prompt)
	Top     []TopLogprob
}

// TopLogprob is one of the most likely tokens at a place.
type TopLogprob struct {
	Token   int32
	Bytes   []byte
	Logprob float32
}
