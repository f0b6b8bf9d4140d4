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
	limit          string // what decided the cells, for people
}

const (
	leastCells = 256 // the library rounds up to that
	// The KV cache gets one part in so many of what a device has free, and with what computing over it takes no more
	// than one in so many: a small model's mask is larger than its cells.
	cacheShare   = 4
	computeShare = 2
	maskBytes    = 2 * microBatch // of a cell: each token of a pass sees it or not; more without flash attention
)

// chooseContextSize reduces the sizes in spec to what the model reads, by its training or as rope_scaling says, and to
// what the memory of the devices allows: a cell lies on all of them, a part of it with each layer, so the device with
// least room for its part decides. With some architectures a position beyond the trained context would end the process.
func chooseContextSize(spec models.BaseSpec, o Options, longest int, devices []deviceShare) contextSize {
	size := contextSize{sequenceTokens: spec.Context, sequences: max(spec.Parallel, 1), limit: "CONTEXT and PARALLEL"}
	if size.sequenceTokens == 0 {
		size.sequenceTokens = defaultContext
	}
	if size.sequenceTokens > longest {
		size.sequenceTokens, size.limit = longest, "the model's context and PARALLEL"
	}
	size.cells = size.sequenceTokens * size.sequences
	if most := max(o.CacheCells, size.sequenceTokens); size.cells > most {
		size.cells, size.limit = most, "the largest cache that is made"
	}
	if cells := cellsWithin(o.CacheBytes, devices); cells < size.cells {
		size.cells, size.limit = cells, "the cache's limit in bytes"
	}
	for _, d := range devices {
		if d.cellBytes == 0 || d.free <= 0 || o.CacheBytes > 0 {
			continue
		}
		if cells := wholeCells(d.free/cacheShare, d.cellBytes); cells < size.cells {
			size.cells, size.limit = cells, "a quarter of the free memory of "+d.name
		}
		if cells := wholeCells(d.free/computeShare, d.cellBytes+maskBytes); cells < size.cells {
			size.cells, size.limit = cells, "half of the free memory of "+d.name+", for cells and computing over them"
		}
	}
	size.cells = max(size.cells, leastCells)
	size.sequenceTokens = min(size.sequenceTokens, size.cells)
	return size
}

// cellsWithin is how many cells so many bytes hold, on all devices together; 0 bytes: no limit.
func cellsWithin(bytes int64, devices []deviceShare) int {
	var cellBytes int64
	for _, d := range devices {
		cellBytes += d.cellBytes
	}
	if bytes <= 0 || cellBytes == 0 {
		return math.MaxInt
	}
	return wholeCells(bytes, cellBytes)
}

func wholeCells(bytes, cellBytes int64) int { return int(min(bytes/cellBytes, math.MaxInt32/2)) }
