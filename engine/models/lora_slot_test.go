package models

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

// loraHeader is the header of an adapter with these tensors, and room for their numbers.
func loraHeader(alpha float32, tensors []loraTensor) []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a Buffer doesn't fail
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put([2]uint64{uint64(len(tensors)), 3})
	for _, pair := range [][2]string{{"general.architecture", "llama"}, {"general.type", "adapter"}} {
		text(pair[0])
		put(uint32(ggufString))
		text(pair[1])
	}
	text(loraAlphaKey)
	put(uint32(ggufFloat32))
	put(math.Float32bits(alpha))
	for _, l := range tensors {
		text(l.name)
		put(uint32(len(l.dims)))
		put(l.dims)
		put(l.kind)
		put(uint64(0)) // all in one place: nobody reads them
	}
	b.Write(make([]byte, 1<<20))
	return b.Bytes()
}

type loraTensor struct {
	name string
	kind uint32
	dims []uint64
}

func TestBytesOfAnAdapterInASlot(t *testing.T) {
	pair := func(kind uint32, rank uint64) []loraTensor {
		return []loraTensor{
			{"blk.0.attn_q.weight.lora_a", kind, []uint64{128, rank}},
			{"blk.0.attn_q.weight.lora_b", kind, []uint64{rank, 64}},
		}
	}
	const f32, f16, q8 = 0, 1, 8
	for name, c := range map[string]struct {
		alpha   float32
		tensors []loraTensor
		want    int64
	}{
		"a rank that fills a slot":  {0, pair(f16, 16), 16 * (128 + 64) * 2},
		"a small rank":              {8, pair(f16, 4), 16 * (128 + 64) * 2},
		"a scale with other digits": {12, pair(f16, 16), 16 * (128 + 64) * 4},
		"f32":                       {0, pair(f32, 20), 32 * (128 + 64) * 4},
		"blocks":                    {0, pair(q8, 32), 32 * (128 + 64) * 4},
		"token embeddings":          {0, []loraTensor{{"token_embd.weight.lora_a", f16, []uint64{4, 500}}, {"token_embd.weight.lora_b", f16, []uint64{4, 64}}}, 16 * (500 + 64) * 2},
		"experts":                   {0, []loraTensor{{"blk.0.ffn_up_exps.weight.lora_b", f16, []uint64{8, 64, 4}}}, 16 * 64 * 4 * 2},
		"what isn't multiplied":     {0, []loraTensor{{"output_norm.weight", f32, []uint64{64}}}, 0},
		"more than there can be":    {0, []loraTensor{{"a.lora_a", 99, []uint64{1 << 30, 1 << 30}}}, maxSlotBytes},
	} {
		file := loraHeader(c.alpha, c.tensors)
		h, err := readHeader(bytes.NewReader(file), int64(len(file)))
		if err != nil || h.SlotBytes != c.want || h.Type != "adapter" {
			t.Errorf("%s: %d bytes, want %d (%+v, %v)", name, h.SlotBytes, c.want, h, err)
		}
	}
}
