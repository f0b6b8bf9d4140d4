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

// fakeRunner is a model whose next token depends on every token in the cache of the sequence and on the adapter, so
// that a lost, doubled or foreign cell changes the answer. It refuses what llama.cpp would refuse or die of.
type fakeRunner struct {
	limits    Limits
	stepTime  func(tokens int) time.Duration              // of a step; nil: none
	failStep  func(adapter Adapter, slices []Slice) error // of a whole step
	failSlice func(seq int, tokens []Token) error         // of one slice
	// onAdvance: called by Advance, on the worker, before the token at index
	onAdvance func(index int) error
	// forcedCount: how many tokens from index on a grammar forces
	forcedCount  func(index int) int
	onStep       func(adapter Adapter, slices []Slice, all map[int]int) // every step that succeeded
	samplerError error

	mu           sync.Mutex
	cells        map[int][]Token
	places       *cellPlaces
	openSamplers atomic.Int64 // open
	violations   []string     // rules of Runner that the executor broke
}

type fakeAdapter struct{ name string }

func (a *fakeAdapter) Name() string { return a.name }

func newFakeRunner(l Limits) *fakeRunner {
	return &fakeRunner{limits: l, cells: make(map[int][]Token), places: newCellPlaces()}
}

func (f *fakeRunner) Limits() Limits { return f.limits }

func (f *fakeRunner) Step(slices []Slice) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	adapter := slices[0].Adapter
	total, used := 0, f.places.usedByAll()
	for i := range slices {
		total += len(slices[i].Tokens)
	}
	if f.stepTime != nil {
		time.Sleep(f.stepTime(total))
	}
	if f.failStep != nil {
		if err := f.failStep(adapter, slices); err != nil {
			return err
		}
	}
	if total > f.limits.StepTokens || total == 0 {
		f.violations = append(f.violations, fmt.Sprintf("step of %d tokens", total))
	}
	if used+total > f.limits.Cells {
		f.violations = append(f.violations, fmt.Sprintf("%d cells used, %d more wanted, there are %d", used, total, f.limits.Cells))
		return ErrNoCells
	}
	for i := range slices {
		if a := slices[i].Adapter; a != adapter && !f.limits.MixedAdapters {
			f.violations = append(f.violations, fmt.Sprintf("adapters %v and %v in one step", a, adapter))
		}
		f.feed(slices[i].Adapter, &slices[i])
	}
	if f.onStep != nil {
		all := make(map[int]int, len(f.cells))
		for q, c := range f.cells {
			all[q] = len(c)
		}
		f.onStep(adapter, slices, all)
	}
	return nil
}

func (f *fakeRunner) feed(adapter Adapter, s *Slice) {
	if s.Start != len(f.cells[s.Seq]) {
		f.violations = append(f.violations, fmt.Sprintf("sequence %d: start %d, cache holds %d", s.Seq, s.Start, len(f.cells[s.Seq])))
	}
	if f.limits.StreamCells > 0 && s.Start+len(s.Tokens) > f.limits.StreamCells {
		f.violations = append(f.violations, fmt.Sprintf("sequence %d: %d tokens in a stream of %d", s.Seq, s.Start+len(s.Tokens), f.limits.StreamCells))
	}
	if s.Start+len(s.Tokens) > f.limits.SequenceMax {
		f.violations = append(f.violations, fmt.Sprintf("sequence %d: %d tokens", s.Seq, s.Start+len(s.Tokens)))
	}
	if f.failSlice != nil {
		if s.Err = f.failSlice(s.Seq, s.Tokens); s.Err != nil {
			return
		}
	}
	f.cells[s.Seq] = append(f.cells[s.Seq], s.Tokens...)
	f.places.add(s.Seq, len(s.Tokens))
	s.Scores = nil
	for i := range s.Score.Targets {
		before := f.cells[s.Seq][:s.Start+s.Score.After+i+1]
		s.Scores = append(s.Scores, TokenScore{Logprob: fakeLogprob(adapter, before, s.Score.Targets[i])})
	}
	if s.Sampler == nil {
		return
	}
	fs := s.Sampler.(*fakeSampler)
	d := Draw{Token: nextToken(adapter, f.cells[s.Seq]), Margin: float32(math.Inf(1))}
	if fs.grammar {
		fs.keptDraw, fs.keptHistory = &d, f.cells[s.Seq]
		return
	}
	if fs.accepted != s.Index {
		f.violations = append(f.violations, fmt.Sprintf("sequence %d: index %d, sampler accepted %d", s.Seq, s.Index, fs.accepted))
	}
	fs.accepted++
	s.Draw = d
}

