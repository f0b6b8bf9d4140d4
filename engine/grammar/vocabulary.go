//go:build llama

package grammar

/*
#cgo LDFLAGS: -ltandem_llguidance -lm -ldl -lpthread
#include <stdlib.h>
#include "bridge.h"
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/cgo"
	"unsafe"
)

// Tokens is a model's vocabulary as a grammar sees it.
type Tokens struct {
	Texts [][]byte // by token id; empty for a token that no text can give
	Ends  []int32  // the tokens that end an answer, the preferred one first; at least one

	// Encode tokenises a text as the model was trained to read it, without tokens before or after it. Called from any goroutine.
	Encode func(text []byte) []int32
}

// Vocabulary is what all grammars of one model share: its tokens as a prefix tree. Safe from any goroutine.
type Vocabulary struct {
	handle *C.LlgTokenizer
	self   cgo.Handle
	tokens Tokens
	single [256]int32 // the token of each byte alone, -1: none
	end    int32
}

// probe is what a vocabulary must give back byte by byte for its Encode to be trusted with parts of an answer. Some tokenisers put a space
// before all that they read.
const probe = `{"name":"a b","n":[1, -2.5e3]}`

// NewVocabulary builds the tree: some tens of milliseconds and megabytes for 100,000 tokens.
func NewVocabulary(t Tokens) (*Vocabulary, error) {
	if len(t.Ends) == 0 {
		return nil, errors.New("the vocabulary has no end token, so no grammar could end an answer")
	}
	lens, size := make([]C.uint32_t, len(t.Texts)), 0
	for i, text := range t.Texts {
		lens[i] = C.uint32_t(len(text))
		size += len(text)
	}
	flat := make([]byte, 0, size+1)
	v := &Vocabulary{tokens: t, end: t.Ends[0]}
	for i := range v.single {
		v.single[i] = -1
	}
	for i, text := range t.Texts {
		flat = append(flat, text...)
		if len(text) == 1 && v.single[text[0]] < 0 {
			v.single[text[0]] = int32(i)
		}
	}
	ends := make([]C.uint32_t, len(t.Ends))
	for i, end := range t.Ends {
		ends[i] = C.uint32_t(end)
	}
	v.self = cgo.NewHandle(v)
	const errBytes = 256
	why := (*C.char)(C.calloc(1, errBytes))
	defer C.free(unsafe.Pointer(why))
	v.handle = C.tdm_grammar_vocabulary(C.uint32_t(len(t.Texts)), unsafe.SliceData(lens), (*C.uint8_t)(unsafe.SliceData(flat[:1])),
		unsafe.SliceData(ends), C.uint32_t(len(ends)), C.bool(v.faithful([]byte(probe))), C.uintptr_t(v.self), why, errBytes)
	if v.handle == nil {
		v.self.Delete()
		return nil, fmt.Errorf("build a prefix tree of %d tokens: %s", len(t.Texts), C.GoString(why))
	}
	return v, nil
}

// Close frees the tree. No Matcher may be left.
func (v *Vocabulary) Close() {
	if v.handle == nil {
		return
	}
	C.llg_free_tokenizer(v.handle)
	v.self.Delete()
	v.handle = nil
}

// faithful tells whether a text's tokens give that text again.
func (v *Vocabulary) faithful(text []byte) bool {
	if v.tokens.Encode == nil {
		return false
	}
	return v.spells(v.tokens.Encode(text), text)
}

func (v *Vocabulary) spells(tokens []int32, text []byte) bool {
	for _, t := range tokens {
		if t < 0 || int(t) >= len(v.tokens.Texts) || len(v.tokens.Texts[t]) == 0 || !bytes.HasPrefix(text, v.tokens.Texts[t]) {
			return false
		}
		text = text[len(v.tokens.Texts[t]):]
	}
	return len(text) == 0
}

// encode is Encode where that gives the text again, else a token for each byte.
func (v *Vocabulary) encode(text []byte) []int32 {
	if tokens := v.tokens.Encode(text); v.spells(tokens, text) {
		return tokens
	}
	var tokens []int32
	for _, b := range text {
		if v.single[b] < 0 {
			return nil
		}
		tokens = append(tokens, v.single[b])
	}
	return tokens
}

//export grammarTokenize
func grammarTokenize(handle C.uintptr_t, text *C.uint8_t, n C.size_t, out *C.uint32_t, most C.size_t) C.size_t {
	v, ok := cgo.Handle(handle).Value().(*Vocabulary)
	if !ok || n == 0 {
		return 0
	}
	tokens := v.encode(bytes.Clone(unsafe.Slice((*byte)(text), int(n))))
	for i, t := range tokens[:min(len(tokens), int(most))] {
		unsafe.Slice(out, int(most))[i] = C.uint32_t(t)
	}
	return C.size_t(len(tokens))
}
