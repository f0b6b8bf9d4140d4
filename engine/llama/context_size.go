//go:build llama

package llama

import (
	"cmp"
	"math"
	"slices"

	"tandem/engine/models"
)

// contextSize is the size of a context that is to be made, and what decided it, for people.
type contextSize struct {
	sequenceTokens int // of one sequence at most
	cells          int // of all sequences together
	sequences      int
	limit          string // what decided the cells
	layout         models.KVLayout
	layoutLimit    string // what decided the layout
}

const (
	leastCells = 256 // the library rounds the cells up to a multiple of that, with streams those of each
	// The KV cache gets one part in so many of what the host has free, and with what computing over it takes no more
	// than one in so many: a small model's mask is larger than its cells, and so are scores of any. Other programs need
	// memory, too.
	hostCacheShare   = 4
	hostComputeShare = 2
	// defaultHostCells is the largest cache on a host unless KV_CELLS says otherwise.
	defaultHostCells = 65536
)

// chooseContextSize reduces the sizes in spec to what the model reads, by its training or as rope_scaling says, and to
// what the memory of the devices allows: a cell lies on all of them, a part of it with each layer, so the device with
// least room for its part decides. With some architectures a position beyond the trained context would end the process.
// Streams that nobody asked for are given up when they would make requests shorter. seenBytes is what computing takes
// of a cell for each token of a pass.
func chooseContextSize(spec models.BaseSpec, o Options, longest int, seenBytes int64, layout layoutChoice, devices []deviceShare) contextSize {
	full := contextSize{sequenceTokens: cmp.Or(spec.Context, defaultContext), sequences: max(spec.Parallel, 1), limit: "CONTEXT and PARALLEL"}
	if full.sequenceTokens > longest {
		full.sequenceTokens, full.limit = longest, "the model's context and PARALLEL"
	}
	full.layout, full.layoutLimit = layout.layout, layout.limit
	passBytes := seenBytes * int64(o.MicroBatch)
	if layout.layout == models.LayoutStreams {
		if streams := full.streams(o, devices, passBytes); !layout.auto || streams.sequenceTokens == full.sequenceTokens && streams.sequences == full.sequences {
			return streams
		}
		full.layout, full.layoutLimit = models.LayoutUnified, "streams have no room for CONTEXT tokens each: lower PARALLEL or CONTEXT"
	}
	return full.unified(o, devices, passBytes)
}

// unified is the size of a cache that all sequences share. passBytes is what computing a pass takes of a cell.
func (s contextSize) unified(o Options, devices []deviceShare, passBytes int64) contextSize {
	s.cells = s.sequenceTokens * s.sequences
	s.cutCells(o, devices, s.sequenceTokens, passBytes)
	s.cells = max(s.cells, leastCells)
	s.sequenceTokens = min(s.sequenceTokens, s.cells)
	return s
}

// streams is the size of a cache of which each sequence has an equal part. A pass sees one part for each of its tokens.
// Where the parts would be too short to be of use there are fewer.
func (s contextSize) streams(o Options, devices []deviceShare, passBytes int64) contextSize {
	stream := (s.sequenceTokens + leastCells - 1) / leastCells * leastCells
	s.cells = stream * s.sequences
	s.cutCells(o, devices, stream, passBytes/int64(s.sequences))
	if s.cells < leastCells*s.sequences {
		s.sequences = max(s.cells/leastCells, 1)
	}
	stream = max(s.cells/s.sequences/leastCells*leastCells, leastCells)
	s.cells = stream * s.sequences
	s.sequenceTokens = min(s.sequenceTokens, stream)
	return s
}

// cutCells reduces the cells to what the settings and the devices allow; a limit that no setting gave leaves a sequence
// of full length. passBytes is what a cell takes beside itself when it is computed over.
func (s *contextSize) cutCells(o Options, devices []deviceShare, sequenceCells int, passBytes int64) {
	most, by := max(o.CacheCells, leastCells), "KV_CELLS"
	if o.CacheCells <= 0 {
		most, by = mostCells(devices, sequenceCells), "the largest cache that is made in a host's memory without KV_CELLS"
	}
	s.cut(most, by)
	s.cut(cellsWithin(o.CacheBytes, devices), "the cache's limit in bytes")
	for i := range devices {
		if d := &devices[i]; d.cellBytes > 0 && d.free > 0 && o.CacheBytes <= 0 {
			s.cutForDevice(d, o.CacheCells > 0, passBytes)
		}
	}
}

// cutForDevice reduces the cells to those for which a device has memory. The rest of it is for other buffers, versions
// and, on a host, for what else runs there, unless somebody has said how many cells there shall be.
func (s *contextSize) cutForDevice(d *deviceShare, asked bool, passBytes int64) {
	if d.sharesHost() && !asked {
		s.cut(wholeCells(d.free/hostCacheShare, d.cellBytes), "a quarter of the free memory of "+d.name)
		s.cut(wholeCells(d.free/hostComputeShare, d.cellBytes+passBytes), "half of the free memory of "+d.name+", for cells and computing over them")
		return
	}
	s.cut(wholeCells(d.free/4*3, d.cellBytes+passBytes), "three quarters of the memory of "+d.name+" below the watermark, for cells and computing over them")
}

func (s *contextSize) cut(cells int, by string) {
	if cells < s.cells {
		s.cells, s.limit = cells, by
	}
}

// mostCells is the largest cache without KV_CELLS: memory of GPUs is for nothing else, so there is no limit.
func mostCells(devices []deviceShare, sequenceCells int) int {
	onHost := func(d deviceShare) bool { return d.cellBytes > 0 && d.sharesHost() }
	if !keptOnGPUs(devices) || slices.ContainsFunc(devices, onHost) {
		return max(defaultHostCells, sequenceCells)
	}
	return math.MaxInt
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
