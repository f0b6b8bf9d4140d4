// Package inflight leads every inference request from admission to its end: queued, sent, streaming, waiting, suspect, done. The Table owns
// all of them; each is one state machine whose decisions are plain code. It doesn't know HTTP (server) nor the socket (link).
package inflight

import (
	"time"

	"tandem/proxy/api"
)

// Request is an inference request that passed key, limit and decoding.
type Request struct {
	ID          string   // X-Request-Id
	Key         string   // name of the API key; empty without one
	Models      []string // that the key may use; nil: all
	Domain      string   // resolved business domain of the key or request; empty: the model's
	Traceparent string
	Received    time.Time
	Timeout     time.Duration // the smaller of REQUEST_TIMEOUT and X-Request-Timeout
	Infer       *api.Request
}

// Answer is one request at the request table as server sees it. Ready and Take belong to one goroutine; Cancel may come from any.
type Answer interface {
	// Model and Version are the resolved names, for labels and metadata.
	Model() string
	Version() string
	// Ready has a value when Take has something new; for a request that isn't streamed, when the answer is complete, so that one isn't
	// woken for every token. It never closes.
	Ready() <-chan struct{}
	// Take moves what has come into dst (appended) and tells how many tokens that were and whether the answer is complete.
	Take(dst []byte) Piece
	// Wrote records that tokens reached a streaming client at now (time to first token, inter-token latency).
	Wrote(tokens int, now time.Time)
	// Cancel gives the request up because the client left (api.Cancelled), the proxy stops or serving it failed. Idempotent; Ready fires.
	Cancel(because *api.Error)
	// Settle must be called exactly once, after the answer was delivered or not: it records the outcome in every metric.
	Settle(outcome Outcome)
}

// Piece is what Take gives.
type Piece struct {
	Text   []byte // dst with the new text appended
	Tokens int    // tokens behind the new text
	Done   bool   // Result or Err is final
	Result *Result
	Err    *api.Error
	// Accepted: an engine took the request, so the labels of its model apply. An error before that is a refusal.
	Accepted bool
	// Attempt counts how often the request was taken back from an engine that was lost or gave it up, LostAt says when that was last.
	Attempt uint32
	LostAt  time.Time
}

// Result of a complete answer.
type Result struct {
	FinishReason   string // stop, length
	PromptTokens   int
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
