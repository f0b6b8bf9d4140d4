package link

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"tandem/engine/models"
)

func (b *fakeBase) Tokenize(_ context.Context, text string, special bool, limit int) ([]int32, error) {
	var tokens []int32
	if special {
		tokens = append(tokens, '^')
	}
	for _, c := range []byte(text) {
		tokens = append(tokens, int32(c))
	}
	if len(tokens) > limit {
		return nil, models.ErrPromptTooLong
	}
	return tokens, nil
}

// longToken is a token with a text of 64 bytes.
const longToken = 200

func (b *fakeBase) Detokenize(tokens []int32) ([]byte, error) {
	var text []byte
	for i, t := range tokens {
		if t < 0 || t > 255 {
			return nil, &models.TokenError{Token: t, Place: i}
		}
		if t == longToken {
			text = append(text, bytes.Repeat([]byte{' '}, 64)...)
			continue
		}
		text = append(text, byte(t))
	}
	return text, nil
}

func (b *fakeBase) ScoreTokens(ctx context.Context, query, document string) ([]int32, error) {
	return b.Tokenize(ctx, query+"|"+document, false, contextTokens)
}

// Embed gives the number of tokens, then the first and the last one. With an embedGate it waits for that.
func (b *fakeBase) Embed(ctx context.Context, task models.Task, _ models.Adapter, tokens []int32) ([]float32, error) {
	if b.backend.embedGate != nil {
		b.backend.embedStarted <- struct{}{}
		select {
		case <-b.backend.embedGate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	switch {
	case b.backend.embedError != nil:
		return nil, b.backend.embedError
	case slices.Max(tokens) > 255:
		return nil, fmt.Errorf("embed: %w", &models.TokenError{Token: slices.Max(tokens), Place: slices.Index(tokens, slices.Max(tokens))})
	case task == models.TaskScore:
		return []float32{float32(len(tokens))}, nil
	}
	return []float32{float32(len(tokens)), float32(tokens[0]), float32(tokens[len(tokens)-1])}, nil
}
