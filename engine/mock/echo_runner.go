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

// kvCache is the tokens in the cache, by sequence. The lock is for Close, which may be called on another goroutine.
type kvCache struct {
	mu        sync.Mutex
	closed    bool
	sequences [][]batch.Token
}

func newKVCache(sequences int) kvCache {
	return kvCache{sequences: make([][]batch.Token, sequences)}
}

func (c *kvCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// Limits of the base.
func (b *Base) Limits() batch.Limits {
	return batch.Limits{
		Cells: b.facts.Cells, Sequences: b.facts.Sequences, SequenceMax: b.facts.ContextTokens, StepTokens: stepTokens, Prefix: true,
	}
}

// Step fills the cache and echoes: each token of the answer is the one at the same position in the prompt, read from
// the cache.
func (b *Base) Step(adapter batch.Adapter, slices []batch.Slice) error {
	if a, ok := adapter.(*Adapter); ok && a.closed.Load() {
		return fmt.Errorf("step with version %s: %w", a.name, errClosed)
	}
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	if b.cache.closed {
		return fmt.Errorf("step of %s: %w", b.spec.Name, errClosed)
	}
	var took time.Duration
	for i := range slices {
		took = max(took, b.decodeSlice(&slices[i]))
	}
	time.Sleep(took + b.prefillTime(slices))
	return nil
}

// decodeSlice decodes one slice and returns how long its draw takes.
func (b *Base) decodeSlice(s *batch.Slice) time.Duration {
	tokens := b.cache.sequences[s.Seq]
	if s.Start != len(tokens) {
		s.Err = fmt.Errorf("sequence %d: position %d, but the cache holds %d tokens", s.Seq, s.Start, len(tokens))
		return 0
	}
	tokens = append(tokens, s.Tokens...)
	b.cache.sequences[s.Seq] = tokens
	sm, ok := s.Sampler.(*sampler)
	if !ok {
		return 0
	}
	t := endToken
	if s.Index < sm.promptTokens {
		t = tokens[s.Index]
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

// Truncate removes the tokens of a sequence from a position on.
func (b *Base) Truncate(seq, from int) bool {
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	tokens := b.cache.sequences[seq]
	b.cache.sequences[seq] = tokens[:min(from, len(tokens))]
	return true
}

// CopyPrefix copies the beginning of one sequence to an empty one.
func (b *Base) CopyPrefix(from, to, tokens int) bool {
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	b.cache.sequences[to] = append(b.cache.sequences[to][:0], b.cache.sequences[from][:tokens]...)
	return true
}

// NewSampler ignores the sampling parameters, except that with TopLogprobs there is one alternative.
func (b *Base) NewSampler(s batch.Sampling, prompt, _ []batch.Token) (batch.Sampler, error) {
	sm := &sampler{promptTokens: len(prompt)}
	if s.TopLogprobs > 0 {
		sm.top = make([]batch.TopLogprob, 1)
	}
	return sm, nil
}

// Piece is the text of a token.
func (b *Base) Piece(t batch.Token) []byte { return piece(t) }

// IsEnd reports whether the token ends the answer.
func (b *Base) IsEnd(t batch.Token) bool { return t == endToken }

// sampler echoes: it knows only the prompt's length.
type sampler struct {
	promptTokens int
	top          []batch.TopLogprob
}

func (s *sampler) Constrained() bool                  { return false }
func (s *sampler) Advance(int) ([]batch.Token, error) { return nil, nil }
func (s *sampler) Accept(batch.Token) error           { return nil }
func (s *sampler) Close()                             {}
func (s *sampler) Draw(int) (batch.Draw, error) {
	return batch.Draw{}, errors.New("mock: the sampler has no grammar")
}
