package devices

import "math"

// Placement is on which devices the settings put the weights of a model, and how full these may become.
type Placement struct {
	GPULayers int       // layers of a model on accelerators; 0: none, negative: all
	OneGPU    bool      // on MainGPU alone
	MainGPU   int       // an accelerator's number
	GPUSplit  []float32 // proportions of the accelerators; empty: by free memory
	Watermark float64   // share (0 to 1) of a device's memory that may be in use
}

// Fits reports whether weights of that size can be loaded: under the watermark, or, with nothing else loaded (alone),
// into what memory is free.
func (p *Placement) Fits(bytes uint64, alone bool, host Memory, accelerators []Memory) bool {
	if alone {
		return p.FitsFreeMemory(bytes, host, accelerators)
	}
	return p.FitsWatermark(bytes, host, accelerators)
}

// FitsWatermark reports whether weights of that size can be loaded without passing the watermark of any device that
// they go to. A device of unknown size (Total is 0) takes anything: there, the load finds out.
func (p *Placement) FitsWatermark(bytes uint64, host Memory, accelerators []Memory) bool {
	if p.GPULayers == 0 || len(accelerators) == 0 {
		return bytes <= host.headroom(p.Watermark)
	}
	if p.OneGPU {
		if p.MainGPU < 0 || p.MainGPU >= len(accelerators) {
			return true // the load reports what is wrong
		}
		accelerators = accelerators[p.MainGPU : p.MainGPU+1]
	}
	if p.GPULayers > 0 { // how much of the model that is, only the load finds out; it must fit all devices together
		room := host.headroom(p.Watermark)
		for _, m := range accelerators {
			room = saturatingAdd(room, m.headroom(p.Watermark))
		}
		return bytes <= room
	}
	for i, part := range p.bytesPerAccelerator(bytes, accelerators) {
		if part > accelerators[i].headroom(p.Watermark) {
			return false
		}
	}
	return true
}

// FitsFreeMemory reports whether free memory can hold weights of that size, whatever the watermark: for a load with
// nothing else loaded. Free memory must hold a little more than the weights, since a load needs that.
func (p *Placement) FitsFreeMemory(bytes uint64, host Memory, accelerators []Memory) bool {
	all := *p
	all.Watermark = 1
	return all.FitsWatermark(saturatingAdd(bytes, bytes/contextDivisor), host, accelerators)
}

// contextDivisor divides the weights' size into what a context takes at least, for its buffers and a short cache.
const contextDivisor = 32

// HostRoom is how much of the host's memory may still be filled below the watermark, and how much of it is free, each
// at least 1. 0: the host's memory isn't known.
func (p *Placement) HostRoom(host Memory) (room, free uint64) {
	if host.Total == 0 {
		return 0, 0
	}
	return max(host.headroom(p.Watermark), 1), max(host.Free(), 1)
}

// bytesPerAccelerator is how many bytes each accelerator gets of a model that is all on them.
func (p *Placement) bytesPerAccelerator(bytes uint64, accelerators []Memory) []uint64 {
	weights, whole := make([]float64, len(accelerators)), 0.0
	for i := range accelerators {
		switch {
		case p.OneGPU || len(accelerators) == 1:
			weights[i] = 1
		case len(p.GPUSplit) == 0:
			weights[i] = float64(accelerators[i].Free())
		case i < len(p.GPUSplit):
			weights[i] = float64(p.GPUSplit[i])
		}
		whole += weights[i]
	}
	parts := make([]uint64, len(accelerators))
	for i, w := range weights {
		share := 1 / float64(len(accelerators)) // nothing is free, or that isn't known
		if whole > 0 {
			share = w / whole
		}
		parts[i] = uint64(math.Ceil(float64(bytes) * share))
	}
	return parts
}

// headroom is how many bytes may still be filled below the watermark.
func (m Memory) headroom(watermark float64) uint64 {
	if m.Total == 0 {
		return math.MaxUint64
	}
	limit := uint64(float64(m.Total) * watermark)
	return limit - min(m.Used, limit)
}

func saturatingAdd(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
