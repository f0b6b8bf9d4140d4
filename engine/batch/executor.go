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
	StallFloor  time.Duration // a shorter step never counts as hung; 30 s
	Log         *slog.Logger  // nil: nothing is logged
	Observe     Observer      // nil: nothing is counted
	MaxRequests int           // requests in progress at most, in slots and waiting; 4096
	StepDelay   time.Duration // makes each step longer, for benchmarks and tests; 0
}

// Executor decodes for all bases of one device. Its methods may be called from any goroutine; those that wait (Do,
// Attach, Detach, Close) not from Sink.Emit, Request.Release or a function given to Do.
type Executor struct {
	opts            Options
	epoch           time.Time // times are durations since then
	wake            chan struct{}
	done            chan struct{} // closed when the goroutine has ended
	samplingWorkers *samplingWorkers
	heartbeat       heartbeat

	mu           sync.Mutex
	bases        map[string]*base
	requests     map[requestKey]*sequence
	inbox        []message
	finishedJobs []*sequence // whose job is done, to be taken back by the goroutine
	calls        []*call
	turns        []*call // of TakeTurn
	arrivals     uint64
	stats        []BaseStats // by key, as of the last step
	closed       bool

	// The rest belongs to the goroutine.
	spareInbox   []message
	spareJobs    []*sequence
	basesByKey   []*base // by key
	baseTurns    roundRobin[*base]
	readyBases   []candidate[*base]
	outbox       outbox
	ended        []*sequence   // ended, for Release after the next flush
	scratch      []*sequence   // scratch
	nextDeadline time.Duration // the earliest of all requests; 0: none
	runningJobs  int           // sequences whose job is queued or running
	timer        *time.Timer
}

// base is an attached runner.
type base struct {
	key    string
	runner Runner
	limits Limits

	// Guarded by Executor.mu.
	inboxCount int           // submitted, not yet seen by the goroutine
	detaching  chan struct{} // not nil: Detach waits, and it is closed as soon as no sequence is left
	detached   bool

	// Belongs to the executor's goroutine.
	scheduler     scheduler
	plan          plan
	slices        []Slice
	sequenceCount int  // sequences, waiting and busy ones included
	blocked       bool // there is nothing to plan until something happens to one of its sequences
}

// message is a submission, a cancel or the loss of a sink, for the executor's goroutine.
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

// call is a function waiting in Do or TakeTurn.
type call struct {
	fn      func() error
	turn    func(Turn) error
	claimed atomic.Bool // by the goroutine that runs it, or by the caller whose context ended
	done    chan struct{}
	err     error
}

// NewExecutor starts the executor's goroutine and its workers. Close ends them.
func NewExecutor(o Options) *Executor {
	o = o.withDefaults()
	e := &Executor{
		opts: o, epoch: time.Now(),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		bases: make(map[string]*base), requests: make(map[requestKey]*sequence),
	}
	e.heartbeat.init(o.StallFloor)
	e.samplingWorkers = startSamplingWorkers(o.Workers, o.MaxRequests, e.jobDone)
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
		o.Observe = noopObserver{}
	}
	return o
}

// Do runs fn on the executor's goroutine, between steps, and returns its error. ctx only ends the wait while fn is
// queued: once begun, it is waited for.
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
	return c.wait(ctx)
}

// wait waits until the function has returned, or ctx has ended before it began.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if c.claimed.CompareAndSwap(false, true) {
		return context.Cause(ctx)
	}
	<-c.done
	return c.err
}

// Attach adds a base under a key; ErrBaseExists when the key is in use. The runner must stay until Detach or Close has
// returned nil.
func (e *Executor) Attach(ctx context.Context, key string, r Runner) error {
	return e.Do(ctx, func() error {
		l := r.Limits()
		if l.Cells <= 0 || l.Sequences <= 0 || l.SequenceMax <= 0 || l.StepTokens <= 0 {
			return fmt.Errorf("attach %s: limits %+v leave no room", key, l)
		}
		if l.StreamCells > 0 && (l.SequenceMax > l.StreamCells || l.StreamCells*l.Sequences > l.Cells) {
			return fmt.Errorf("attach %s: limits %+v: sequences are longer than their streams, or these are more than all cells", key, l)
		}
		b := &base{key: key, runner: r, limits: l, scheduler: newScheduler(l, newStepBudget(e.opts, r))}
		for seq := range l.Sequences { // a runner that was attached before may hold cells
			r.Truncate(seq, 0)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.bases[key] != nil {
			return fmt.Errorf("attach %s: %w", key, ErrBaseExists)
		}
		e.bases[key] = b
		e.basesByKey = append(e.basesByKey, b)
		slices.SortFunc(e.basesByKey, func(a, b *base) int {
			if a.key < b.key {
				return -1
			}
			return 1
		})
		return nil
	})
}

// Detach refuses new requests for a base, waits until it has none and removes it. When ctx ends first the base stays
// and takes requests again.
func (e *Executor) Detach(ctx context.Context, key string) error {
	e.mu.Lock()
	b := e.bases[key]
	if b == nil {
		e.mu.Unlock()
		return fmt.Errorf("detach %s: %w", key, ErrUnknownBase)
	}
	if b.detaching != nil {
		e.mu.Unlock()
		return fmt.Errorf("detach %s: %w: already being detached", key, ErrUnknownBase)
	}
	left := make(chan struct{})
	b.detaching = left
	e.mu.Unlock()
	e.signal()
	select {
	case <-left:
		return nil
	case <-e.done: // the executor has ended, so nothing uses the runner
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b.detached {
		return nil
	}
	b.detaching = nil
	return fmt.Errorf("detach %s: %w", key, context.Cause(ctx))
}

// Heartbeat returns the state of the executor's goroutine.
func (e *Executor) Heartbeat() Heartbeat { return e.heartbeat.at(e.now()) }

// Close refuses new requests, ends those in progress with FinishCancelled, waits for the running step and jobs and ends
// all goroutines. When ctx ends first it returns an error; the executor still ends by itself.
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
	e.finishedJobs = append(e.finishedJobs, q)
	e.mu.Unlock()
	e.signal()
}
