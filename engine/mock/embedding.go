package mock

import (
	"context"
	"fmt"
	"math"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// embeddingSize is how many numbers an embedding has.
const embeddingSize = 16

// separator stands between query and document in the tokens of a score; no text has it.
const separator = endToken

// Tokenize has no tokens around a text, so special changes nothing.
func (b *Base) Tokenize(ctx context.Context, text string, _ bool, limit int) ([]int32, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("tokenise for %s: %w", b.spec.Name, err)
	}
	tokens := tokenise(text)
	if len(tokens) > limit {
		return nil, fmt.Errorf("tokenise for %s: %d tokens: %w", b.spec.Name, len(tokens), models.ErrPromptTooLong)
	}
	return tokens, nil
}

// Detokenize gives the text of tokens.
func (b *Base) Detokenize(tokens []int32) ([]byte, error) {
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	return detokenise(tokens), nil
}

// checkTokens refuses ids that aren't in the vocabulary.
func checkTokens(tokens []batch.Token) error {
	for i, t := range tokens {
		if t < 0 || int(t) >= len(pieces) {
			return &models.TokenError{Token: t, Place: i}
		}
	}
	return nil
}

// ScoreTokens are those of the query, a separator, and those of the document.
func (b *Base) ScoreTokens(ctx context.Context, query, document string) ([]int32, error) {
	first, err := b.Tokenize(ctx, query, false, b.facts.ContextTokens)
	if err != nil {
		return nil, err
	}
	rest, err := b.Tokenize(ctx, document, false, b.facts.ContextTokens-min(len(first)+1, b.facts.ContextTokens))
	if err != nil {
		return nil, err
	}
	return append(append(first, separator), rest...), nil
}

// Embed makes the vector of the tokens and how often each is there, whatever their order: equal texts have equal
// vectors, and texts that share words have similar ones. A score is the share of the query's tokens that the document
// has.
func (b *Base) Embed(ctx context.Context, task models.Task, adapter models.Adapter, tokens []int32) ([]float32, error) {
	if err := checkTokens(tokens); err != nil {
		return nil, fmt.Errorf("embed for %s: %w", b.spec.Name, err)
	}
	if len(tokens) > b.facts.ContextTokens {
		return nil, fmt.Errorf("embed for %s: %d tokens: %w", b.spec.Name, len(tokens), models.ErrPromptTooLong)
	}
	if a, ok := adapter.(*Adapter); ok && a.closed.Load() {
		return nil, fmt.Errorf("embed with version %s: %w", a.name, errClosed)
	}
	if err := sleep(ctx, b.backend.opts.TokenDelay); err != nil {
		return nil, fmt.Errorf("embed for %s: %w", b.spec.Name, err)
	}
	if task == models.TaskScore {
		return []float32{overlap(tokens)}, nil
	}
	return hashVector(tokens), nil
}

// hashVector adds up a fixed direction for each token and gives the sum length 1.
func hashVector(tokens []batch.Token) []float32 {
	sum := make([]float64, embeddingSize)
	sum[0] = 1 // the empty text has a direction, too
	for _, t := range tokens {
		h := uint64(t) + 1
		for i := range sum {
			h ^= h >> 33 // a step of a 64-bit mixing function
			h *= 0xff51afd7ed558ccd
			sum[i] += float64(int64(h)) / (1 << 63)
		}
	}
	length := 0.0
	for _, x := range sum {
		length += x * x
	}
	out := make([]float32, len(sum))
	for i, x := range sum {
		out[i] = float32(x / math.Sqrt(length))
	}
	return out
}

// overlap is the share of the tokens before the separator that are behind it as well.
func overlap(tokens []batch.Token) float32 {
	at := 0
	for at < len(tokens) && tokens[at] != separator {
		at++
	}
	if at == 0 || at == len(tokens) {
		return 0
	}
	in := make(map[batch.Token]bool)
	for _, t := range tokens[at+1:] {
		in[t] = true
	}
	n := 0
	for _, t := range tokens[:at] {
		if in[t] {
			n++
		}
	}
	return float32(n) / float32(at)
}
