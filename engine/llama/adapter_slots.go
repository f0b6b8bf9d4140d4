//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"

	"tandem/engine/batch"
)

// adapterSlots are the places of a context in which adapters stand side by side, so that one step computes rows of
// several (0005-mixed-adapters.patch). Used only on the goroutine that steps, unless it says otherwise.
type adapterSlots struct {
	context *C.struct_llama_context
	ofSeq   []int32 // by sequence: the slot that the library knows; 0: no adapter

	// Guarded by Base.mu.
	count int   // slots that have memory, with the one of no adapter
	size  int64 // bytes of one
}

// leastSlots is how many the library makes for the first adapter; it doubles them when they are short.
const leastSlots = 4

// slotsAfter is how many there are once one with this number is taken.
func slotsAfter(count, slot int) int {
	count = max(count, leastSlots)
	for count <= slot {
		count *= 2
	}
	return count
}

// bytes of all slots.
func (s *adapterSlots) bytes() int64 { return int64(s.count) * s.size }

func (s *adapterSlots) readSize() { s.size = int64(C.llama_adapter_slot_size(s.context)) }

// openAdapterSlots finds out whether steps may mix adapters; otherwise versions take turns, and turnsReason says why.
func (b *Base) openAdapterSlots() {
	switch why := b.whyNotMixed(); {
	case why != "":
		b.turnsReason = why
	default:
		b.slots = &adapterSlots{context: b.context, ofSeq: make([]int32, b.limits.Sequences)}
		b.limits.MixedAdapters = true
	}
}

func (b *Base) whyNotMixed() string {
	if b.opts.Deterministic { // products of a slot add up in an order that depends on the ranks of the others
		return "answers are to be deterministic"
	}
	buf := newErrorBuffer()
	defer buf.free()
	if !C.tdm_mixed_adapters(b.context, buf.text, buf.size) {
		return buf.err().Error()
	}
	return ""
}

// add copies an adapter into a free slot.
func (s *adapterSlots) add(handle *C.struct_llama_adapter_lora) (slot int32, bytes int64, err error) {
	buf := newErrorBuffer()
	defer buf.free()
	slot = int32(C.tdm_adapter_slot_add(s.context, handle, buf.text, buf.size))
	if slot < 0 {
		return 0, 0, fmt.Errorf("put the adapter beside the others: %w", buf.err())
	}
	s.readSize()
	s.count = slotsAfter(s.count, int(slot))
	return slot, s.size, nil
}

// remove frees a slot; it does nothing for slot 0.
func (s *adapterSlots) remove(slot int32) {
	if slot == 0 {
		return
	}
	C.tdm_adapter_slot_remove(s.context, C.int32_t(slot))
	if s.readSize(); s.size == 0 { // it was the last one
		s.count = 0
	}
	for seq, has := range s.ofSeq {
		if has == slot {
			s.ofSeq[seq] = 0
		}
	}
}

// use tells the library which slot each slice's sequence has. A slice whose adapter isn't loaded gets an error.
func (s *adapterSlots) use(b *Base, slices []batch.Slice) {
	for i := range slices {
		slot, err := b.slotOf(slices[i].Adapter)
		seq := slices[i].Seq
		if err != nil || seq < 0 || seq >= len(s.ofSeq) { // decode says which sequences there are
			slices[i].Err = err
			continue
		}
		if s.ofSeq[seq] == slot {
			continue
		}
		if !C.llama_set_seq_adapter(s.context, C.llama_seq_id(seq), C.int32_t(slot)) {
			slices[i].Err = fmt.Errorf("give sequence %d adapter %d: llama.cpp refuses", seq, slot)
			continue
		}
		s.ofSeq[seq] = slot
	}
}

// follow gives a sequence whose result doesn't matter the slot of the one before it, so that it costs no other adapter.
func (s *adapterSlots) follow(seq int) {
	if seq == 0 || seq >= len(s.ofSeq) || s.ofSeq[seq] == s.ofSeq[seq-1] {
		return
	}
	if C.llama_set_seq_adapter(s.context, C.llama_seq_id(seq), C.int32_t(s.ofSeq[seq-1])) {
		s.ofSeq[seq] = s.ofSeq[seq-1]
	}
}

func (b *Base) slotOf(adapter batch.Adapter) (int32, error) {
	a, err := b.loadedAdapter(adapter)
	if a == nil {
		return 0, err
	}
	return a.slot, nil
}
