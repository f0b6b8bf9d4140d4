package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// waitLimit is how long tests wait for what has to happen; the promise for clients that leave is one second.
const (
	waitLimit = 10 * time.Second
	goneLimit = time.Second
)

// fakeTable answers as its test says.
type fakeTable struct {
	admit func(inflight.Request) (inflight.Answer, *api.Error)

	mu      sync.Mutex
	current inflight.Status
	drains  int
}

func (d *fakeTable) Admit(_ context.Context, r inflight.Request) (inflight.Answer, *api.Error) {
	return d.admit(r)
}

func (d *fakeTable) Status() inflight.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

func (d *fakeTable) Drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drains++
	d.current.Draining = true
}

func (d *fakeTable) set(change func(*inflight.Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.current)
}

// fakeAnswer is an answer that its test writes.
type fakeAnswer struct {
	request   inflight.Request
	ready     chan struct{}
	cancelled chan struct{}
	settled   chan inflight.Outcome
	onTake    func()

	mu      sync.Mutex
	next    inflight.Piece
	wrote   int
	because api.Type
}

func newAnswer(r inflight.Request) *fakeAnswer {
	return &fakeAnswer{request: r, ready: make(chan struct{}, 1), cancelled: make(chan struct{}), settled: make(chan inflight.Outcome, 2)}
}

func (a *fakeAnswer) Model() string          { return "demo" }
func (a *fakeAnswer) Version() string        { return "v1.0" }
func (a *fakeAnswer) Ready() <-chan struct{} { return a.ready }

func (a *fakeAnswer) Take(dst []byte) inflight.Piece {
	if a.onTake != nil {
		a.onTake()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.next
	p.Text = append(dst, a.next.Text...)
	a.next = inflight.Piece{Accepted: p.Accepted, Done: p.Done, Result: p.Result, Err: p.Err}
	return p
}

func (a *fakeAnswer) Wrote(tokens int, _ time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrote += tokens
}

func (a *fakeAnswer) Cancel(because *api.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.because = because.Type
	select {
	case <-a.cancelled:
	default:
		close(a.cancelled)
	}
}

// expectBecause is for answers that were cancelled.
func (a *fakeAnswer) expectBecause(t *testing.T, want api.Type) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.because != want {
		t.Errorf("cancelled because of %q, want %q", a.because, want)
	}
}

func (a *fakeAnswer) Settle(o inflight.Outcome) { a.settled <- o }

func (a *fakeAnswer) add(change func(*inflight.Piece)) {
	a.mu.Lock()
	change(&a.next)
	a.mu.Unlock()
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

func (a *fakeAnswer) accept() { a.add(func(p *inflight.Piece) { p.Accepted = true }) }

func (a *fakeAnswer) say(text string) {
	a.add(func(p *inflight.Piece) {
		p.Accepted = true
		p.Text = append(p.Text, text...)
		p.Tokens++
	})
}

func (a *fakeAnswer) end(tokens int) {
	a.add(func(p *inflight.Piece) {
		p.Accepted, p.Done = true, true
		p.Result = &inflight.Result{FinishReason: "stop", PromptTokens: 9, OutputTokens: tokens, Seed: 42, GenerationTime: 5 * time.Millisecond}
	})
}

func (a *fakeAnswer) fail(err *api.Error, accepted bool) {
	a.add(func(p *inflight.Piece) { p.Accepted, p.Done, p.Err = accepted, true, err })
}

func (a *fakeAnswer) tokensWritten() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wrote
}

// expectCancel waits for the cancel that a client's leaving causes.
func (a *fakeAnswer) expectCancel(t *testing.T) {
	t.Helper()
	await(t, "cancel", a.cancelled, goneLimit)
}

func (a *fakeAnswer) expectOutcome(t *testing.T, want inflight.Outcome) {
	t.Helper()
	if got := await(t, "settle", a.settled, waitLimit); got != want {
		t.Errorf("settled with outcome %d, want %d", got, want)
	}
}

// await receives from c within limit.
func await[T any](t *testing.T, what string, c <-chan T, limit time.Duration) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("no %s within %s", what, limit)
		panic("unreachable")
	}
}

// answers gives a request table whose answers the test receives and writes.
func answers() (*fakeTable, <-chan *fakeAnswer) {
	c := make(chan *fakeAnswer, 64)
	return &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		a := newAnswer(r)
		c <- a
		return a, nil
	}}, c
}

// instant gives a request table that answers every request at once.
func instant() *fakeTable {
	return &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		a := newAnswer(r)
		a.say("The capital of France is Paris.")
		a.end(8)
		return a, nil
	}}
}

func readyStatus() inflight.Status {
	return inflight.Status{
		EngineUp: true, EverReady: true, DefaultModel: "demo", DefaultVersion: "v1.0", DefaultLoaded: true, Device: "cpu",
		Devices:   []inflight.Device{{Name: "CPU", Backend: "cpu", MemoryTotal: 1 << 30, MemoryFree: 1 << 29}},
		Models:    []inflight.Model{{Name: "demo", Description: "facts", Versions: []inflight.Version{{Name: "base"}, {Name: "v1.0"}, {Name: "v1.1"}}}},
		Loaded:    []inflight.Loaded{{Model: "demo", Version: "v1.0"}, {Model: "demo", Version: "v1.1", Loading: true}},
		CacheSize: 5, Waiting: 3, Running: 2, QueueCapacity: 256,
	}
}
