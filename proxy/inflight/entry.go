package inflight

import (
	"hash/fnv"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/journal"
	"tandem/proxy/metrics"
	"tandem/proxy/queue"
)

// entry is one request from admission until it is settled. It implements Answer. Everything below the blank line is guarded by the
// table's mutex.
type entry struct {
	table    *Table
	id       uint64
	order    uint64 // of admission
	req      Request
	seed     uint64
	owner    uint64
	deadline time.Time // zero: none
	bytes    int64     // of its prompt, for the queue
	ready    chan struct{}

	model, version string // empty until an engine has listed its models
	domain         string
	mm             *metrics.ModelMetrics // of model and version
	state          state
	attempt        uint32
	at             *engine // while state.atEngine
	rec            *journal.Record
	sampling       *Sampling // as the engine filled it in

	text   []byte // of the answer, not taken yet
	fresh  int    // tokens behind text
	result *Result
	err    *api.Error

	accepted   bool // by some engine, at some time
	looked     bool // its cache look-up is counted
	settled    bool
	gainedHere bool // a token at the engine it is at
	alone      bool // sent as the only one without a token
	replayed   bool // sent again and not yet known how that went
	frameBytes int64
	strikes    int // deaths that it may have caused
	breaches   int // of the protocol in frames about it

	refusal   *api.Error // of the last load that was refused for memory
	refusedAt time.Time  // the first such

	waitingSince time.Time // in the queue or for an engine
	sentAt       time.Time
	firstSent    time.Time
	lostAt       time.Time // its attempt rose; zero: never
	pausedAt     time.Time // its engine was lost and nothing came since
	paused       time.Duration
	times        timing
	summary      Summary // of the engine that finished it
}

// timing of an answer, for the metrics.
type timing struct {
	prefill, decode time.Duration // by the engine's clock
	first           time.Duration // since Received, to the first token written or arrived; 0: none
	last            time.Time     // a token was written or arrived
}

// class in which the entry waits.
func (en *entry) class() queue.Class {
	switch en.state {
	case suspect:
		return queue.Suspect
	case waiting:
		return queue.Replay
	}
	return queue.Fresh
}

// item is the entry as the queue knows it. Deadlines are looked at by tick, for entries in every state.
func (en *entry) item() queue.Item {
	return queue.Item{ID: en.id, Order: en.order, Class: en.class(), Base: en.model, Version: en.version, Bytes: en.bytes}
}

// move changes the state; a move that doesn't exist is a bug of the caller.
func (en *entry) move(h happening) {
	next, ok := en.state.after(h)
	if !ok {
		panic("inflight: request can't move from " + en.state.String())
	}
	en.state = next
}

// notify wakes the goroutine that takes.
func (en *entry) notify() {
	select {
	case en.ready <- struct{}{}:
	default:
	}
}

// submission is the request as it goes to an engine now. Without a token received it goes as the client wrote it; with one, in the
// form that the engine made of it, so that nothing is rendered twice.
func (en *entry) submission(now time.Time, replaySteps bool) *Submission {
	r := en.req.Infer
	s := &Submission{
		ID: en.id, Attempt: en.attempt, Model: en.model, Version: en.version,
		Prompt: r.Prompt, System: r.System, HasSystem: r.HasSystem, JSONSchema: r.JSONSchema, Stops: r.Stop,
		Sampling:    sampling(r, en.seed),
		Traceparent: en.req.Traceparent, RequestID: en.req.ID, Owner: en.owner,
	}
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
	s.Rendered = &Rendered{PromptTokens: rec.PromptTokens, Grammar: rec.Grammar, Stops: rec.Stops, ParserState: rec.ParserState}
	s.Generated = rec.Generated[:len(rec.Generated):len(rec.Generated)]
	s.ExpectRevision = rec.Revision
	s.ReplaySteps = replaySteps
	s.MaxNewTokens = rec.MaxNewTokens
	if en.sampling != nil {
		s.Sampling = *en.sampling
		s.Sampling.Seed = en.seed
	}
	return s
}

func sampling(r *api.Request, seed uint64) Sampling {
	s := Sampling{Temperature: r.Temperature, TopP: r.TopP, MinP: r.MinP, RepeatPenalty: r.RepeatPenalty, Seed: seed}
	if r.TopK != nil {
		k := int32(*r.TopK)
		s.TopK = &k
	}
	return s
}

// ownerOf is the fair-share key of an API key's name.
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

// Ready implements Answer.
func (en *entry) Ready() <-chan struct{} { return en.ready }

// keepText is how much buffer an entry keeps between two calls of Take, in bytes.
const keepText = 4 << 10

// Take implements Answer.
func (en *entry) Take(dst []byte) Piece {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	p := Piece{Text: append(dst, en.text...), Tokens: en.fresh, Accepted: en.accepted, Attempt: en.attempt, LostAt: en.lostAt}
	en.text, en.fresh = en.text[:0], 0
	if cap(en.text) > keepText {
		en.text = nil
	}
	if en.state == done {
		p.Done, p.Result, p.Err = true, en.result, en.err
	}
	return p
}

// Wrote implements Answer.
func (en *entry) Wrote(tokens int, now time.Time) {
	en.table.mu.Lock()
	defer en.table.mu.Unlock()
	if en.req.Infer.Stream && en.mm != nil && !en.settled {
		en.passed(tokens, now)
	}
}

// passed records that tokens reached the client, or for an answer in one piece, the proxy. Tokens of one write share its gap.
func (en *entry) passed(tokens int, now time.Time) {
	if tokens <= 0 {
		return
	}
	if en.times.last.IsZero() {
		en.times.first = max(now.Sub(en.req.Received), 1)
		en.mm.FirstToken(en.times.first, metrics.SampledTraceID(en.req.Traceparent))
		tokens--
		en.times.last = now
	}
	gap := now.Sub(en.times.last)
	for range tokens {
		en.mm.InterToken(gap / time.Duration(tokens))
	}
	en.times.last = now
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