func (f *fakeRunner) Truncate(seq, from int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if from > len(f.cells[seq]) {
		f.violations = append(f.violations, fmt.Sprintf("truncate sequence %d to %d of %d", seq, from, len(f.cells[seq])))
		return false
	}
	if from > 0 && !f.limits.Prefix {
		f.places.cut(seq, 0)
		delete(f.cells, seq)
		return false
	}
	f.places.cut(seq, from)
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
	if len(f.cells[to]) > 0 || len(f.cells[from]) < tokens || !f.limits.Prefix || tokens < f.limits.CopyTokens {
		f.violations = append(f.violations, fmt.Sprintf("copy %d tokens of %d to %d", tokens, from, to))
		return false
	}
	f.cells[to] = append([]Token(nil), f.cells[from][:tokens]...)
	if f.limits.StreamCells > 0 {
		f.places.add(to, tokens)
	} else {
		f.places.share(from, to, tokens)
	}
	return true
}

func (f *fakeRunner) NewSampler(s Sampling, prompt, generated []Token) (Sampler, error) {
	if f.samplerError != nil {
		return nil, f.samplerError
	}
	f.openSamplers.Add(1)
	fs := &fakeSampler{runner: f, grammar: s.Grammar != "", accepted: len(generated), nextIndex: len(generated)}
	fs.tokens = append(append(fs.tokens, prompt...), generated...)
	return fs, nil
}

func (f *fakeRunner) Piece(t Token) []byte     { return fakePieces[t] }
func (f *fakeRunner) TokenText(t Token) []byte { return fakePieces[t] }
func (f *fakeRunner) IsEnd(t Token) bool       { return t == 0 }

// checkRules reports broken rules and samplers that were left open.
func (f *fakeRunner) checkRules(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range f.violations {
		t.Error("runner:", fault)
	}
	if n := f.openSamplers.Load(); n != 0 {
		t.Errorf("%d samplers are open", n)
	}
}

// fakeSampler with a grammar forces tokens that the model without adapters would have drawn, so that answers are the
// same with and without.
type fakeSampler struct {
	runner   *fakeRunner
	grammar  bool
	accepted int
	closed   bool

	nextIndex   int // index that Advance made ready for
	tokens      []Token
	ready       bool
	keptDraw    *Draw
	keptHistory []Token // of kept
}

func (s *fakeSampler) Constrained() bool { return s.grammar }

func (s *fakeSampler) Advance(room int) ([]Token, error) {
	if s.runner.onAdvance != nil {
		if err := s.runner.onAdvance(s.nextIndex); err != nil {
			return nil, err
		}
	}
	n := 0
	if s.runner.forcedCount != nil {
		n = min(s.runner.forcedCount(s.nextIndex), room)
	}
	var forced []Token
	for range n {
		t := nextToken(nil, s.tokens)
		forced, s.tokens = append(forced, t), append(s.tokens, t)
		s.nextIndex++
		s.accepted++
		if t == 0 {
			break
		}
	}
	s.ready = true
	return forced, nil
}

func (s *fakeSampler) Draw(index int) (Draw, error) {
	if s.keptDraw == nil || !s.ready || index != s.nextIndex || len(s.keptHistory) != len(s.tokens) {
		return Draw{}, fmt.Errorf("draw %d: logits kept: %t, ready: %t for %d, %d tokens in the cache of %d", index, s.keptDraw != nil, s.ready, s.nextIndex, len(s.keptHistory), len(s.tokens))
	}
	d := *s.keptDraw
	s.keptDraw, s.ready = nil, false
	s.tokens = append(s.tokens, d.Token)
	s.nextIndex++
	s.accepted++
	return d, nil
}

func (s *fakeSampler) Accept(Token) error { s.accepted++; return nil }

func (s *fakeSampler) Close() {
	if s.closed {
		panic("sampler closed twice")
	}
	s.closed = true
	s.runner.openSamplers.Add(-1)
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

// fakeLogprob is a number that depends on every token before the one that it is about.
func fakeLogprob(adapter Adapter, before []Token, t Token) float32 {
	return -float32(1+nextToken(adapter, before)) - float32(t)/128
}

// expectedAnswer computes the answer without an executor.
func expectedAnswer(r *Request) (tokens []Token, text string, reason FinishReason) {
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

func prompt(seed, n int) []Token {
	p := make([]Token, n)
	for i := range p {
		p[i] = Token(1 + (seed*31+i*7+i*i)%63)
		seed = seed/3 + seed%3*1000
	}
	return p
}

var errBroken = errors.New("broken")
