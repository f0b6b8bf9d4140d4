package models

import (
	"context"
	"errors"
	"fmt"
)

// TextCoder turns plain text into tokens and back. Both are safe from any goroutine.
type TextCoder interface {
	// Tokenize gives the tokens of a text, of which none becomes a control token. special: with the tokens that the
	// model has around every text. ErrPromptTooLong: there are more than limit.
	Tokenize(ctx context.Context, text string, special bool, limit int) ([]int32, error)
	// Detokenize gives the text of tokens, control tokens written out. ErrToken: one isn't in the vocabulary.
	Detokenize(tokens []int32) ([]byte, error)
}

// Embedder computes one vector for a whole text.
type Embedder interface {
	// ScoreTokens gives the tokens that a model with scores reads for a query and a document, of which no text becomes
	// a control token. ErrPromptTooLong as in Tokenize.
	ScoreTokens(ctx context.Context, query, document string) ([]int32, error)
	// Embed computes what task asks for; it waits for its turn on the device and ends with ctx. Adapter nil: the base
	// alone. Errors: ErrNoTask, ErrToken, ErrPromptTooLong, ErrEmbeddingsFull, ErrEmbeddingMemory.
	Embed(ctx context.Context, task Task, adapter Adapter, tokens []int32) ([]float32, error)
}

// Task is what a text is read for, when no answer is wanted.
type Task uint8

// Tasks of an Embedder.
const (
	TaskEmbed Task = iota + 1 // Facts.EmbeddingSize numbers, of length 1 as a vector
	TaskScore                 // one number: how well query and document fit
)

// Errors of a TextCoder or an Embedder.
var (
	ErrToken           = errors.New("no token of the model's vocabulary")
	ErrNoTask          = errors.New("the model can't do that")
	ErrEmbeddingsFull  = errors.New("too many texts wait for their embedding")
	ErrEmbeddingMemory = errors.New("no memory is left for embeddings")
)

// Pooling is how the vectors of a text's tokens become one.
type Pooling uint8

// Poolings; auto is what the model's file says, and the mean when it says nothing.
const (
	PoolingAuto Pooling = iota
	PoolingMean
	PoolingCLS  // the first token's
	PoolingLast // the last token's
	PoolingRank // a classifier's score, in place of a vector
)

var poolingNames = map[string]Pooling{"": PoolingAuto, "mean": PoolingMean, "cls": PoolingCLS, "last": PoolingLast, "rank": PoolingRank}

// parsePooling reads the value of pooling in model.yaml.
func parsePooling(name string) (Pooling, error) {
	p, ok := poolingNames[name]
	if !ok {
		return PoolingAuto, fmt.Errorf("pooling %.100q: must be mean, cls, last or rank", name)
	}
	return p, nil
}

// TokenError says which token that a client gave isn't in the vocabulary. It wraps ErrToken.
type TokenError struct {
	Token int32
	Place int
}

func (e *TokenError) Error() string {
	return fmt.Sprintf("token %d at place %d isn't in the model's vocabulary", e.Token, e.Place)
}

func (e *TokenError) Unwrap() error { return ErrToken }
