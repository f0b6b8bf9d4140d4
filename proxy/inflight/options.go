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
	DefaultModelSet bool   // somebody chose it: where it isn't installed that is a mistake
	// ChooseDefault gives the model of a request that names none by what is installed; nil: DefaultModel whatever is.
	ChooseDefault  func(installed []string) string
	DefaultVersion string // for models without a default version of their own

	QueueCapacity   int           // waiting requests; 0: nobody waits, a request goes at once or is refused
	QueueMaxBytes   int64         // prompts of waiting requests
	JournalMaxBytes int64         // reserved for requests in flight
	EngineWait      time.Duration // of new requests while no engine is connected
	ModelLoadWait   time.Duration // of a request for its model's load
	ReplayWait      time.Duration // of a request whose engine is gone
	QuarantineTTL   time.Duration // how long a request or model that killed engines is refused
	ReplaySteps     bool          // replay tokens one by one instead of as a prompt
}

// MarginBound is the lead of a drawn token over the runner-up, in what is maximised (logits, or logits over the temperature plus noise),
// above which a replay draws the same token on an engine with the same numerics id. Measured, see docs/restarts.md.
const MarginBound = 0.1

const (
	tickEvery = 100 * time.Millisecond // precision of every deadline here

	sweepEvery = 5 * time.Second // how often the metrics hear what is installed

	retryFullAfter   = time.Second     // Retry-After of a full queue
	retryEngineAfter = 2 * time.Second // Retry-After while no engine works

	// maxRefused bounds the requests and models that are refused for a while.
	maxRefused = 1024
	// maxBreaches of the protocol at one request; the last one ends it.
	maxBreaches = 3
	// maxTokenText bounds the text of one token, in bytes.
	maxTokenText = 64 << 10
)
