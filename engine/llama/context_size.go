//go:build llama

package llama

import (
	"math"

	"tandem/engine/models"
)

// contextSize is the size of a context that is to be made.
type contextSize struct {
	sequenceTokens int // of one sequence at most
	cells          int
	sequences      int
}

// chooseContextSize reduces the sizes in spec to what the model reads, by its training or as rope_scaling says, and to
// what memory allows. With some
// architectures a position beyond the trained context would end the process.
func chooseContextSize(spec models.BaseSpec, o Options, longest int, cellBytes, freeBytes int64) contextSize {
	size := contextSize{sequenceTokens: spec.Context, sequences: max(spec.Parallel, 1)}
	if size.sequenceTokens == 0 {
		size.sequenceTokens = defaultContext
	}
	size.sequenceTokens = min(size.sequenceTokens, longest)
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
