//go:build llama

package llama

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"tandem/engine/models"
)

// FoundMemory is how much of an accelerator's memory an engine found for itself: free, or filled by its own models.
type FoundMemory struct {
	Device            string
	Bytes, TotalBytes int64
}

const (
	memoryPoll = 250 * time.Millisecond
	// foundSlack: less than one part in so many of a device isn't missed. What other programs and the library itself
	// take beside the models varies.
	foundSlack = 32
)

// memoryBook is what is known of the accelerators' memory beside what they say themselves.
type memoryBook struct {
	until time.Time // how long loads wait for memory that is missing

	// Locked before Base.mu. What is held is noted after it was taken and forgotten before it is given back, so that
	// what is found is never too much: the next engine would wait for it in vain.
	mu     sync.Mutex
	held   map[*Base][]heldMemory // guarded by mu; by the device's number, without adapters
	found  []FoundMemory          // guarded by mu; the most that was found of each
	coming int64                  // guarded by mu; bytes of weights that loads are about to fill
}

type heldMemory struct {
	device string
	bytes  int64
}

// holdsMemory notes what a base has on the devices, adapters apart.
func (b *Base) holdsMemory() {
	held := make([]heldMemory, len(b.placement))
	for i, s := range b.placement {
		held[i] = heldMemory{s.name, s.weights + s.cache + s.compute}
	}
	book := &b.backend.memory
	book.mu.Lock()
	defer book.mu.Unlock()
	book.held[b] = held
}

func (b *Base) freesMemory() {
	book := &b.backend.memory
	book.mu.Lock()
	defer book.mu.Unlock()
	delete(book.held, b)
}

// heldOnDevices is what the models hold of each device.
func (m *memoryBook) heldOnDevices() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]int64)
	for base, held := range m.held {
		base.mu.Lock()
		for i, h := range held {
			all[h.device] += h.bytes
			if i < len(base.adapterBytes) {
				all[h.device] += base.adapterBytes[i]
			}
		}
		base.mu.Unlock()
	}
	return all
}

// findMemory is what there is for this engine on accelerators with memory of their own. A host has a dead process's
// memory back before the next one begins, and what is free of it is others' business as well.
func (b *Backend) findMemory() []FoundMemory {
	var found []FoundMemory
	held := b.memory.heldOnDevices()
	for _, d := range b.Accelerators() {
		if !d.integrated && d.TotalBytes > 0 {
			// no more than all: some drivers don't say what is in use
			found = append(found, FoundMemory{d.Name, min(d.FreeBytes+held[d.Name], d.TotalBytes), d.TotalBytes})
		}
	}
	return found
}

// noteFound passes on what was found, for the engine after this one. What was more before counts on, since others may
// have taken it for a moment.
func (b *Backend) noteFound(found []FoundMemory) {
	book := &b.memory
	book.mu.Lock()
	defer book.mu.Unlock()
	for _, f := range found {
		i := slices.IndexFunc(book.found, func(o FoundMemory) bool { return o.Device == f.Device })
		if i < 0 {
			book.found = append(book.found, f)
			continue
		}
		book.found[i].Bytes = max(book.found[i].Bytes, f.Bytes)
	}
	if b.opts.OnFound != nil {
		b.opts.OnFound(slices.Clone(book.found))
	}
}

// missing is how much less of each device was found than by the engine before.
func (o *Options) missing(found []FoundMemory) map[string]int64 {
	missing := make(map[string]int64)
	for _, f := range found {
		for _, before := range o.FoundBefore {
			if before.Device == f.Device && before.TotalBytes == f.TotalBytes && before.Bytes-f.Bytes > f.TotalBytes/foundSlack {
				missing[f.Device] = before.Bytes - f.Bytes
			}
		}
	}
	return missing
}

// memoryWait is the wait of one load for memory that is missing.
type memoryWait struct {
	backend  *Backend
	model    string
	progress func(models.Progress)
	told     bool
}

