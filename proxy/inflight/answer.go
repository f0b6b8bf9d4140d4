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
	Models      []string // models that the key may use; nil: all
	Domain      string   // business domain of the key or request; empty: the model's
	Traceparent string
	Received    time.Time
	Timeout     time.Duration // the smaller of REQUEST_TIMEOUT and X-Request-Timeout
	Infer       *api.Request
}

// Answer is one request in the table as package server sees it. One goroutine calls Ready and Take; Cancel may be
// called by any.
type Answer interface {
	// Model and Version are the resolved names, for labels and metadata.
	Model() string
	Version() string
	// Ready has a value when Take has something new. For a request that isn't streamed that is when the answer is
	// complete, so that its goroutine isn't woken for every token. It is never closed.
	Ready() <-chan struct{}
	// Take appends to dst what has come since the last call, with the number of tokens and whether the answer is
	// complete.
	Take(dst []byte) Piece
	// Wrote records that tokens reached a streaming client at that time (time to first token, inter-token latency).
	Wrote(tokens int, now time.Time)
	// Cancel ends the request because the client left (api.Cancelled), the proxy stops or serving it failed. It is
	// idempotent; Ready gets a value.
	Cancel(because *api.Error)
	// Settle must be called exactly once, whether the answer was delivered or not: it records the outcome in every
	// metric.
	Settle(outcome Outcome)
}

// Piece is the part of an answer that Take returns.
type Piece struct {
	Text   []byte // dst with the new text appended
	Tokens int    // tokens behind the new text
	Done   bool   // Result or Err is final
	Result *Result
	Err    *api.Error
	// Accepted is true once an engine took the request, so that the labels of its model apply. An error before that is
	// a refusal.
	Accepted bool
	// Attempt counts how often the request was taken back from an engine that was lost or gave it back. LostAt is when
	// that last happened.
	Attempt uint32
	LostAt  time.Time
}

// Result of a complete answer.
type Result struct {
	FinishReason   string // stop, length
	PromptTokens   int
	CachedTokens   int // of PromptTokens, taken from the KV cache
	OutputTokens   int
	Seed           uint64
	GenerationTime time.Duration // sum of the per-token times of the engine
}

// Outcome is how delivery ended.
type Outcome uint8

// Outcomes: the whole answer was written; the client left before; an error was the answer.
const (
	Delivered Outcome = iota + 1
	ClientGone
	Failed
)
