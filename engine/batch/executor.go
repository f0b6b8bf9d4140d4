package batch

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of an executor; zero values give the defaults named here.
type Options struct {
	StepTokens  int           // prompt tokens of one step at most; 512
	TargetStep  time.Duration // how long a step should take while somebody waits for a next token; 50 ms
	Workers     int           // goroutines for samplers with grammars; half the processors
	StallFloor  time.Duration // a step may always take this long before it counts as hung; 30 s
	Log         *slog.Logger  // nil: nothing is logged
	Observe     Observer      // nil: nothing is counted
	MaxRequests int           // requests in hand at most, in slots and waiting; 4096
	StepDelay   time.Duration // makes each step longer, for benchmarks and tests; 0
}

// Observer counts what the executor does. It is called on the executor's goroutine and must not block.
type Observer interface {
	// Decode is one call of Runner.Step; phase is prefill, decode or mixed.
	Decode(base, phase string, seconds float64, tokens, sequences int)
	// Sampling is time that a worker spent on a sampler, or a step on its draws.
	Sampling(base string, seconds float64)
	// Tokens counts tokens of kind prompt (computed), cached or generated.
	Tokens(base, kind string, n int)
	// Preempted: a sequence lost its cells and will be prefilled again.
	Preempted(base string)
	// DecodeError counts failed steps and sequences by FailureCode.
	DecodeError(base, code string)
}

// Executor decodes for all bases of one device. Its methods may be called from any goroutine; those that wait (Do, Attach, Detach, Close)
// not from Sink.Emit, Request.Release or a function given to Do.
type Executor struct {
	opts      Options
	epoch     time.Time // readings of the clock are durations since then
	wake      chan struct{}
	done      chan struct{} // closed when the goroutine has ended
	pool      *workers
	heartbeat heartbeat

	mu       sync.Mutex
	bases    map[string]*base
	live     map[requestKey]*sequence
	inbox    []message
	drawn    []*sequence // whose worker is done
	calls    []*call
	arrivals uint64
	stats    []BaseStats // by key, as of the last step
	closed   bool

	// The rest belongs to the goroutine.
	spare    []message
	spareQ   []*sequence
	list     []*base // by key
	rounds   turns[*base]
	ready    []contender[*base]
	out      outbox
	released []*sequence   // ended, for Release after the next flush
	picked   []*sequence   // scratch
	deadline time.Duration // the next one; 0: none
	outgoing int           // sequences whose worker has a job
	timer    *time.Timer
}

// base is an attached runner.
type base struct {
	key    string
	runner Runner
	limits Limits

	// Guarded by Executor.mu.
	queued   int           // submitted, not yet seen by the goroutine
	leaving  chan struct{} // not nil: closed as soon as no sequence is left
	detached bool

	// Belongs to the executor's goroutine.
	sched   scheduler
	plan    plan
	slices  []Slice
	owned   int  // sequences, waiting and busy ones included
	stalled bool // nothing to do until something happens to one of its sequences
}

// message is one thing that happened to a request outside.
type message struct {
	kind messageKind
	seq  *sequence
	base *base
	sink Sink
}

type messageKind uint8

const (
	messageSubmit messageKind = iota
	messageCancel
	messageSinkGone
)

// call is a function waiting in Do.
type call struct {
	fn    func() error
	taken atomic.Bool // by the goroutine that runs it, or by the caller that gives up
	done  chan struct{}
	err   error
}

// NewExecutor starts the executor's goroutine and its workers. Close ends them.
func NewExecutor(o Options) *Executor {
	o = o.withDefaults()
	e := &Executor{
		opts: o, epoch: time.Now(),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		bases: make(map[string]*base), live: make(map[requestKey]*sequence),
	}
	e.heartbeat.init(o.StallFloor)
	e.pool = startWorkers(o.Workers, o.MaxRequests, e.jobDone)
	go e.run()
	return e
}

