package mock

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"tandem/engine/batch"
)

var _ batch.Runner = (*Base)(nil)

var errClosed = errors.New("mock: used after Close")

// cells is the KV cache: which tokens each sequence holds. The lock is for Close, which may come from another goroutine.
type cells struct {
	mu     sync.Mutex
	closed bool
	held   [][]batch.Token // by sequence
}

func newCells(sequences int) cells {
	return cells{held: make([][]batch.Token, sequences)}
}

func (c *cells) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// Limits of the base's cache.
func (b *Base) Limits() batch.Limits {
	return batch.Limits{
		Cells: b.facts.Cells, Sequences: b.facts.Sequences, SequenceMax: b.facts.ContextTokens, StepTokens: stepTokens, Prefix: true,
	}
}

// Step fills the cache and echoes: the token at a place of the answer is the one at that place of the prompt, read from the cache.
func (b *Base) Step(adapter batch.Adapter, slices []batch.Slice) error {
	if a, ok := adapter.(*Adapter); ok && a.closed.Load() {
		return fmt.Errorf("step with version %s: %w", a.name, errClosed)
	}
	b.cells.mu.Lock()
	defer b.cells.mu.Unlock()
	if b.cells.closed {
		return fmt.Errorf("step of %s: %w", b.spec.Name, errClosed)
	}
	var took time.Duration
	for i := range slices {
		took = max(took, b.feed(&slices[i]))
	}
	time.Sleep(took + b.prefillTime(slices))
	return nil
}

// feed takes in one slice and returns how long its draw takes.
func (b *Base) feed(s *batch.Slice) time.Duration {
	held := b.cells.held[s.Seq]
	if s.Start != len(held) {
		s.Err = fmt.Errorf("sequence %d: position %d, but the cache holds %d tokens", s.Seq, s.Start, len(held))
		return 0
	}
	held = append(held, s.Tokens...)
	b.cells.held[s.Seq] = held
	sm, ok := s.Sampler.(*sampler)
	if !ok {
		return 0
	}
	t := endToken
	if s.Index < sm.prompt {
		t = held[s.Index]
	}
	s.Draw = batch.Draw{Token: t, Margin: float32(math.Inf(1)), Top: sm.top}
	if sm.top != nil {
		sm.top[0].Token = t
	}
	return b.backend.opts.TokenDelay
}

func (b *Base) prefillTime(slices []batch.Slice) time.Duration {
	n := 0
	for i := range slices {
		if slices[i].Index == 0 {
			n += len(slices[i].Tokens)
		}
	}
	return time.Duration(n) * b.backend.opts.PrefillDelay
}

// Truncate forgets a sequence from a position on.
func (b *Base) Truncate(seq, from int) bool {
	b.cells.mu.Lock()
	defer b.cells.mu.Unlock()
	held := b.cells.held[seq]
	b.cells.held[seq] = held[:min(from, len(held))]
	return true
}

// CopyPrefix copies the beginning of one sequence to an empty one.
func (b *Base) CopyPrefix(from, to, tokens int) bool {
	b.cells.mu.Lock()
	defer b.cells.mu.Unlock()
	b.cells.held[to] = append(b.cells.held[to][:0], b.cells.held[from][:tokens]...)
	return true
}

// NewSampler ignores how tokens are to be drawn, except for the number of alternatives, of which there is one.
func (b *Base) NewSampler(s batch.Sampling, prompt, _ []batch.Token) (batch.Sampler, error) {
	sm := &sampler{prompt: len(prompt)}
	if s.TopLogprobs > 0 {
		sm.top = make([]batch.TopLogprob, 1)
	}
	return sm, nil
}

// Piece is the text of a token.
func (b *Base) Piece(t batch.Token) []byte { return piece(t) }

// IsEnd tells whether the token ends the answer.
func (b *Base) IsEnd(t batch.Token) bool { return t == endToken }

// sampler knows how long the prompt is.
type sampler struct {
	prompt int
	top    []batch.TopLogprob
}

func (s *sampler) Constrained() bool                  { return false }
func (s *sampler) Advance(int) ([]batch.Token, error) { return nil, nil }
func (s *sampler) Accept(batch.Token) error           { return nil }
func (s *sampler) Close()                             {}
func (s *sampler) Draw(int) (batch.Draw, error) {
	return batch.Draw{}, errors.New("mock: the sampler has no grammar")
}
