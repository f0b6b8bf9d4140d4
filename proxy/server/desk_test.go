package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/flight"
)

// waitLimit is how long tests wait for what has to happen; the promise for clients that leave is one second.
const (
	waitLimit = 10 * time.Second
	goneLimit = time.Second
)

// fakeDesk answers as its test says.
type fakeDesk struct {
	admit func(flight.Request) (flight.Answer, *api.Error)

	mu      sync.Mutex
	current flight.Status
	drains  int
}

func (d *fakeDesk) Admit(_ context.Context, r flight.Request) (flight.Answer, *api.Error) {
	return d.admit(r)
}

func (d *fakeDesk) Status() flight.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

func (d *fakeDesk) Drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drains++
	d.current.Draining = true
}

func (d *fakeDesk) set(change func(*flight.Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.current)
}

// fakeAnswer is an answer that its test writes.
type fakeAnswer struct {
	request   flight.Request
	ready     chan struct{}
	cancelled chan struct{}
	settled   chan flight.Outcome
	onTake    func()

	mu      sync.Mutex
	next    flight.Piece
	wrote   int
	because api.Type
}

func newAnswer(r flight.Request) *fakeAnswer {
	return &fakeAnswer{request: r, ready: make(chan struct{}, 1), cancelled: make(chan struct{}), settled: make(chan flight.Outcome, 2)}
}

func (a *fakeAnswer) Model() string          { return "demo" }
func (a *fakeAnswer) Version() string        { return "v1.0" }
func (a *fakeAnswer) Ready() <-chan struct{} { return a.ready }

func (a *fakeAnswer) Take(dst []byte) flight.Piece {
	if a.onTake != nil {
		a.onTake()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.next
	p.Text = append(dst, a.next.Text...)
	a.next = flight.Piece{Accepted: p.Accepted, Done: p.Done, Result: p.Result, Err: p.Err}
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

func (a *fakeAnswer) Settle(o flight.Outcome) { a.settled <- o }

func (a *fakeAnswer) add(change func(*flight.Piece)) {
	a.mu.Lock()
	change(&a.next)
	a.mu.Unlock()
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

func (a *fakeAnswer) accept() { a.add(func(p *flight.Piece) { p.Accepted = true }) }

func (a *fakeAnswer) say(text string) {
	a.add(func(p *flight.Piece) {
		p.Accepted = true
		p.Text = append(p.Text, text...)
		p.Tokens++
	})
}

func (a *fakeAnswer) end(tokens int) {
	a.add(func(p *flight.Piece) {
		p.Accepted, p.Done = true, true
		p.Result = &flight.Result{FinishReason: "stop", PromptTokens: 9, OutputTokens: tokens, Seed: 42, GenerationTime: 5 * time.Millisecond}
	})
}

func (a *fakeAnswer) fail(err *api.Error, accepted bool) {
	a.add(func(p *flight.Piece) { p.Accepted, p.Done, p.Err = accepted, true, err })
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

func (a *fakeAnswer) expectOutcome(t *testing.T, want flight.Outcome) {
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

// answers gives a desk whose answers the test receives and writes.
func answers() (*fakeDesk, <-chan *fakeAnswer) {
	c := make(chan *fakeAnswer, 64)
	return &fakeDesk{current: readyStatus(), admit: func(r flight.Request) (flight.Answer, *api.Error) {
		a := newAnswer(r)
		c <- a
		return a, nil
	}}, c
}

// instant gives a desk that answers every request at once.
func instant() *fakeDesk {
	return &fakeDesk{current: readyStatus(), admit: func(r flight.Request) (flight.Answer, *api.Error) {
		a := newAnswer(r)
		a.say("The capital of France is Paris.")
		a.end(8)
		return a, nil
	}}
}

func readyStatus() flight.Status {
	return flight.Status{
		EngineUp: true, EverReady: true, DefaultModel: "demo", DefaultVersion: "v1.0", DefaultLoaded: true, Device: "cpu",
		Devices:   []flight.Device{{Name: "CPU", Backend: "cpu", MemoryTotal: 1 << 30, MemoryFree: 1 << 29}},
		Models:    []flight.Model{{Name: "demo", Description: "facts", Versions: []flight.Version{{Name: "base"}, {Name: "v1.0"}, {Name: "v1.1"}}}},
		Loaded:    []flight.Loaded{{Model: "demo", Version: "v1.0"}, {Model: "demo", Version: "v1.1", Loading: true}},
		CacheSize: 5, Waiting: 3, Running: 2, QueueCapacity: 256,
	}
}
