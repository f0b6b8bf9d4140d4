// Package randommodel writes models of the Llama kind that have the shape of real ones and random weights, and LoRA
// adapters for them. They compute as fast as a real model of that shape and answer nonsense. Equal seeds give equal
// files, so that a benchmark needs no download.
package randommodel

import (
	"fmt"

	"tandem/scripts/gguf"
)

// Shape is what the speed of a model depends on.
type Shape struct {
	Name            string
	Width           int // of a token's vector
	Layers          int
	Heads, KVHeads  int
	HeadWidth       int
	Inner           int // width of the feed-forward part
	Tokens          int // of the vocabulary
	Context         int
	SharedEmbedding bool // the output layer is the embedding
}

// shapes are those of Llama 3.2 1B and Llama 3.1 8B, and one for trying out what works with them.
var shapes = []Shape{
	{Name: "tiny", Width: 256, Layers: 2, Heads: 4, KVHeads: 2, HeadWidth: 64, Inner: 512, Tokens: 2048, Context: 8192},
	{Name: "1b", Width: 2048, Layers: 16, Heads: 32, KVHeads: 8, HeadWidth: 64, Inner: 8192, Tokens: 128_256, Context: 131_072, SharedEmbedding: true},
	{Name: "8b", Width: 4096, Layers: 32, Heads: 32, KVHeads: 8, HeadWidth: 128, Inner: 14_336, Tokens: 128_256, Context: 131_072},
}

// ShapeOf finds a shape by its name.
func ShapeOf(name string) (Shape, error) {
	for _, s := range shapes {
		if s.Name == name {
			return s, nil
		}
	}
	return Shape{}, fmt.Errorf("no shape %q; there are tiny, 1b and 8b", name)
}

// matrix is a matrix of each layer.
type matrix struct {
	name    string
	in, out int
}

func (s Shape) matrices() []matrix {
	q, kv := s.Heads*s.HeadWidth, s.KVHeads*s.HeadWidth
	return []matrix{
		{"attn_q", s.Width, q}, {"attn_k", s.Width, kv}, {"attn_v", s.Width, kv}, {"attn_output", q, s.Width},
		{"ffn_gate", s.Width, s.Inner}, {"ffn_up", s.Width, s.Inner}, {"ffn_down", s.Inner, s.Width},
	}
}

// tensors are those of a model in 4 bits, with 6 for the output layer and some others, as llama.cpp's Q4_K_M is one.
func (s Shape) tensors() []gguf.Tensor {
	var list []gguf.Tensor
	add := func(name string, rows, cols int, kind uint32) {
		list = append(list, gguf.Tensor{Name: name + ".weight", Rows: rows, Cols: cols, Type: kind})
	}
	if s.SharedEmbedding {
		add("token_embd", s.Tokens, s.Width, gguf.Q6_K)
	} else {
		add("token_embd", s.Tokens, s.Width, gguf.Q4_K)
		add("output", s.Tokens, s.Width, gguf.Q6_K)
	}
	add("output_norm", 1, s.Width, gguf.F32)
	for layer := range s.Layers {
		at := fmt.Sprintf("blk.%d.", layer)
		add(at+"attn_norm", 1, s.Width, gguf.F32)
		add(at+"ffn_norm", 1, s.Width, gguf.F32)
		for _, m := range s.matrices() {
			kind := gguf.Q4_K
			if m.name == "attn_v" && layer%2 == 0 || m.name == "ffn_down" && layer%2 == 0 {
				kind = gguf.Q6_K
			}
			add(at+m.name, m.out, m.in, kind)
		}
	}
	return gguf.WithOffsets(list)
}

// adapterTensors are those of an adapter of all matrices of the layers.
func (s Shape) adapterTensors(rank int) []gguf.Tensor {
	var list []gguf.Tensor
	for layer := range s.Layers {
		for _, m := range s.matrices() {
			name := fmt.Sprintf("blk.%d.%s.weight", layer, m.name)
			list = append(list, gguf.Tensor{Name: name + ".lora_a", Rows: rank, Cols: m.in, Type: gguf.F16},
				gguf.Tensor{Name: name + ".lora_b", Rows: m.out, Cols: rank, Type: gguf.F16})
		}
	}
	return gguf.WithOffsets(list)
}
