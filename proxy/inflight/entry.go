package inflight

import (
	"hash/fnv"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/journal"
	"tandem/proxy/metrics"
	"tandem/proxy/queue"
)

// entry is one choice of a request, for engines a request of its own, from admission until it is settled. It implements
// Answer for requests with one choice. The fields below the first blank line are guarded by the table's mutex.
type entry struct {
	table       *Table
	id          uint64
	order       uint64 // of admission
	req         Request
	group       *answerGroup // nil: the request has one choice
	choice      int          // place among all choices of the request
	seed        uint64
	owner       uint64
	deadline    time.Time // zero: none
	promptBytes int64     // of all its texts, for the queue
	ready       chan struct{}

	model, version string // empty until an engine has listed its models
	modelID        string // of both
	domain         string
	modelMetrics   *metrics.ModelMetrics // of model and version
	work           *baseWork             // of model
	charge         queue.Charge          // to its key, of the work for the model, while it is at an engine
	askedTokens    int                   // that the answer may have at most, before the prompt was counted
	state          state
	attempt        uint32
	engine         *engine // while state.atEngine
	rec            *journal.Record
	sampling       *Sampling // as the engine filled it in

	pendingText     []byte // of the answer, not taken yet
	pendingTokens   int    // tokens whose text is in pendingText
	pendingTook     time.Duration
	pendingLogprobs []api.TokenLogprob
	pendingRequeues []Requeue // of a request with one choice
	promptLogprobs  []api.TokenLogprob
	result          *Result
	err             *api.Error
	doneTaken       bool // Take has returned result or err

	everAccepted       bool // by some engine
	cacheLookupCounted bool
	settled            bool
	hasTokenHere       bool // got a token from the engine it is at, or ended there
	sentAlone          bool // as a suspect: nothing else is at the engine until its first token
	replayPending      bool // sent again, and how that went isn't counted yet
	strikes            int  // crashes that it may have caused
	protocolViolations int  // in frames about it

	memoryError      *api.Error // of the last load that was refused for memory
	memoryErrorSince time.Time  // the first such refusal

	admittedAt time.Time
	predicted  time.Duration // from then until its end, of a request that had to wait; 0: not known

	waitingSince time.Time // in the queue or for an engine
	sentAt       time.Time
	acceptedAt   time.Time // by the engine that it is at
	firstSentAt  time.Time
	lostAt       time.Time // when its attempt rose because its engine was lost or gave it back; zero: never
	pausedAt     time.Time // its engine was lost and nothing came since
	pausedFor    time.Duration
	timing       timing
	summary      Summary // of the engine that finished it
}

// timing of an answer, for the metrics.
type timing struct {
	prefill, decode time.Duration // by the engine's clock
	queue           time.Duration // at the engine of the first token, as seen from here
	firstAttempt    uint32        // in which the first token came
	firstToken      time.Duration // from Received until the first token was written or arrived; 0: none
	lastTokenAt     time.Time     // when the last token was written or arrived
}

// class is the queue class in which the entry waits.
func (en *entry) class() queue.Class {
	switch en.state {
	case suspect:
		return queue.Suspect
	case waiting:
		return queue.Replay
	}
	return queue.Fresh
}

// item is the entry as the queue knows it. It carries no deadline: tick checks those, for entries in every state.
func (en *entry) item() queue.Item {
	return queue.Item{ID: en.id, Order: en.order, Class: en.class(), Base: en.model, Key: en.owner, Weight: en.req.Weight, Version: en.version, Bytes: en.promptBytes, Work: int64(en.estimatedWork())}
}

// apply changes the state; a transition that doesn't exist is a bug of the caller.
func (en *entry) apply(tr transition) {
	next, ok := en.state.next(tr)
	if !ok {
		panic("inflight: request can't move from " + en.state.String())
	}
	en.state = next
}

// notify wakes the goroutine that calls Take.
func (en *entry) notify() {
	select {
	case en.ready <- struct{}{}:
	default:
	}
}

// submission is the request as it goes to an engine now. While no token was received, that is as the client wrote it;
// afterwards it is the form that the engine rendered, so that nothing is rendered twice.
func (en *entry) submission(now time.Time, replaySteps bool) *Submission {
	r := en.req.Infer
	s := newSubmission(r)
	s.ID, s.Attempt, s.Model, s.Version = en.id, en.attempt, en.model, en.version
	s.Traceparent, s.RequestID, s.Owner, s.OwnerWeight = en.req.Traceparent, en.req.ID, en.owner, en.req.Weight
	s.Sampling = sampling(r, en.seed, en.drawChoice())
	if r.MaxNewTokens != nil {
		s.MaxNewTokens = *r.MaxNewTokens
	}
	if !en.deadline.IsZero() {
		s.Timeout = max(en.deadline.Sub(now), time.Millisecond)
	}
	if len(en.rec.Generated) == 0 {
		return s
	}
	rec := en.rec
	form := rec.Rendered
	s.Rendered = &form
	s.Generated = rec.Generated[:len(rec.Generated):len(rec.Generated)]
	s.ExpectRevision = rec.Revision
	s.ReplaySteps = replaySteps
	s.MaxNewTokens = rec.MaxNewTokens
	if en.sampling != nil {
		given := s.Sampling
		s.Sampling = *en.sampling
		s.Sampling.Seed, s.Sampling.Choice = given.Seed, given.Choice
		s.Sampling.Logprobs, s.Sampling.TopLogprobs, s.Sampling.LogitBias = given.Logprobs, given.TopLogprobs, given.LogitBias
	}
	return s
}

