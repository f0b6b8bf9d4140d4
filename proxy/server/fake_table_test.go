package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema/parts"
)

// waitLimit is how long tests wait for an event. The documented limit for noticing a disconnect is one second, which a
// busy machine may not hold; what polls for it or notices it with the next write takes longer than disconnectLimit.
const (
	waitLimit       = 10 * time.Second
	disconnectLimit = 4 * time.Second
)

// fakeTable is a request table whose admit function the test provides.
type fakeTable struct {
	admit func(inflight.Request) (inflight.Answer, *api.Error)

	mu      sync.Mutex
	current inflight.Status
	drains  int
}

func (f *fakeTable) Admit(_ context.Context, r inflight.Request) (inflight.Answer, *api.Error) {
	return f.admit(r)
}

// The calls of a fakeTable take each byte for a token.
func (f *fakeTable) Tokenize(_ context.Context, c inflight.ModelCall, text string, addSpecial bool) ([]int32, *api.Error) {
	if c.Model == "nobody/has-it" {
		return nil, api.NewError(api.TypeModelNotFound, "model is not installed")
	}
	var tokens []int32
	if addSpecial {
		tokens = append(tokens, 1)
	}
	for _, b := range []byte(text) {
		tokens = append(tokens, int32(b))
	}
	return tokens, nil
}

func (f *fakeTable) Detokenize(_ context.Context, _ inflight.ModelCall, tokens []int32) ([]byte, *api.Error) {
	var text []byte
	for _, t := range tokens {
		text = append(text, byte(t))
	}
	return text, nil
}

func (f *fakeTable) Render(ctx context.Context, c inflight.ModelCall, r *api.Request) (inflight.RenderedText, *api.Error) {
	text := ""
	for _, m := range r.Messages {
		text += "<" + m.Role + ">" + m.Content
	}
	tokens, err := f.Tokenize(ctx, c, text, false)
	return inflight.RenderedText{Text: []byte(text), Tokens: tokens}, err
}

// ExpectedTokens of a fakeTable are as many as may be asked for.
func (f *fakeTable) ExpectedTokens(r *api.Request) int {
	n, _ := r.NewTokens(0)
	return len(r.Prompt) + n
}

func (f *fakeTable) Status() inflight.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

func (f *fakeTable) Drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drains++
	f.current.Draining = true
}

func (f *fakeTable) set(change func(*inflight.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.current)
}

// fakeAnswer is an answer that its test writes.
type fakeAnswer struct {
	request    inflight.Request
	ready      chan struct{}
	cancelled  chan struct{}
	settled    chan inflight.Outcome
	written    chan struct{} // closed by the first Wrote
	firstWrite sync.Once
	onTake     func()

	mu            sync.Mutex
	next          inflight.Piece
	generated     int
	writtenTokens int
	cancelReason  api.Type
}

func newAnswer(r inflight.Request) *fakeAnswer {
	return &fakeAnswer{request: r, ready: make(chan struct{}, 1), cancelled: make(chan struct{}), settled: make(chan inflight.Outcome, 2),
		written: make(chan struct{})}
}

func (a *fakeAnswer) Model() string          { return "demo" }
func (a *fakeAnswer) Version() string        { return "v1.0" }
func (a *fakeAnswer) ModelID() string        { return "demo:v1.0" }
func (a *fakeAnswer) Revision() []byte       { return []byte{0xab, 0xcd} }
func (a *fakeAnswer) PromptTokens() int      { return 9 }
func (a *fakeAnswer) Ready() <-chan struct{} { return a.ready }

func (a *fakeAnswer) OutputTokens() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.generated
}

func (a *fakeAnswer) Take(dst []byte) inflight.Piece {
	if a.onTake != nil {
		a.onTake()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.next
	p.Text = append(dst, a.next.Text...)
	if a.request.Infer.SplitOutput {
		p.Text = parts.AppendText(dst, parts.Content, a.next.Text)
	}
	p.Last = p.Done
	a.next = inflight.Piece{Accepted: p.Accepted, Done: p.Done, Result: p.Result, Err: p.Err}
	return p
}

func (a *fakeAnswer) Wrote(_, tokens int, _ time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writtenTokens += tokens
	a.firstWrite.Do(func() { close(a.written) })
}

func (a *fakeAnswer) Cancel(reason *api.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancelReason = reason.Type
	select {
	case <-a.cancelled:
	default:
		close(a.cancelled)
	}
}

// expectCancelReason is for answers that were cancelled.
func (a *fakeAnswer) expectCancelReason(t *testing.T, want api.Type) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancelReason != want {
		t.Errorf("cancelled because of %q, want %q", a.cancelReason, want)
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

func (a *fakeAnswer) addText(text string) {
	a.add(func(p *inflight.Piece) {
		p.Accepted = true
		p.Text = append(p.Text, text...)
		p.Tokens++
		a.generated++
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
	return a.writtenTokens
}

// expectCancelled waits for the cancel that a client's disconnect causes.
func (a *fakeAnswer) expectCancelled(t *testing.T) {
	t.Helper()
	receiveWithin(t, "cancel", a.cancelled, disconnectLimit)
}

func (a *fakeAnswer) expectOutcome(t *testing.T, want inflight.Outcome) {
	t.Helper()
	if got := receiveWithin(t, "settle", a.settled, waitLimit); got != want {
		t.Errorf("settled with outcome %d, want %d", got, want)
	}
}

// receiveWithin receives from c within limit.
func receiveWithin[T any](t *testing.T, what string, c <-chan T, limit time.Duration) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("no %s within %s", what, limit)
		panic("unreachable")
	}
}

// manualTable returns a request table whose answers the test receives and writes.
func manualTable() (*fakeTable, <-chan *fakeAnswer) {
	c := make(chan *fakeAnswer, 64)
	return &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		a := newAnswer(r)
		c <- a
		return a, nil
	}}, c
}

// instantTable returns a request table that answers every request at once.
func instantTable() *fakeTable {
	return &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		a := newAnswer(r)
		a.addText("The capital of France is Paris.")
		a.end(8)
		return a, nil
	}}
}

var demoFacts = inflight.Facts{Cells: 4096, CellsLimit: "a quarter", CacheTypeK: "q8_0", CacheTypeV: "f16", FlashAttention: true, KVLayout: "streams", Sampling: "device", SamplingDecidedBy: "it is faster", Memory: []inflight.DeviceMemory{{Device: "CPU", CacheBytes: 8, AdapterBytes: 9}}}

func readyStatus() inflight.Status {
	return inflight.Status{
		EngineUp: true, EverReady: true, DefaultModel: "demo", DefaultVersion: "v1.0", DefaultLoaded: true, Device: "cpu",
		Devices: []inflight.Device{{Name: "CPU", Backend: "cpu", MemoryTotal: 1 << 30, MemoryFree: 1 << 29}},
		Backends: []inflight.Backend{
			{Name: "cuda", Problem: "no NVIDIA driver"}, {Name: "cpu", Devices: []inflight.Device{{Name: "CPU", Backend: "cpu", Description: "a processor"}}},
		},
		Models:    []inflight.Model{{Name: "demo", Description: "facts", Versions: []inflight.Version{{Name: "base"}, {Name: "v1.0"}, {Name: "v1.1"}}}},
		Loaded:    []inflight.Loaded{{Model: "demo", Version: "v1.0", Facts: demoFacts}, {Model: "demo", Version: "v1.1", Loading: true}},
		CacheSize: 5, Waiting: 3, Running: 2, QueueCapacity: 256,
	}
}
