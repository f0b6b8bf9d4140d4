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
		Vocabulary: len(pieces), MixedAdapters: true,
	}
}

// Step fills the cache and echoes: each token of the answer is the one at the same position in the prompt, read from
// the cache.
func (b *Base) Step(slices []batch.Slice) error {
	for i := range slices {
		if a, ok := slices[i].Adapter.(*Adapter); ok && a.closed.Load() {
			return fmt.Errorf("step with version %s: %w", a.name, errClosed)
		}
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
	s.Scores = s.Scores[:0]
	for _, t := range s.Score.Targets {
		s.Scores = append(s.Scores, batch.TokenScore{Logprob: logprobOf(0), Top: topTokens(t, s.Score.Top)})
	}
	sm, ok := s.Sampler.(*sampler)
	if !ok {
		return 0
	}
	t := sm.next(tokens, s.Index)
	s.Draw = batch.Draw{Token: t, Logprob: sm.logprob, Margin: float32(math.Inf(1)), Top: topTokens(t, sm.topLogprobs)}
	return b.backend.opts.TokenDelay
}

// next is the token of the answer at a place. An answer that ignores its end repeats the prompt, with a space for each
// end token in it.
func (s *sampler) next(prompt []batch.Token, index int) batch.Token {
	if !s.ignoreEnd && index >= s.promptTokens {
		return endToken
	}
	t := prompt[index%s.promptTokens]
	if s.ignoreEnd && t == endToken {
		return firstByte + ' '
	}
	return t
}

// logprobOf is the log-probability that the mock gives a token and, from place 1 on, its alternatives.
func logprobOf(place int) float32 { return -0.25 - 2*float32(place) }

// topTokens is a token and what follows it in the vocabulary.
func topTokens(t batch.Token, n int) []batch.TopLogprob {
	var top []batch.TopLogprob
	for i := range n {
		top = append(top, batch.TopLogprob{Token: (t + batch.Token(i)) % batch.Token(len(pieces)), Logprob: logprobOf(i)})
	}
	return top
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

// NewSampler ignores the sampling parameters, except those about log-probabilities and IgnoreEnd.
func (b *Base) NewSampler(s batch.Sampling, prompt, _ []batch.Token) (batch.Sampler, error) {
	sm := &sampler{promptTokens: len(prompt), ignoreEnd: s.IgnoreEnd, topLogprobs: s.TopLogprobs, logprob: float32(math.NaN())}
	if s.Logprobs || s.TopLogprobs > 0 {
		sm.logprob = logprobOf(0)
	}
	return sm, nil
}

// Piece is the text of a token.
func (b *Base) Piece(t batch.Token) []byte { return piece(t) }

// TokenText is the text of a token, and a name for the end token.
func (b *Base) TokenText(t batch.Token) []byte {
	if t == endToken {
		return []byte("<end>")
	}
	return piece(t)
}

// IsEnd reports whether the token ends the answer.
func (b *Base) IsEnd(t batch.Token) bool { return t == endToken }

// sampler echoes.
type sampler struct {
	promptTokens int
	ignoreEnd    bool
	topLogprobs  int
	logprob      float32 // of every token; NaN: not asked for
}

func (s *sampler) Constrained() bool                  { return false }
func (s *sampler) Advance(int) ([]batch.Token, error) { return nil, nil }
func (s *sampler) Accept(batch.Token) error           { return nil }
func (s *sampler) Close()                             {}
func (s *sampler) Draw(int) (batch.Draw, error) {
	return batch.Draw{}, errors.New("mock: the sampler has no grammar")
}
