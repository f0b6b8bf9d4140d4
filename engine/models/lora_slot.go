package models

import (
	"math"
	"strings"
)

// loraSlot adds up what an adapter takes in a place beside others, where a step computes several: matrices of a rank
// that is rounded up, in f16 if all of their numbers are and the scale adds no digits, otherwise in f32.
type loraSlot struct {
	alpha float32 // 0: the scale is 1
	bytes int64
}

const (
	slotRankStep  = 16 // on accelerators, see 0005-mixed-adapters.patch
	loraAlphaKey  = "adapter.lora.alpha"
	maxSlotBytes  = 1 << 50
	ggufTensorF16 = 1
)

// add adds a tensor of an adapter's file.
func (l *loraSlot) add(name string, dims [maxDims]uint64, kind uint32) {
	rankAt := 0 // B, and A of token embeddings
	switch {
	case strings.HasSuffix(name, ".lora_a") && !strings.HasPrefix(name, "token_embd."):
		rankAt = 1
	case !strings.HasSuffix(name, ".lora_a") && !strings.HasSuffix(name, ".lora_b"):
		return
	}
	rank, numbers := dims[rankAt], 1.0
	dims[rankAt] = (rank + slotRankStep - 1) / slotRankStep * slotRankStep
	for _, d := range dims {
		numbers *= float64(d)
	}
	width := 4.0
	if kind == ggufTensorF16 && l.scaleIsPowerOfTwo(rank) {
		width = 2
	}
	l.bytes = int64(min(float64(l.bytes)+width*numbers, maxSlotBytes))
}

func (l *loraSlot) scaleIsPowerOfTwo(rank uint64) bool {
	if l.alpha == 0 {
		return true
	}
	digits, _ := math.Frexp(math.Abs(float64(l.alpha / float32(rank))))
	return digits == 0.5
}