// newSubmission is what a request says, without who and how.
func newSubmission(r *api.Request) *Submission {
	return &Submission{
		Prompt: r.Prompt, PromptTokens: r.PromptTokens, System: r.System, HasSystem: r.HasSystem, Messages: r.Messages, Raw: r.Raw, Task: r.Task,
		Tools: r.Tools, ToolChoice: r.ToolChoice, ParallelCalls: r.ParallelToolCalls, TemplateValues: r.TemplateOptions, SplitOutput: r.SplitOutput,
		JSONSchema: r.JSONSchema, Grammar: r.Grammar, Stops: r.Stop, FitContext: r.FitContext, PlainSampling: r.PlainSampling,
		PromptLogprobs: r.PromptLogprobs, IgnoreEnd: r.IgnoreEnd,
	}
}

// drawChoice is the number that makes choices of one input draw differently.
func (en *entry) drawChoice() uint32 {
	return uint32(en.choice % max(1, en.req.Infer.Choices))
}

func sampling(r *api.Request, seed uint64, choice uint32) Sampling {
	s := Sampling{
		Temperature: r.Temperature, TopP: r.TopP, MinP: r.MinP, RepeatPenalty: r.RepeatPenalty,
		PresencePenalty: r.PresencePenalty, FrequencyPenalty: r.FrequencyPenalty, Seed: seed, Choice: choice,
		Logprobs: r.Logprobs, TopLogprobs: r.TopLogprobs, LogitBias: r.LogitBias,
	}
	if r.TopK != nil {
		k := int32(*r.TopK)
		s.TopK = &k
	}
	return s
}

// ownerOf returns the fair-share key of an API key's name.
func ownerOf(key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	return h.Sum64()
}

// Model implements Answer.
func (en *entry) Model() string {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	return en.model
}

// Version implements Answer.
func (en *entry) Version() string {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	return en.version
}

// ModelID implements Answer.
func (en *entry) ModelID() string {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	return en.modelID
}

// Revision implements Answer.
func (en *entry) Revision() []byte {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	return en.rec.Revision
}

// PromptTokens implements Answer.
func (en *entry) PromptTokens() int {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	return en.promptTokens()
}

// OutputTokens implements Answer.
func (en *entry) OutputTokens() int {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	return len(en.rec.Generated)
}

// Ready implements Answer.
func (en *entry) Ready() <-chan struct{} { return en.ready }

// maxKeptTextBytes is how large a buffer an entry keeps between two calls of Take.
const maxKeptTextBytes = 4 << 10

// Take implements Answer.
func (en *entry) Take(dst []byte) Piece {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	p := en.take(dst)
	p.Last = p.Done
	return p
}

func (en *entry) take(dst []byte) Piece {
	p := Piece{
		Choice: en.choice, Text: append(dst, en.pendingText...), Tokens: en.pendingTokens, Logprobs: en.pendingLogprobs, Took: en.pendingTook,
		Accepted: en.everAccepted, Requeues: en.pendingRequeues,
	}
	en.pendingRequeues = nil
	en.pendingText, en.pendingTokens, en.pendingLogprobs, en.pendingTook = en.pendingText[:0], 0, nil, 0
	if cap(en.pendingText) > maxKeptTextBytes {
		en.pendingText = nil
	}
	if en.state == done {
		p.Done, p.Result, p.Err = true, en.result, en.err
		en.doneTaken = true
	}
	return p
}

// hasNews reports whether Take would return something new.
func (en *entry) hasNews() bool {
	return en.pendingTokens > 0 || len(en.pendingText) > 0 || en.state == done && !en.doneTaken
}

// Wrote implements Answer.
func (en *entry) Wrote(_, tokens int, now time.Time) {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	en.wrote(tokens, now)
}

func (en *entry) wrote(tokens int, now time.Time) {
	if en.req.Infer.Stream && en.modelMetrics != nil && !en.settled {
		en.recordTokenLatency(tokens, now)
	}
}

// recordTokenLatency records that tokens reached the client or, for an answer in one piece, the proxy. Tokens of one
// write share the time since the write before.
func (en *entry) recordTokenLatency(tokens int, now time.Time) {
	if tokens <= 0 {
		return
	}
	if en.timing.lastTokenAt.IsZero() {
		en.timing.firstToken = max(now.Sub(en.req.Received), 1)
		if !en.isFurtherChoice() { // of a list, they may begin long after anybody waited
			en.modelMetrics.FirstToken(en.timing.firstToken, metrics.SampledTraceID(en.req.Traceparent))
		}
		tokens--
		en.timing.lastTokenAt = now
	}
	gap := now.Sub(en.timing.lastTokenAt)
	for range tokens {
		en.modelMetrics.InterToken(gap / time.Duration(tokens))
	}
	en.timing.lastTokenAt = now
}

// Cancel implements Answer.
func (en *entry) Cancel(because *api.Error) {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	en.table.cancel(en, because, time.Now())
}

// Settle implements Answer.
func (en *entry) Settle(outcome Outcome) {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	en.table.settle(en, outcome, time.Now())
}
