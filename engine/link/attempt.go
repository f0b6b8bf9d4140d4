package link

import (
	"time"

	"tandem/engine/batch"
)

// Attempt is what is known of one attempt at a request when it is over. Texts of prompt and answer are not.
type Attempt struct {
	RequestID      string // X-Request-Id
	Traceparent    string // of the proxy's span
	Attempt        uint32 // from 0; it rises with every engine that was lost
	Model, Version string
	Arrived, Ended time.Time
	Submitted      time.Time // to the executor; zero: never
	Rendering      time.Duration
	Queue          time.Duration // from Submitted
	Prefill        time.Duration
	Decode         time.Duration
	Restart        time.Duration // instead of Prefill, for an answer that goes on
	MaxNewTokens   int           // as asked; 0: not given
	PromptTokens   int
	CachedTokens   int
	OutputTokens   int // replayed ones included
	ReplayedTokens int
	Reason         string // stop, length, cancelled, deadline, error, movedAway, lost
	ErrorType      string // of an error, as the proxy's table has it
	Temperature    *float32
	TopP           *float32
	TopK           *int
	Seed           uint64
}

// Recorder takes attempts that are over. It is called by the step loop, among others, so it must not wait for anything.
type Recorder interface{ Ended(Attempt) }

// lostReason is of attempts whose connection was gone before their summary.
const lostReason = "lost"

// record tells the recorder of an attempt that is over.
func (s *session) record(r *request) {
	to := s.link.o.Recorder
	if to == nil {
		return
	}
	in, sum := &r.in, &r.summary
	a := Attempt{
		RequestID: in.requestKey, Traceparent: in.traceparent, Attempt: r.attempt, Model: in.model, Version: in.version,
		Arrived: r.arrived, Ended: time.Now(), Submitted: r.handedOver, Rendering: r.prepared,
		Queue: sum.Queue, Prefill: sum.Prefill, Decode: sum.Decode, Restart: sum.Restart,
		MaxNewTokens: in.maxNewTokens, PromptTokens: sum.PromptTokens, CachedTokens: sum.CachedTokens,
		OutputTokens: max(sum.OutputTokens, len(in.generated)), ReplayedTokens: len(in.generated),
		Reason: lostReason, ErrorType: r.failed,
		Temperature: in.sampling.temperature, TopP: in.sampling.topP, TopK: in.sampling.topK, Seed: in.sampling.seed,
	}
	if r.lease != nil {
		a.Model, a.Version = r.lease.Model, r.lease.Version
	}
	if r.reason != "" {
		a.Reason = r.reason
	}
	to.Ended(a)
}

// close keeps the executor's summary for the record.
func (r *request) close(sum *batch.Summary, reason string) {
	r.summary, r.reason = *sum, reason
	if sum.Reason == batch.FinishError {
		r.failed = string(sum.Failure.Code)
	}
}
