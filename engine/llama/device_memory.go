//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"slices"

	"tandem/engine/models"
)

// deviceShare is what lies on one device of a base, and what its memory decides.
type deviceShare struct {
	name                    string
	host                    bool  // the CPU, with the host's memory
	integrated              bool  // a GPU with the host's memory
	weights, cache, compute int64 // bytes
	cellBytes               int64 // of one KV cell: of the layers that this device keeps
	free                    int64 // bytes beside the weights that the base may fill; 0: not known
}

// sharesHost reports whether other programs need this memory, too.
func (d *deviceShare) sharesHost() bool { return d.host || d.integrated }

// readPlacement finds out where the weights went, where the layers will keep their cells, and what is free there.
func (b *Base) readPlacement() {
	coming := b.backend.memory.comingBytes() // first: what has its memory by now isn't missed
	devices := b.backend.Devices()
	taken := b.backend.comingWeights(devices, coming)
	memory := make([]C.tdm_memory, len(devices))
	C.tdm_model_memory(b.model, &memory[0], C.int32_t(len(memory)))
	b.placement = make([]deviceShare, len(devices))
	for i, d := range devices {
		share := &b.placement[i]
		*share = deviceShare{name: d.Name, host: d.Backend == DeviceCPU, integrated: d.integrated, weights: int64(memory[i].weights)}
		if share.host {
			share.free = hostFree(d.FreeBytes, &b.spec, b.hostWeights(share.weights))
		} else {
			share.free = belowWatermark(leave(d.FreeBytes, taken[i]), d.TotalBytes, b.opts.Watermark)
		}
	}
	for i, l := range b.layers {
		if device := b.layerDevices[i]; device >= 0 && device < len(b.placement) {
			b.placement[device].cellBytes += b.attention.cache.cellBytes([]cacheLayer{l})
		}
	}
}

// hostWeights is how much memory of the host the weights need. Of a mapped file the library counts all, also what it
// read into copies of another form, and the kernel takes those pages back when it needs them.
func (b *Base) hostWeights(bytes int64) int64 {
	if b.spec.MMap {
		return min(bytes, int64(C.llama_model_size(b.model)))
	}
	return bytes
}

// hostFree is what is free of the host's memory beside the weights. The library says that all of it is; the load was
// told what the model may fill. Weights that are more than that were loaded all the same, since nothing else was.
func hostFree(free int64, spec *models.BaseSpec, weights int64) int64 {
	room := spec.HostRoom
	if room <= 0 {
		return free
	}
	if weights > room {
		room = spec.HostFree
	}
	return max(min(free, room-weights), 1) // even 1 byte is a budget
}

// belowWatermark is what may be filled of an accelerator's memory. Where the weights come near the watermark, or were
// loaded over it since nothing else was, it is a third of what is free.
func belowWatermark(free, total int64, watermark float64) int64 {
	if total <= 0 || watermark <= 0 {
		return free
	}
	return max(int64(float64(total)*watermark)-(total-free), free/3)
}

// readContextMemory measures what a context took.
func (b *Base) readContextMemory(context *C.struct_llama_context) {
	memory := make([]C.tdm_memory, len(b.placement))
	C.tdm_context_memory(context, &memory[0], C.int32_t(len(memory)))
	for i := range b.placement {
		b.placement[i].cache, b.placement[i].compute = int64(memory[i].cache), int64(memory[i].compute)
	}
	b.holdsMemory()
}

// logPlacement tells at once what lies where, and what decided how many cells there are.
func (b *Base) logPlacement() {
	fields := []any{"model", b.spec.Name, "cells", b.limits.Cells, "decided_by", b.size.limit, "layout", b.size.layout, "layout_decided_by", b.size.layoutLimit}
	for _, m := range memoryFacts(b.placement, nil) {
		fields = append(fields, m.Device, fmt.Sprintf("weights %s, KV cache %s, computing %s",
			megabytes(m.WeightBytes), megabytes(m.CacheBytes), megabytes(m.ComputeBytes)))
	}
	b.opts.Logger.Info("memory is planned", fields...)
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// memoryFacts are the devices that hold anything; adapters are bytes by the device's number, or nil.
func memoryFacts(placement []deviceShare, adapters []int64) []models.DeviceMemory {
	var list []models.DeviceMemory
	for i, s := range placement {
		m := models.DeviceMemory{Device: s.name, WeightBytes: s.weights, CacheBytes: s.cache, ComputeBytes: s.compute}
		if i < len(adapters) {
			m.AdapterBytes = adapters[i]
		}
		if m.WeightBytes+m.CacheBytes+m.ComputeBytes+m.AdapterBytes > 0 {
			list = append(list, m)
		}
	}
	return list
}

// hostComputes reports whether the CPU has layers of a base to compute.
func (b *Base) hostComputes() bool {
	return len(b.backend.accelerators) == 0 || slices.ContainsFunc(b.placement, func(s deviceShare) bool { return s.host && s.cellBytes > 0 })
}

// leastFree is the free memory of the device that has least of it, of those that have layers; 0: not known.
func (b *Base) leastFree() int64 {
	least := int64(0)
	for _, s := range b.placement {
		if s.cellBytes > 0 && s.free > 0 && (least == 0 || s.free < least) {
			least = s.free
		}
	}
	return least
}

// firstDevice is the device by which a base is described.
func (b *Backend) firstDevice() Device {
	if len(b.accelerators) > 0 {
		return b.accelerators[0]
	}
	all := b.Devices()
	if i := slices.IndexFunc(all, func(d Device) bool { return d.Backend == DeviceCPU }); i >= 0 {
		return all[i]
	}
	return Device{Backend: DeviceCPU}
}
