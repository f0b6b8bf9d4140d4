package batch

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeRunner is a model whose next token depends on every token in the cache of the sequence and on the adapter, so that a lost, doubled
// or foreign cell changes the answer. It refuses what llama.cpp would refuse or die of.
type fakeRunner struct {
	limits Limits
	cost   func(tokens int) time.Duration                         // of a step; nil: none
	fail   func(adapter Adapter, slices []Slice) error            // of a whole step
	failed func(seq int, tokens []Token) error                    // of one slice
	work   func(index int) error                                  // of a grammar, on the worker, before the token at index
	force  func(index int) int                                    // how many tokens from index on a grammar forces
	trace  func(adapter Adapter, slices []Slice, all map[int]int) // every step that succeeded
	build  error

	mu       sync.Mutex
	cells    map[int][]Token
	samplers atomic.Int64 // open
	faults   []string     // broken rules
}

type fakeAdapter struct{ name string }

func (a *fakeAdapter) Name() string { return a.name }

func newFake(l Limits) *fakeRunner {
	return &fakeRunner{limits: l, cells: make(map[int][]Token)}
}

func (f *fakeRunner) Limits() Limits { return f.limits }

func (f *fakeRunner) Step(adapter Adapter, slices []Slice) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	total, used := 0, 0
	for i := range slices {
		total += len(slices[i].Tokens)
	}
	for _, c := range f.cells {
		used += len(c)
	}
	if f.cost != nil {
		time.Sleep(f.cost(total))
	}
	if f.fail != nil {
		if err := f.fail(adapter, slices); err != nil {
			return err
		}
	}
	if total > f.limits.StepTokens || total == 0 {
		f.faults = append(f.faults, fmt.Sprintf("step of %d tokens", total))
	}
	if used+total > f.limits.Cells {
		f.faults = append(f.faults, fmt.Sprintf("%d cells used, %d more wanted, there are %d", used, total, f.limits.Cells))
		return ErrNoCells
	}
	for i := range slices {
		f.feed(adapter, &slices[i])
	}
	if f.trace != nil {
		all := make(map[int]int, len(f.cells))
		for q, c := range f.cells {
			all[q] = len(c)
		}
		f.trace(adapter, slices, all)
	}
	return nil
}

func (f *fakeRunner) feed(adapter Adapter, s *Slice) {
	if s.Start != len(f.cells[s.Seq]) {
		f.faults = append(f.faults, fmt.Sprintf("sequence %d: start %d, cache holds %d", s.Seq, s.Start, len(f.cells[s.Seq])))
	}
	if s.Start+len(s.Tokens) > f.limits.SequenceMax {
		f.faults = append(f.faults, fmt.Sprintf("sequence %d: %d tokens", s.Seq, s.Start+len(s.Tokens)))
	}
	if f.failed != nil {
		if s.Err = f.failed(s.Seq, s.Tokens); s.Err != nil {
			return
		}
	}
	f.cells[s.Seq] = append(f.cells[s.Seq], s.Tokens...)
	if s.Sampler == nil {
		return
	}
	fs := s.Sampler.(*fakeSampler)
	d := Draw{Token: nextToken(adapter, f.cells[s.Seq]), Margin: float32(math.Inf(1))}
	if fs.grammar {
		fs.kept, fs.history = &d, f.cells[s.Seq]
		return
	}
	if fs.accepted != s.Index {
		f.faults = append(f.faults, fmt.Sprintf("sequence %d: index %d, sampler accepted %d", s.Seq, s.Index, fs.accepted))
	}
	fs.accepted++
	s.Draw = d
}

func (f *fakeRunner) Truncate(seq, from int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if from > len(f.cells[seq]) {
		f.faults = append(f.faults, fmt.Sprintf("truncate sequence %d to %d of %d", seq, from, len(f.cells[seq])))
		return false
	}
	if from > 0 && !f.limits.Prefix {
		delete(f.cells, seq)
		return false
	}
	if from == 0 {
		delete(f.cells, seq)
		return true
	}
	f.cells[seq] = f.cells[seq][:from:from]
	return true
}

