package devices

import "math"

// Placement says on which devices the weights of a model go, as the settings have it.
type Placement struct {
	Layers  int       // of a model on accelerators; 0: none, negative: all
	One     bool      // on Main alone
	Main    int       // number of an accelerator
	Shares  []float32 // of each accelerator; empty: by free memory
	Highest float64   // share (0 to 1) of a device's memory that may be in use
}

// Fits tells whether weights of that size can be loaded without passing the watermark of any device they go to. A device of which nobody
// tells the size (Total is 0) takes anything: there, loading is the test.
func (p *Placement) Fits(bytes uint64, host Memory, accelerators []Memory) bool {
	if p.Layers == 0 || len(accelerators) == 0 {
		return bytes <= host.room(p.Highest)
	}
	if p.One {
		if p.Main < 0 || p.Main >= len(accelerators) {
			return true // the load says what is wrong
		}
		accelerators = accelerators[p.Main : p.Main+1]
	}
	if p.Layers > 0 { // how much of the model that is, only the load finds out; it can't be more than what there is
		room := host.room(p.Highest)
		for _, m := range accelerators {
			room = sum(room, m.room(p.Highest))
		}
		return bytes <= room
	}
	for i, part := range p.parts(bytes, accelerators) {
		if part > accelerators[i].room(p.Highest) {
			return false
		}
	}
	return true
}

// Holds tells whether free memory can hold weights of that size, whatever the watermark: for a load beside which nothing is loaded. What is
// free doesn't have to hold the weights alone, a load needs a little more.
func (p *Placement) Holds(bytes uint64, host Memory, accelerators []Memory) bool {
	all := *p
	all.Highest = 1
	return all.Fits(sum(bytes, bytes/besideWeights), host, accelerators)
}

// besideWeights is the part of the weights' size that a context takes at least, for its buffers and a short cache.
const besideWeights = 32

// Left is how much of the host's memory may still be filled when weights of that size are there, at least 1. 0: they go elsewhere, or
// nobody tells.
func (p *Placement) Left(bytes uint64, host Memory, accelerators []Memory) uint64 {
	if host.Total == 0 || p.Layers != 0 && len(accelerators) > 0 {
		return 0
	}
	room := host.room(p.Highest)
	if bytes > room { // they are loaded all the same, as Holds allows
		room = host.Free()
	}
	return max(room-min(bytes, room), 1)
}

// parts are the bytes that each accelerator gets of a model that is all on them.
func (p *Placement) parts(bytes uint64, accelerators []Memory) []uint64 {
	weights, whole := make([]float64, len(accelerators)), 0.0
	for i := range accelerators {
		switch {
		case p.One || len(accelerators) == 1:
			weights[i] = 1
		case len(p.Shares) == 0:
			weights[i] = float64(accelerators[i].Free())
		case i < len(p.Shares):
			weights[i] = float64(p.Shares[i])
		}
		whole += weights[i]
	}
	parts := make([]uint64, len(accelerators))
	for i, w := range weights {
		share := 1 / float64(len(accelerators)) // nothing is free, or nobody tells
		if whole > 0 {
			share = w / whole
		}
		parts[i] = uint64(math.Ceil(float64(bytes) * share))
	}
	return parts
}

// room is what may still be filled.
func (m Memory) room(highest float64) uint64 {
	if m.Total == 0 {
		return math.MaxUint64
	}
	limit := uint64(float64(m.Total) * highest)
	return limit - min(m.Used, limit)
}

func sum(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
