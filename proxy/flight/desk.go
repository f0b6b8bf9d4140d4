// Package flight leads every inference request from admission to its end: queued, sent, streaming, waiting, suspect, done. The Desk owns
// all of them; each is one state machine whose decisions are plain code. It doesn't know HTTP (server) nor the socket (link).
package flight

import (
	"context"
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

// Answer is one request at the desk as server sees it. Ready and Take belong to one goroutine; Cancel may come from any.
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

// Server is the desk as the HTTP side uses it. *Desk implements it, and besides: New(Options) *Desk; Run(ctx), which ticks until ctx ends and
// everything is settled; EngineMetrics(ctx), the engine's own metrics text for the joined scrape; and Board, for link.
type Server interface {
	// Admit takes a request in or refuses it, without waiting. A refusal is not counted here: the caller counts it like its own. Every
	// Answer must be settled. ctx only carries values, its end is not a Cancel. While no engine was ever seen, Model and Version are
	// empty until one lists its models; what isn't installed then ends with an error.
	Admit(ctx context.Context, r Request) (Answer, *api.Error)
	Status() Status
	Drain()
}

// Status is a snapshot for the endpoints. Slices are the caller's.
type Status struct {
	EngineUp       bool
	EverReady      bool          // an engine was ready once
	EngineAwayFor  time.Duration // since no engine takes new requests: it was lost, or is about to leave; 0 while one does
	Draining       bool
	CrashLoop      bool
	Loading        []string // model@version with a load in hand
	DefaultModel   string   // resolved
	DefaultVersion string
	DefaultMissing bool   // set, and not installed
	DefaultProblem string // why it can't be loaded; empty while it can, or that isn't known
	DefaultLoaded  bool
	Device         string // backend, last known while away; unknown before the first hello
	Devices        []Device
	Models         []Model
	Loaded         []Loaded
	CacheSize      int
	Waiting        int
	Running        int
	QueueCapacity  int
	Hello          Hello
}