// pause waits a moment. over: the time for it has passed, and the load takes what there is.
func (w *memoryWait) pause(ctx context.Context, missing map[string]int64) (over bool, err error) {
	left := time.Until(w.backend.memory.until)
	if left <= 0 {
		return true, nil
	}
	if !w.told {
		w.told = true
		w.backend.opts.Logger.Info("a load waits for memory that the engine before had",
			"model", w.model, "missing", describeMissing(missing), "at_most", left.Round(time.Second))
	}
	if w.progress != nil {
		w.progress(models.Progress{Phase: "memory", Ratio: 1 - float64(left)/float64(w.backend.opts.MemoryWait)})
	}
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-time.After(min(left, memoryPoll)):
		return false, nil
	}
}

func describeMissing(missing map[string]int64) string {
	var parts []string
	for _, device := range slices.Sorted(maps.Keys(missing)) {
		parts = append(parts, megabytes(missing[device])+" of "+device)
	}
	return strings.Join(parts, ", ")
}

// awaitMemoryToSpread waits before the weights of a model are spread over several devices by what is free of each:
// where they lie can't be changed later.
func (b *Backend) awaitMemoryToSpread(ctx context.Context, model string, progress func(models.Progress)) error {
	if len(b.accelerators) < 2 || b.opts.OneGPU || len(b.opts.GPUSplit) > 0 {
		return nil
	}
	wait := memoryWait{backend: b, model: model, progress: progress}
	for {
		missing := b.opts.missing(b.findMemory())
		if len(missing) == 0 {
			return nil
		}
		if over, err := wait.pause(ctx, missing); over || err != nil {
			return err
		}
	}
}

// planContext decides the size of the context by what is free beside the weights. While the size would be larger with
// memory that the engine before this one had, it waits: a driver may not have it back yet, and a context never grows.
// That of an encoder has one size.
func (b *Base) planContext(ctx context.Context, progress func(models.Progress)) error {
	wait := memoryWait{backend: b.backend, model: b.spec.Name, progress: progress}
	for {
		b.readPlacement()
		b.holdsMemory()
		found := b.backend.findMemory()
		missing := b.opts.missing(found)
		b.size = b.contextSizeOn(b.placement)
		larger := b.contextSizeOn(withMemory(b.placement, missing))
		if !b.embed.causal || !larger.isBetterThan(b.size) {
			b.backend.noteFound(found)
			return nil
		}
		over, err := wait.pause(ctx, missing)
		if err != nil {
			return err
		}
		if over {
			b.tellMissing(missing, larger.cells)
			b.backend.noteFound(found)
			return nil
		}
	}
}

// tellMissing says that the context is small since somebody else has the memory.
func (b *Base) tellMissing(missing map[string]int64, cells int) {
	b.opts.Logger.Warn("the KV cache is small, since memory that the engine before had is taken; a restart makes it again",
		"model", b.spec.Name, "cells", b.size.cells, "cells_with_it", cells, "missing", describeMissing(missing))
	b.missed = fmt.Sprintf("; %s, which the engine before had, is taken", describeMissing(missing))
	b.size.limit += b.missed
}

// planAgain decides the size once more, when the context is made: others that were planned at the same time have their
// memory now. Runs on the goroutine that steps, so only one context is made at a time.
func (b *Base) planAgain() {
	b.readPlacement()
	size := b.contextSizeOn(b.placement)
	if size.isBetterThan(b.size) || b.size.isBetterThan(size) {
		b.size = size
		b.size.limit += b.missed
	}
}

// contextSizeOn is the size of a context beside what lies on devices.
func (b *Base) contextSizeOn(placement []deviceShare) contextSize {
	layout := chooseLayout(b.spec.Attention.Layout, b.spec.Parallel, b.keepsState(), placement)
	return chooseContextSize(b.spec, b.opts, b.attention.rope.longest, b.attention.seenBytes(b.layers), layout, placement)
}

// withMemory returns a placement with more memory for each device that is named.
func withMemory(placement []deviceShare, more map[string]int64) []deviceShare {
	with := slices.Clone(placement)
	for i := range with {
		if !with[i].host {
			with[i].free += more[with[i].name]
		}
	}
	return with
}

// isBetterThan reports whether a context that had more memory is better for it.
func (s contextSize) isBetterThan(o contextSize) bool {
	return s.cells > o.cells || s.sequenceTokens > o.sequenceTokens || s.sequences > o.sequences || s.layout != o.layout
}