func (o Options) withDefaults() Options {
	if o.StepTokens <= 0 {
		o.StepTokens = 512
	}
	if o.TargetStep <= 0 {
		o.TargetStep = 50 * time.Millisecond
	}
	if o.Workers <= 0 {
		o.Workers = max(runtime.GOMAXPROCS(0)/2, 1)
	}
	if o.StallFloor <= 0 {
		o.StallFloor = 30 * time.Second
	}
	if o.MaxRequests <= 0 {
		o.MaxRequests = 4096
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = blind{}
	}
	return o
}

// Do runs fn on the executor's goroutine, between steps, and returns its error. ctx only ends the wait while fn is queued: once begun,
// it is waited for.
func (e *Executor) Do(ctx context.Context, fn func() error) error {
	c := &call{fn: fn, done: make(chan struct{})}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrClosed
	}
	e.calls = append(e.calls, c)
	e.mu.Unlock()
	e.signal()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if c.taken.CompareAndSwap(false, true) {
		return context.Cause(ctx)
	}
	<-c.done
	return c.err
}

// Attach adds a base under a key; ErrBaseExists when it is taken. The runner must stay until Detach or Close has returned nil.
func (e *Executor) Attach(ctx context.Context, key string, r Runner) error {
	return e.Do(ctx, func() error {
		l := r.Limits()
		if l.Cells <= 0 || l.Sequences <= 0 || l.SequenceMax <= 0 || l.StepTokens <= 0 {
			return fmt.Errorf("attach %s: limits %+v leave no room", key, l)
		}
		p := pace{target: e.opts.TargetStep, most: e.opts.StepTokens}
		b := &base{key: key, runner: r, limits: l, sched: newScheduler(l, p)}
		for seq := range l.Sequences { // a runner that was attached before may hold cells
			r.Truncate(seq, 0)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.bases[key] != nil {
			return fmt.Errorf("attach %s: %w", key, ErrBaseExists)
		}
		e.bases[key] = b
		e.list = append(e.list, b)
		slices.SortFunc(e.list, func(a, b *base) int {
			if a.key < b.key {
				return -1
			}
			return 1
		})
		return nil
	})
}

// Detach lets a base take no new requests, waits until it has none and removes it. When ctx ends first the base stays and takes requests
// again.
func (e *Executor) Detach(ctx context.Context, key string) error {
	e.mu.Lock()
	b := e.bases[key]
	if b == nil {
		e.mu.Unlock()
		return fmt.Errorf("detach %s: %w", key, ErrUnknownBase)
	}
	if b.leaving != nil {
		e.mu.Unlock()
		return fmt.Errorf("detach %s: %w: already being detached", key, ErrUnknownBase)
	}
	left := make(chan struct{})
	b.leaving = left
	e.mu.Unlock()
	e.signal()
	select {
	case <-left:
		return nil
	case <-e.done: // nothing uses the runner any more
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b.detached {
		return nil
	}
	b.leaving = nil
	return fmt.Errorf("detach %s: %w", key, context.Cause(ctx))
}

// Submit hands a request over; it never waits for a step. Its Sink must be comparable, a pointer say. After an error the request is still
// the caller's and Release isn't called.
func (e *Executor) Submit(r *Request) error {
	b, err := e.reserve(r)
	if err != nil {
		return err
	}
	if err := validate(r, b.limits); err != nil {
		return err
	}
	// Text and sampler are built here and not on the executor's goroutine: a long prompt takes a moment. A grammar may take longer, so
	// a worker does it.
	q := newSequence(r)
	q.decided, _ = q.replay(b.runner, b.limits)
	if q.decided == 0 && r.Sampling.Grammar == "" {
		q.sampler, err = b.runner.NewSampler(r.Sampling, r.Prompt, r.Generated)
		if err != nil {
			return fmt.Errorf("build sampler: %w", err)
		}
	}
	if err := e.enter(b, q); err != nil {
		if q.sampler != nil {
			q.sampler.Close()
		}
		return err
	}
	e.signal()
	return nil
}

// reserve finds the base of a request and whether it may come in.
func (e *Executor) reserve(r *Request) (*base, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.bases[r.Base]
	switch {
	case e.closed:
		return nil, ErrClosed
	case b == nil || b.leaving != nil:
		return nil, fmt.Errorf("%w: %q", ErrUnknownBase, r.Base)
	case len(e.live) >= e.opts.MaxRequests:
		return nil, fmt.Errorf("%w: %d in hand", ErrTooMany, len(e.live))
	case e.live[requestKey{r.ID, r.Attempt}] != nil:
		return nil, fmt.Errorf("%w: id %d attempt %d", ErrDuplicate, r.ID, r.Attempt)
	}
	return b, nil
}

// enter puts a checked sequence into the inbox, unless things changed since reserve.
func (e *Executor) enter(b *base, q *sequence) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case b.leaving != nil || b.detached:
		return fmt.Errorf("%w: %q", ErrUnknownBase, b.key)
	case len(e.live) >= e.opts.MaxRequests:
		return fmt.Errorf("%w: %d in hand", ErrTooMany, len(e.live))
	case e.live[q.key()] != nil:
		return fmt.Errorf("%w: id %d attempt %d", ErrDuplicate, q.req.ID, q.req.Attempt)
	}
	q.arrival = e.arrivals
	e.arrivals++
	q.submitted = e.now()
	if q.req.Timeout > 0 {
		q.deadline = q.submitted + q.req.Timeout
	}
	q.job.base = b
	b.queued++
	e.live[q.key()] = q
	e.inbox = append(e.inbox, message{kind: messageSubmit, seq: q, base: b})
	return nil
}

