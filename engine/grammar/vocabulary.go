//go:build llama

package grammar

/*
#cgo LDFLAGS: -ltandem_llguidance -lm -ldl -lpthread
#include <stdlib.h>
#include "llguidance_bridge.h"
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/cgo"
	"slices"
	"unsafe"
)

// Tokens is a model's vocabulary in the form that grammars need.
type Tokens struct {
	Texts [][]byte // by token id; empty for a token that no text can give
	Ends  []int32  // the tokens that end an answer, the preferred one first; at least one

	// Encode tokenises a text as the model was trained to read it, without adding tokens before or after it. Called
	// from any goroutine.
	Encode func(text []byte) []int32
}

// Vocabulary is shared by all grammars of one model: its tokens as a prefix tree. Safe from any goroutine.
type Vocabulary struct {
	handle     *C.LlgTokenizer
	cgoHandle  cgo.Handle
	tokens     Tokens
	byteTokens [256]int32 // the token of each byte alone, -1: none
	end        int32
	controls   map[string]int32 // texts of control tokens that don't end an answer
}

// ControlMark begins the texts of control tokens. No text has this byte, so they match nothing but themselves.
const ControlMark = 0xff

// roundTripProbe must be the text of its own tokens for Encode to be used on parts of an answer. Some tokenisers put a
// space before every text.
const roundTripProbe = `{"name":"a b","n":[1, -2.5e3]}`

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
	v := &Vocabulary{tokens: t, end: t.Ends[0], controls: make(map[string]int32)}
	for i := range v.byteTokens {
		v.byteTokens[i] = -1
	}
	for i, text := range t.Texts {
		flat = append(flat, text...)
		if len(text) == 1 && v.byteTokens[text[0]] < 0 {
			v.byteTokens[text[0]] = int32(i)
		}
		if len(text) > 1 && text[0] == ControlMark && !slices.Contains(t.Ends, int32(i)) {
			v.controls[string(text[1:])] = int32(i)
		}
	}
	ends := make([]C.uint32_t, len(t.Ends))
	for i, end := range t.Ends {
		ends[i] = C.uint32_t(end)
	}
	v.cgoHandle = cgo.NewHandle(v)
	const errBytes = 256
	errText := (*C.char)(C.calloc(1, errBytes))
	defer C.free(unsafe.Pointer(errText))
	v.handle = C.tdm_grammar_vocabulary(C.uint32_t(len(t.Texts)), unsafe.SliceData(lens), (*C.uint8_t)(unsafe.SliceData(flat[:1])),
		unsafe.SliceData(ends), C.uint32_t(len(ends)), C.bool(v.roundTrips([]byte(roundTripProbe))), C.uintptr_t(v.cgoHandle), errText, errBytes)
	if v.handle == nil {
		v.cgoHandle.Delete()
		return nil, fmt.Errorf("build a prefix tree of %d tokens: %s", len(t.Texts), C.GoString(errText))
	}
	return v, nil
}

// Close frees the tree. No Matcher may be left.
func (v *Vocabulary) Close() {
	if v.handle == nil {
		return
	}
	C.llg_free_tokenizer(v.handle)
	v.cgoHandle.Delete()
	v.handle = nil
}

// roundTrips reports whether the texts of a text's tokens are that text again.
func (v *Vocabulary) roundTrips(text []byte) bool {
	if v.tokens.Encode == nil {
		return false
	}
	return v.tokensSpell(v.tokens.Encode(text), text)
}

func (v *Vocabulary) tokensSpell(tokens []int32, text []byte) bool {
	for _, t := range tokens {
		if t < 0 || int(t) >= len(v.tokens.Texts) || len(v.tokens.Texts[t]) == 0 || !bytes.HasPrefix(text, v.tokens.Texts[t]) {
			return false
		}
		text = text[len(v.tokens.Texts[t]):]
	}
	return len(text) == 0
}

// encodeText is Encode where its tokens spell the text again, else a token for each byte.
func (v *Vocabulary) encodeText(text []byte) []int32 {
	if tokens := v.tokens.Encode(text); v.tokensSpell(tokens, text) {
		return tokens
	}
	var tokens []int32
	for _, b := range text {
		if v.byteTokens[b] < 0 {
			return nil
		}
		tokens = append(tokens, v.byteTokens[b])
	}
	return tokens
}

//export grammarTokenize
func grammarTokenize(handle C.uintptr_t, text *C.uint8_t, n C.size_t, out *C.uint32_t, most C.size_t) C.size_t {
	v, ok := cgo.Handle(handle).Value().(*Vocabulary)
	if !ok || n == 0 {
		return 0
	}
	tokens := v.encodeText(bytes.Clone(unsafe.Slice((*byte)(text), int(n))))
	for i, t := range tokens[:min(len(tokens), int(most))] {
		unsafe.Slice(out, int(most))[i] = C.uint32_t(t)
	}
	return C.size_t(len(tokens))
}
