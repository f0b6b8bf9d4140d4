package link

import (
	"time"

	"tandem/engine/batch"
)

// Attempt describes one attempt at a request that has ended, without the texts of prompt and answer.
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
	Restart        time.Duration // instead of Prefill, for a replayed answer
	MaxNewTokens   int           // as asked; 0: not given
	PromptTokens   int
	CachedTokens   int
	OutputTokens   int // replayed ones included
	ReplayedTokens int
	Reason         string // stop, length, cancelled, deadline, error, movedAway, lost
	ErrorType      string // of an error: the proxy's error type
	Temperature    *float32
	TopP           *float32
	TopK           *int
	Seed           uint64
}

// Recorder takes attempts that have ended. It is called by the step loop, among others, so it must not block.
type Recorder interface{ Ended(Attempt) }

// lostReason is the reason of attempts whose connection was lost before their summary.
const lostReason = "lost"

// recordAttempt passes an attempt that has ended to the recorder.
func (s *session) recordAttempt(r *inFlightRequest) {
	to := s.link.o.Recorder
	if to == nil {
		return
	}
	in, sum := &r.in, &r.summary
	a := Attempt{
		RequestID: in.requestKey, Traceparent: in.traceparent, Attempt: r.attempt, Model: in.model, Version: in.version,
		Arrived: r.arrived, Ended: time.Now(), Submitted: r.submittedAt, Rendering: r.renderTime,
		Queue: sum.Queue, Prefill: sum.Prefill, Decode: sum.Decode, Restart: sum.Restart,
		MaxNewTokens: in.maxNewTokens, PromptTokens: sum.PromptTokens, CachedTokens: sum.CachedTokens,
		OutputTokens: max(sum.OutputTokens, len(in.generated)), ReplayedTokens: len(in.generated),
		Reason: lostReason, ErrorType: r.errorType,
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

// keepSummary keeps the executor's summary for recordAttempt.
func (r *inFlightRequest) keepSummary(sum *batch.Summary, reason string) {
	r.summary, r.reason = *sum, reason
	if sum.Reason == batch.FinishError {
		r.errorType = string(sum.Failure.Code)
	}
}
