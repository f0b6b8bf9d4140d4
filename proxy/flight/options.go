package flight

import (
	"log/slog"
	"time"

	"tandem/proxy/metrics"
)

// Options of a Desk; a zero field means the default.
type Options struct {
	Metrics *metrics.Metrics // required
	Log     *slog.Logger     // slog.Default()

	DefaultModel    string // for requests that name none
	DefaultModelSet bool   // somebody chose it; otherwise the demo model takes its place where it isn't installed
	DefaultVersion  string // for models without a default version of their own

	QueueCapacity   int           // waiting requests; 256
	QueueMaxBytes   int64         // prompts of waiting requests; 64 MiB
	JournalMaxBytes int64         // reserved for requests in flight; 256 MiB
	EngineWait      time.Duration // of new requests while no engine is connected; 10 s
	ModelLoadWait   time.Duration // of a request for its model's load; 10 min
	ReplayWait      time.Duration // of a request whose engine is gone; 10 min
	QuarantineTTL   time.Duration // how long a request or model that killed engines is refused; 10 min
	ReplaySteps     bool          // replay tokens one by one instead of as a prompt
}

const (
	defaultQueueCapacity   = 256
	defaultQueueMaxBytes   = 64 << 20
	defaultJournalMaxBytes = 256 << 20
	defaultEngineWait      = 10 * time.Second
	defaultModelLoadWait   = 10 * time.Minute
	defaultReplayWait      = 10 * time.Minute
	defaultQuarantineTTL   = 10 * time.Minute

	tickEvery = 100 * time.Millisecond // precision of every deadline here

	retryFullAfter   = time.Second     // Retry-After of a full queue
	retryEngineAfter = 2 * time.Second // Retry-After while no engine works

	// demoModel takes the place of a default that nobody chose and that isn't installed.
	demoModel = "demo"
	// maxRefused bounds the requests and models that are refused for a while.
	maxRefused = 1024
	// maxTokenText bounds the text of one token, in bytes.
	maxTokenText = 64 << 10
)

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	orInt(&o.QueueCapacity, defaultQueueCapacity)
	orInt(&o.QueueMaxBytes, defaultQueueMaxBytes)
	orInt(&o.JournalMaxBytes, defaultJournalMaxBytes)
	orInt(&o.EngineWait, defaultEngineWait)
	orInt(&o.ModelLoadWait, defaultModelLoadWait)
	orInt(&o.ReplayWait, defaultReplayWait)
	orInt(&o.QuarantineTTL, defaultQuarantineTTL)
	return o
}

// orInt puts the default in the place of zero.
func orInt[T int | int64 | time.Duration](value *T, otherwise T) {
	if *value == 0 {
		*value = otherwise
	}
}
