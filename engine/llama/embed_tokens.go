//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"strings"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// textEnds are the tokens that a model has around a whole text, and between two; nil: none.
type textEnds struct {
	before  []batch.Token
	after   []batch.Token
	between []batch.Token // query and document of a score
	last    []batch.Token // after the document
}

// readTextEnds follows what the library does when it is asked for special tokens. There a vocabulary of WordPiece that
// lacks one of them would end the process.
func readTextEnds(handle *C.struct_llama_vocab) textEnds {
	var e textEnds
	one := func(t C.llama_token) []batch.Token {
		if t < 0 {
			return nil
		}
		return []batch.Token{batch.Token(t)}
	}
	begin, end, separator := one(C.llama_vocab_bos(handle)), one(C.llama_vocab_eos(handle)), one(C.llama_vocab_sep(handle))
	addsBegin, addsEnd, addsSeparator := bool(C.llama_vocab_get_add_bos(handle)), bool(C.llama_vocab_get_add_eos(handle)), bool(C.llama_vocab_get_add_sep(handle))
	switch C.llama_vocab_type(handle) {
	case C.LLAMA_VOCAB_TYPE_WPM:
		e.before, e.after = begin, separator
	case C.LLAMA_VOCAB_TYPE_RWKV:
	default:
		if addsBegin {
			e.before = begin
		}
		if addsEnd {
			e.after = end
		}
	}
	if end == nil {
		end = separator
	}
	if addsEnd {
		e.between, e.last = append(e.between, end...), end
	}
	if addsSeparator {
		e.between = append(e.between, separator...)
	}
	if len(e.last) == 0 { // a cross-encoder was trained with a separator at the end as well
		e.last = e.after
	}
	return e
}

// Tokenize gives the tokens of a text, of which none becomes a control token.
func (b *Base) Tokenize(ctx context.Context, text string, special bool, limit int) ([]batch.Token, error) {
	var before, after []batch.Token
	if special {
		before, after = b.ends.before, b.ends.after
	}
	e := encoder{vocab: b.vocab, ctx: ctx, limit: limit}
	e.plainText(text, before)
	e.fixed(after)
	if e.err != nil {
		return nil, fmt.Errorf("tokenise %d bytes: %w", len(text), e.err)
	}
	return e.out, nil
}

// Detokenize gives the text of tokens, control tokens written out.
func (b *Base) Detokenize(tokens []batch.Token) ([]byte, error) {
	if err := b.checkTokens(tokens); err != nil {
		return nil, err
	}
	var text []byte
	for _, t := range tokens {
		text = append(text, b.vocab.piece(t)...)
		if b.vocab.flags[t]&(C.TDM_CONTROL|C.TDM_UNKNOWN) != 0 {
			text = append(text, C.GoString(C.llama_vocab_get_text(b.vocab.handle, C.llama_token(t)))...)
		}
	}
	return text, nil
}

func (b *Base) checkTokens(tokens []batch.Token) error {
	for i, t := range tokens {
		if !b.vocab.valid(t) {
			return &models.TokenError{Token: t, Place: i}
		}
	}
	return nil
}

// ScoreTokens gives what a reranker reads: its template filled in, or query and document with the model's own tokens
// around and between them.
func (b *Base) ScoreTokens(ctx context.Context, query, document string) ([]batch.Token, error) {
	e := encoder{vocab: b.vocab, ctx: ctx, limit: b.limits.SequenceMax}
	if b.rerankTemplate != "" {
		e.parts(fillTemplate(b.rerankTemplate, query, document))
	} else {
		e.plainText(query, b.ends.before)
		e.plainText(document, b.ends.between)
		e.fixed(b.ends.last)
	}
	if e.err != nil {
		return nil, fmt.Errorf("tokenise a query of %d bytes and a document of %d: %w", len(query), len(document), e.err)
	}
	return e.out, nil
}

// rerankTemplate is the prompt that a reranker was trained with, if its file has one: with {query} and {document}.
func rerankTemplate(model *C.struct_llama_model) string {
	name := C.CString("rerank")
	defer C.free(unsafe.Pointer(name))
	text := C.llama_model_chat_template(model, name)
	if text == nil {
		return ""
	}
	return C.GoString(text)
}

// fillTemplate puts the texts into the places that the template has for them.
func fillTemplate(template, query, document string) []promptPart {
	var parts []promptPart
	for template != "" {
		at, mark, text := len(template), "", ""
		for m, t := range map[string]string{"{query}": query, "{document}": document} {
			if i := strings.Index(template, m); i >= 0 && i < at {
				at, mark, text = i, m, t
			}
		}
		parts = append(parts, promptPart{text: []byte(template[:at])})
		if mark != "" {
			parts = append(parts, promptPart{text: []byte(text), fromClient: true})
		}
		template = template[at+len(mark):]
	}
	return parts
}

// plainText adds tokens and then a text.
func (e *encoder) plainText(text string, before []batch.Token) {
	e.fixed(before)
	if e.err == nil && len(text) > e.limit*e.vocab.longest && !e.vocab.shortens() {
		e.err = models.ErrPromptTooLong
	}
	if e.err == nil {
		e.encodePlain([]byte(text))
	}
}

// shortens reports whether the tokeniser may make few tokens of much text: WordPiece drops white space, and makes one
// token of a long word that it doesn't know.
func (v *vocab) shortens() bool { return C.llama_vocab_type(v.handle) == C.LLAMA_VOCAB_TYPE_WPM }

// fixed adds tokens as they are.
func (e *encoder) fixed(tokens []batch.Token) {
	if e.err != nil {
		return
	}
	e.out = append(e.out, tokens...)
	if len(e.out) > e.limit {
		e.err = models.ErrPromptTooLong
	}
}