// Cancel ends a request with FinishCancelled, between steps. Unknown and finished ones are ignored.
func (e *Executor) Cancel(id uint64, attempt uint32) {
	e.mu.Lock()
	q := e.live[requestKey{id, attempt}]
	if q == nil || q.cancelled {
		e.mu.Unlock()
		return
	}
	q.cancelled = true
	e.inbox = append(e.inbox, message{kind: messageCancel, seq: q})
	e.mu.Unlock()
	e.signal()
}

// CancelSink ends all requests of a sink without Summaries, between steps; Release is called for each.
func (e *Executor) CancelSink(s Sink) {
	e.mu.Lock()
	if e.closed { // Close ends them
		e.mu.Unlock()
		return
	}
	e.inbox = append(e.inbox, message{kind: messageSinkGone, sink: s})
	e.mu.Unlock()
	e.signal()
}

// Stats of every base, by key, as of the last step plus what was submitted since.
func (e *Executor) Stats() []BaseStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := slices.Clone(e.stats)
	for i := range list {
		if b := e.bases[list[i].Base]; b != nil {
			list[i].Waiting += b.queued
		}
	}
	return list
}

// Heartbeat is the heartbeat.
func (e *Executor) Heartbeat() Heartbeat { return e.heartbeat.at(e.now()) }

// Close refuses new requests, ends those in hand with FinishCancelled, waits for the step and the draws under way and ends all
// goroutines. When ctx ends first it returns its error; the executor still ends by itself.
func (e *Executor) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.signal()
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close executor: %w", context.Cause(ctx))
	}
}

func (e *Executor) now() time.Duration { return time.Since(e.epoch) }

// signal wakes the goroutine if it waits.
func (e *Executor) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *Executor) jobDone(q *sequence) {
	e.mu.Lock()
	e.drawn = append(e.drawn, q)
	e.mu.Unlock()
	e.signal()
}

// blind is the observer when none was given.
type blind struct{}

func (blind) Decode(string, string, float64, int, int) {}
func (blind) Sampling(string, float64)                 {}
func (blind) Tokens(string, string, int)               {}
func (blind) Preempted(string)                         {}
func (blind) DecodeError(string, string)               {}