func (f *fakeRunner) CopyPrefix(from, to, tokens int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cells[to]) > 0 || len(f.cells[from]) < tokens || !f.limits.Prefix {
		f.faults = append(f.faults, fmt.Sprintf("copy %d tokens of %d to %d", tokens, from, to))
		return false
	}
	f.cells[to] = append([]Token(nil), f.cells[from][:tokens]...)
	return true
}

func (f *fakeRunner) NewSampler(s Sampling, prompt, generated []Token) (Sampler, error) {
	if f.build != nil {
		return nil, f.build
	}
	f.samplers.Add(1)
	fs := &fakeSampler{runner: f, grammar: s.Grammar != "", accepted: len(generated), ahead: len(generated)}
	fs.known = append(append(fs.known, prompt...), generated...)
	return fs, nil
}

func (f *fakeRunner) Piece(t Token) []byte { return fakePieces[t] }
func (f *fakeRunner) IsEnd(t Token) bool   { return t == 0 }

// check reports broken rules and what was left behind.
func (f *fakeRunner) check(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range f.faults {
		t.Error("runner:", fault)
	}
	if n := f.samplers.Load(); n != 0 {
		t.Errorf("%d samplers are open", n)
	}
}

// fakeSampler with a grammar forces tokens that the model without adapters would have drawn, so that answers are the same with and without.
type fakeSampler struct {
	runner   *fakeRunner
	grammar  bool
	accepted int
	closed   bool

	ahead   int // index that Advance made ready for
	known   []Token
	ready   bool
	kept    *Draw
	history []Token // of kept
}

func (s *fakeSampler) Constrained() bool { return s.grammar }

func (s *fakeSampler) Advance(room int) ([]Token, error) {
	if s.runner.work != nil {
		if err := s.runner.work(s.ahead); err != nil {
			return nil, err
		}
	}
	n := 0
	if s.runner.force != nil {
		n = min(s.runner.force(s.ahead), room)
	}
	var forced []Token
	for range n {
		t := nextToken(nil, s.known)
		forced, s.known = append(forced, t), append(s.known, t)
		s.ahead++
		s.accepted++
		if t == 0 {
			break
		}
	}
	s.ready = true
	return forced, nil
}

func (s *fakeSampler) Draw(index int) (Draw, error) {
	if s.kept == nil || !s.ready || index != s.ahead || len(s.history) != len(s.known) {
		return Draw{}, fmt.Errorf("draw %d: logits kept: %t, ready: %t for %d, %d tokens in the cache of %d", index, s.kept != nil, s.ready, s.ahead, len(s.history), len(s.known))
	}
	d := *s.kept
	s.kept, s.ready = nil, false
	s.known = append(s.known, d.Token)
	s.ahead++
	s.accepted++
	return d, nil
}

func (s *fakeSampler) Accept(Token) error { s.accepted++; return nil }

func (s *fakeSampler) Close() {
	if s.closed {
		panic("sampler closed twice")
	}
	s.closed = true
	s.runner.samplers.Add(-1)
}

// The fake vocabulary: 0 ends, the rest are pieces, some of them a part of a character.
var fakePieces = func() [][]byte {
	p := make([][]byte, 64)
	for i := range p {
		p[i] = []byte(fmt.Sprintf("%c%c", 'a'+i%26, 'A'+i/26))
	}
	p[0] = nil
	copy(p[1:], [][]byte{{0xc3}, {0xa9}, {0xf0, 0x9f}, {0x98, 0x80}, {0xff}})
	return p
}()

// nextToken is the model.
func nextToken(adapter Adapter, history []Token) Token {
	h := uint32(2166136261)
	if adapter != nil {
		h ^= uint32(adapter.Name()[0]) * 77
	}
	for _, t := range history {
		h = (h ^ uint32(t)) * 16777619
	}
	h ^= h >> 15
	h *= 0x2c1b3c6d
	h ^= h >> 12
	if h%97 == 0 {
		return 0
	}
	return Token(1 + h%63)
}

