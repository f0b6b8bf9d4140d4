//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

// Adapters lie on the devices of the weights that they change, each by itself and, where steps mix them, once more in
// the slots beside the others.

// bytesByDevice is how much of each device an adapter takes by itself.
func (a *Adapter) bytesByDevice() []int64 {
	memory := make([]C.tdm_memory, len(a.base.placement))
	C.tdm_adapter_memory(a.handle, &memory[0], C.int32_t(len(memory)))
	list := make([]int64, len(memory))
	for i := range memory {
		list[i] = int64(memory[i].weights)
	}
	return list
}

// noteAdapterMemory adds up what the adapters take of each device, for Facts. Called with mu held when one came or
// went.
func (b *Base) noteAdapterMemory() {
	b.adapterBytes = make([]int64, len(b.placement))
	for a := range b.adapters {
		for i, bytes := range a.byDevice {
			b.adapterBytes[i] += bytes
		}
	}
	if b.slots != nil { // they change the same weights
		for i, bytes := range sharesOf(b.slots.bytes(), b.adapterBytes) {
			b.adapterBytes[i] += bytes
		}
	}
	memory := memoryFacts(b.placement, b.adapterBytes)
	b.currentMemory.Store(&memory)
}

// sharesOf divides bytes as weights say.
func sharesOf(bytes int64, weights []int64) []int64 {
	shares, all := make([]int64, len(weights)), int64(0)
	for _, w := range weights {
		all += w
	}
	for i, w := range weights {
		if all > 0 {
			shares[i] = int64(float64(bytes) * float64(w) / float64(all))
		}
	}
	return shares
}

// adapterComputeShare: computing with an adapter takes about one part in so many of it, beside it.
const adapterComputeShare = 32

// AdapterFits reports whether the GPUs that keep the layers have room for an adapter whose file has so many bytes, and
// which takes slotBytes in a slot: below the watermark, or, with nothing else loaded (alone), in what is free. The
// host's memory is looked at by whoever asks.
func (b *Base) AdapterFits(fileBytes, slotBytes int64, alone bool) bool {
	b.mu.Lock()
	needs := sharesOf(fileBytes+b.slotGrowth(slotBytes), b.adapterWeights())
	b.mu.Unlock()
	for i, d := range b.backend.Devices() {
		if i >= len(needs) || needs[i] == 0 || d.Backend == DeviceCPU || d.TotalBytes <= 0 {
			continue
		}
		room := d.FreeBytes - needs[i]/adapterComputeShare
		if !alone && b.opts.Watermark > 0 {
			room = int64(float64(d.TotalBytes)*b.opts.Watermark) - (d.TotalBytes - d.FreeBytes)
		}
		if needs[i] > room {
			return false
		}
	}
	return true
}

// slotGrowth is about what another adapter adds to the slots: nothing where one is free that has room for its rank.
// Otherwise all are made anew beside the old ones. Called with mu held.
func (b *Base) slotGrowth(slotBytes int64) int64 {
	if b.slots == nil {
		return 0
	}
	count, size := b.slots.count, b.slots.size
	switch {
	case len(b.adapters)+1 >= count: // the first slot is that of no adapter
		return int64(slotsAfter(count, count)) * max(size, slotBytes)
	case slotBytes > size+size/8: // that of a file that wasn't looked into has its header, too
		return int64(count) * slotBytes
	}
	return 0
}

// adapterWeights is how adapters are divided between the devices: as those that there are, else as the layers. Called
// with mu held.
func (b *Base) adapterWeights() []int64 {
	if len(b.adapters) > 0 {
		return b.adapterBytes
	}
	layers, weights, cells := make([]int64, len(b.placement)), make([]int64, len(b.placement)), int64(0)
	for i, d := range b.placement {
		layers[i], weights[i] = d.cellBytes, d.weights
		cells += d.cellBytes
	}
	if cells == 0 { // an encoder keeps nothing
		return weights
	}
	return layers
}
