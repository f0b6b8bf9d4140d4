package inflight

import (
	"log/slog"
	"time"

	"tandem/proxy/metrics"
)

// Options of a Table. Only Log has a default: a bound of zero is a bound.
type Options struct {
	Metrics *metrics.Metrics // required
	Log     *slog.Logger     // nil: slog.Default()

	DefaultModel    string // for requests that name none
	DefaultModelSet bool   // it was set explicitly: if it isn't installed, that is a mistake
	// ChooseDefault returns the model of a request that names none, from those installed. Nil: DefaultModel, installed
	// or not.
	ChooseDefault  func(installed []string) string
	DefaultVersion string // for models without a default version of their own

	QueueCapacity   int           // waiting requests; 0: none waits, each is sent at once or refused
	QueueMaxBytes   int64         // prompts of waiting requests
	QueueKeyShare   float64       // of the queue that one key may use while others are active; 0: all
	QueueMaxTokens  int64         // work of waiting requests, as package admission counts it; 0: not limited
	JournalMaxBytes int64         // reserved for requests in flight
	EngineWait      time.Duration // how long new requests wait while no engine is connected
	ModelLoadWait   time.Duration // how long a request waits for its model's load
	ReplayWait      time.Duration // how long a request whose engine is gone waits to be sent again
	QuarantineTTL   time.Duration // how long a request or model that killed engines is refused
	ReplaySteps     bool          // replay tokens one by one instead of as a prompt
}

// MarginBound is the lead of a drawn token over the runner-up, in what is maximised (logits, or logits over the
// temperature plus noise), above which a replay draws the same token on an engine with the same numerics id. It was
// measured, see docs/restarts.md.
const MarginBound = 0.1

const (
	tickInterval = 100 * time.Millisecond // precision of every deadline here

	overdueCheckInterval = time.Second // how often waiting requests are looked at that may not be answered in time

	metricsSweepInterval = 5 * time.Second // how often the metrics get the list of installed models

	retryMemoryAfter = time.Second     // Retry-After while the journal has no room
	retryEngineAfter = 2 * time.Second // Retry-After while no engine works

	// maxQuarantined bounds the quarantined requests, and the models with crashes in their loads.
	maxQuarantined = 1024
	// maxProtocolViolations in frames about one request; the last one ends it.
	maxProtocolViolations = 3
	// maxTokenText bounds the text of an answer, in bytes for each of its tokens.
	maxTokenText = 64 << 10
)