// expect computes the answer without an executor.
func expect(r *Request) (tokens []Token, text string, reason FinishReason) {
	history := append([]Token(nil), r.Prompt...)
	a := newAssembler(r.Stops)
	var out []byte
	for len(tokens) < r.MaxNewTokens {
		t := nextToken(r.Adapter, history)
		history = append(history, t)
		tokens = append(tokens, t)
		piece, stopped := a.push(fakePieces[t])
		out = append(out, piece...)
		if t == 0 || stopped {
			out = append(out, a.finish()[len(piece):]...)
			return tokens, string(out), FinishStop
		}
		if len(tokens) == r.MaxNewTokens {
			out = append(out, a.finish()[len(piece):]...)
		}
	}
	return tokens, string(out), FinishLength
}

// collector is a sink that keeps what it gets, by request.
type collector struct {
	t *testing.T

	mu      sync.Mutex
	answers map[requestKey]*collected
	deaf    bool // answers false
	emits   int
	onToken func(StepToken) // on the executor's goroutine
}

type collected struct {
	tokens   []Token
	text     []byte
	steps    []StepToken // without Text
	summary  Summary
	took     time.Duration // sum of SinceLast
	first    int
	done     chan struct{}
	released chan struct{}
}

func newCollector(t *testing.T) *collector {
	return &collector{t: t, answers: make(map[requestKey]*collected)}
}

// of needs the lock.
func (c *collector) of(id uint64, attempt uint32) *collected {
	k := requestKey{id, attempt}
	if c.answers[k] == nil {
		c.answers[k] = &collected{first: -1, done: make(chan struct{}), released: make(chan struct{})}
	}
	return c.answers[k]
}

func (c *collector) Emit(step *Step) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.emits++
	if c.deaf {
		return false
	}
	for _, tok := range step.Tokens {
		a := c.of(tok.ID, tok.Attempt)
		if a.first < 0 {
			a.first = tok.Index
		}
		if tok.Index != a.first+len(a.tokens) {
			c.t.Errorf("request %d: token %d came as number %d", tok.ID, tok.Index, len(a.tokens))
		}
		a.tokens = append(a.tokens, tok.Token)
		a.text = append(a.text, tok.Text...)
		a.took += tok.SinceLast
		if c.onToken != nil {
			c.onToken(tok)
		}
		tok.Text = nil
		a.steps = append(a.steps, tok)
	}
	for _, sum := range step.Done {
		a := c.of(sum.ID, sum.Attempt)
		a.summary = sum
		close(a.done)
	}
	return true
}

// request makes a request for this sink whose Release can be waited for.
func (c *collector) request(id uint64, prompt []Token, most int) *Request {
	c.mu.Lock()
	a := c.of(id, 0)
	c.mu.Unlock()
	return &Request{
		ID: id, Base: "b", Prompt: prompt, MaxNewTokens: most, Sink: c,
		Release: func() { close(a.released) },
	}
}

// get gives what came for a request so far.
func (c *collector) get(id uint64) *collected {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of(id, 0)
}

// wait gives it when the request was released.
func (c *collector) wait(id uint64) *collected {
	c.t.Helper()
	a := c.get(id)
	select {
	case <-a.released:
	case <-time.After(20 * time.Second):
		c.t.Fatalf("request %d isn't done", id)
	}
	return a
}

// checkAnswer compares with what the model alone would have said.
func checkAnswer(t *testing.T, r *Request, a *collected) {
	t.Helper()
	tokens, text, reason := expect(r)
	if fmt.Sprint(a.tokens) != fmt.Sprint(tokens) || string(a.text) != text || a.summary.Reason != reason {
		t.Errorf("request %d: got %v %q, reason %d (%v); want %v %q, reason %d",
			r.ID, a.tokens, a.text, a.summary.Reason, a.summary.Failure, tokens, text, reason)
	}
	if a.summary.OutputTokens != len(tokens) || a.summary.PromptTokens != len(r.Prompt) {
		t.Errorf("request %d: summary %+v", r.ID, a.summary)
	}
}

func prompt(seed, n int) []Token {
	p := make([]Token, n)
	for i := range p {
		p[i] = Token(1 + (seed*31+i*7+i*i)%63)
		seed = seed/3 + seed%3*1000
	}
	return p
}

var errBroken = errors.New("broken")
