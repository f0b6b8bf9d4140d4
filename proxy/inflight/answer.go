// Package inflight takes every inference request from admission to its end: queued, sent, streaming, waiting, suspect,
// done. The Table owns all of them; each is a state machine whose decisions are plain code. When an engine is lost, its
// requests are sent to the next one and continue there. The package knows neither HTTP (see server) nor the socket (see
// link), and it computes nothing.
package inflight

import (
	"time"

	"tandem/proxy/api"
)

// Request is an inference request whose key, rate limit and body were checked.
type Request struct {
	ID          string   // X-Request-Id
	Key         string   // name of the API key; empty without one
	Weight      float64  // of the key among the others; 0: 1
	Models      []string // models that the key may use; nil: all
	Domain      string   // business domain of the key or request; empty: the model's
	Traceparent string
	Received    time.Time
	Timeout     time.Duration // the smaller of REQUEST_TIMEOUT and X-Request-Timeout
	Infer       *api.Request
}

// Answer is one request in the table as package server sees it, with all its choices. One goroutine calls Ready and
// Take; Cancel may be called by any.
type Answer interface {
	// Model and Version are the resolved names, for labels and metadata.
	Model() string
	Version() string
	// ModelID names both in one string, as the list of models does (api.ListedID).
	ModelID() string
	// Revision is the checksum of the model's files, and PromptTokens the number of the prompt's tokens, of all inputs
	// together as far as engines have taken them. Both are empty until an engine has accepted the request.
	Revision() []byte
	PromptTokens() int
	// OutputTokens is the number of tokens that were generated so far, of all choices together, taken or not.
	OutputTokens() int
	// Ready has a value when Take has something new. For a request that isn't streamed that is when the answer is
	// complete, so that its goroutine isn't woken for every token. It is never closed.
	Ready() <-chan struct{}
	// Take appends to dst what has come of one choice since it was last taken. It is called again while Piece.More.
	Take(dst []byte) Piece
	// Wrote records that tokens of a choice reached a streaming client at that time (time to first token, inter-token
	// latency).
	Wrote(choice, tokens int, now time.Time)
	// Cancel ends the request because the client left (api.Cancelled), the proxy stops or serving it failed. It is
	// idempotent; Ready gets a value.
	Cancel(because *api.Error)
	// Settle must be called exactly once, whether the answer was delivered or not: it records the outcome in every
	// metric.
	Settle(outcome Outcome)
}

// Piece is the new part of one choice.
type Piece struct {
	Choice   int                // from 0; the choices of the first input come first
	Text     []byte             // dst with the new text appended; a part stream if the request splits its output
	Tokens   int                // tokens behind the new text
	Logprobs []api.TokenLogprob // of these tokens, where the request asks for them
	Took     time.Duration      // that the engine took for them: of the first one since its prefill began
	Done     bool               // the choice is complete or failed: Result or Err is final
	More     bool               // another choice has something new
	Last     bool               // every choice is done and was taken
	Result   *Result
	Err      *api.Error
	// Accepted is true once an engine took the request, so that the labels of its model apply. An error before that is
	// a refusal.
	Accepted bool
	// Requeues are new since the piece before. Of choices that were at the same engine there is one.
	Requeues []Requeue
}

// Requeue is one time that a request was taken back from an engine that was lost or gave it back. Attempt is the number
// with which it is sent next; the retries of a load for which there was no memory count in it, too.
type Requeue struct {
	At      time.Time
	Attempt uint32
}

// Result of a complete choice.
type Result struct {
	FinishReason    string // stop, length
	Stop            string // the stop string that ended it
	PromptTokens    int
	CachedTokens    int // of PromptTokens, taken from the KV cache
	OutputTokens    int
	ReasoningTokens int                // of OutputTokens
	PromptLogprobs  []api.TokenLogprob // where the request asks for them
	Embedding       []float32          // of tasks that don't generate
	Queue           time.Duration      // in the proxy and the engine
	Prefill         time.Duration
	Decode          time.Duration
	Seed            uint64
	GenerationTime  time.Duration // sum of the per-token times of the engine
}

// Outcome is how delivery ended.
type Outcome uint8

// Outcomes: the whole answer was written; the client left before; an error was the answer.
const (
	Delivered Outcome = iota + 1
	ClientGone
	Failed
)
