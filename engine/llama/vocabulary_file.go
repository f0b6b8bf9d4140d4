//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/grammar"
)

// Vocabulary is a model's vocabulary without its weights, for testing grammars on it.
type Vocabulary struct {
	*grammar.Vocabulary
	model *C.struct_llama_model
	vocab *vocab
}

// OpenVocabulary reads the vocabulary of a GGUF file. Close it.
func OpenVocabulary(path string) (*Vocabulary, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	errBuf := newErrorBuffer()
	defer errBuf.free()
	params := C.tdm_load{vocab_only: true}
	v := &Vocabulary{model: C.tdm_model_load(cpath, &params, errBuf.text, errBuf.size)}
	if v.model == nil {
		return nil, fmt.Errorf("read the vocabulary of %s: %w", path, errBuf.err())
	}
	var err error
	if v.vocab, err = readVocab(v.model); err == nil {
		v.Vocabulary, err = grammar.NewVocabulary(v.vocab.grammarTokens())
	}
	if err != nil {
		C.tdm_model_free(v.model)
		return nil, fmt.Errorf("read the vocabulary of %s: %w", path, err)
	}
	return v, nil
}

// Size is the number of tokens.
func (v *Vocabulary) Size() int { return v.vocab.size() }

// Encode tokenises a part of an answer; nil when that fails.
func (v *Vocabulary) Encode(text []byte) []batch.Token { return v.vocab.encodePlain(text) }

// IsEnd reports whether the token ends an answer.
func (v *Vocabulary) IsEnd(t batch.Token) bool { return v.vocab.isEnd(t) }

// Close frees everything.
func (v *Vocabulary) Close() {
	v.Vocabulary.Close()
	C.tdm_model_free(v.model)
}
