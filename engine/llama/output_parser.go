//go:build llama

package llama

import (
	"tandem/engine/batch"
	"tandem/engine/models"
)

// contentOnly is the parser state of answers that are content as a whole.
const contentOnly = "content 1"

// NewParser returns the parser of one answer.
func (b *Base) NewParser(state []byte) (models.Parser, error) { return nil, nil }

// WriteOut is the text of tokens, control tokens as they are written.
func (b *Base) WriteOut(tokens []int32) []byte {
	var text []byte
	for _, t := range tokens {
		text = append(text, b.vocab.written(batch.Token(t))...)
	}
	return text
}
