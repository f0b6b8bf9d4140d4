//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"math"
	"strconv"

	"tandem/engine/models"
)

// contextSize is the size of a context that is to be made.
type contextSize struct {
	sequenceTokens int // of one sequence at most
	cells          int
	sequences      int
}

// chooseContextSize reduces the sizes in spec to what the model was trained for and what memory allows. With some
// architectures a position beyond the trained context would end the process.
func chooseContextSize(spec models.BaseSpec, o Options, trained int, cellBytes, freeBytes int64) contextSize {
	size := contextSize{sequenceTokens: spec.Context, sequences: max(spec.Parallel, 1)}
	if size.sequenceTokens == 0 {
		size.sequenceTokens = defaultContext
	}
	size.sequenceTokens = min(size.sequenceTokens, trained)
	size.cells = min(size.sequenceTokens*size.sequences, max(o.CacheCells, size.sequenceTokens))
	budget := o.CacheBytes
	switch {
	case budget > 0:
	case spec.FreeBytes > 0: // even 1 byte is a budget
		budget = max(min(freeBytes, spec.FreeBytes)/4, 1)
	default:
		budget = freeBytes / 4
	}
	if cellBytes > 0 && budget > 0 {
		size.cells = min(size.cells, int(min(budget/cellBytes, math.MaxInt32/2)))
	}
	size.cells = max(size.cells, 256) // the library rounds up to that
	size.sequenceTokens = min(size.sequenceTokens, size.cells)
	return size
}

// cellBytes is the memory of one token in the KV cache, by the model's own numbers; an estimate where layers differ.
func cellBytes(model *C.struct_llama_model) int64 {
	layers, heads := int64(C.llama_model_n_layer(model)), int64(C.llama_model_n_head(model))
	headsKV := int64(C.llama_model_n_head_kv(model))
	if heads <= 0 {
		return 0
	}
	width := int64(C.llama_model_n_embd(model)) / heads
	arch := meta(model, "general.architecture")
	key, value := width, width
	if n, err := strconv.ParseInt(meta(model, arch+".attention.key_length"), 10, 32); err == nil {
		key = n
	}
	if n, err := strconv.ParseInt(meta(model, arch+".attention.value_length"), 10, 32); err == nil {
		value = n
	}
	const bytesF16 = 2
	return layers * headsKV * (key + value) * bytesF16
}
