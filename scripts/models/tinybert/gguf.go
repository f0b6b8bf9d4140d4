// Package tinybert makes small encoders of the BERT kind with random weights, as GGUF files, and computes what they
// should give by itself, in float64. For tests: nobody has to download a model, and llama.cpp is compared with a
// computation that shares nothing with it.
package tinybert

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// Sizes of the model.
const (
	Width   = 32 // numbers of a token's vector
	Context = 96 // tokens
	heads   = 2
	inner   = 64
	layers  = 2
	epsilon = 1e-12
)

// Pooling types, as llama.cpp numbers them in GGUF files.
const (
	PoolingMean = 1
	PoolingCLS  = 2
	PoolingRank = 4
)

// Special tokens; the others are words, letters and digits.
const (
	Pad int32 = iota
	Unknown
	CLS
	SEP
	Mask
)

var words = strings.Fields("the capital of france is paris berlin big small house and germany city what where")

// Model is a BERT with random weights.
type Model struct {
	pooling int
	tokens  []string
	tensors []tensor
	byName  map[string][]float32
}

type tensor struct {
	name string
	dims []int // the first one lies contiguous
	data []float32
}

// New makes a model. With PoolingRank it has a classifier's head. Equal seeds give equal models.
func New(pooling int, seed uint64) *Model {
	m := &Model{pooling: pooling, byName: map[string][]float32{}}
	m.tokens = []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	for _, w := range words {
		m.tokens = append(m.tokens, "\u2581"+w)
	}
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123456789?." {
		m.tokens = append(m.tokens, "\u2581"+string(c), string(c))
	}
	random := rand.New(rand.NewPCG(seed, 1))
	add := func(name string, around, spread float64, dims ...int) {
		n := 1
		for _, d := range dims {
			n *= d
		}
		data := make([]float32, n)
		for i := range data {
			data[i] = float32(around + spread*random.NormFloat64())
		}
		m.tensors = append(m.tensors, tensor{name, dims, data})
		m.byName[name] = data
	}
	linear := func(name string, from, to int) {
		add(name+".weight", 0, 2/math.Sqrt(float64(from)), from, to)
		add(name+".bias", 0, 0.3, to)
	}
	norm := func(name string) {
		add(name+".weight", 1, 0.2, Width)
		add(name+".bias", 0, 0.2, Width)
	}
	add("token_embd.weight", 0, 1, Width, len(m.tokens))
	add("token_types.weight", 0, 0.5, Width, 2)
	add("position_embd.weight", 0, 0.5, Width, Context)
	norm("token_embd_norm")
	for i := range layers {
		b := block(i)
		for _, part := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
			linear(b+part, Width, Width)
		}
		norm(b + "attn_output_norm")
		linear(b+"ffn_up", Width, inner)
		linear(b+"ffn_down", inner, Width)
		norm(b + "layer_output_norm")
	}
	if pooling == PoolingRank {
		linear("cls", Width, Width)
		linear("cls.output", Width, 1)
	}
	return m
}

func block(i int) string { return "blk." + string(rune('0'+i)) + "." }

// Vocabulary is the number of tokens.
func (m *Model) Vocabulary() int { return len(m.tokens) }

// GGUF is the model as a file.
func (m *Model) GGUF() []byte {
	w := &writer{}
	w.text("general.architecture", "bert")
	w.text("general.type", "model")
	w.number("general.file_type", 0)
	w.number("bert.context_length", Context)
	w.number("bert.embedding_length", Width)
	w.number("bert.feed_forward_length", inner)
	w.number("bert.block_count", layers)
	w.number("bert.attention.head_count", heads)
	w.put("bert.attention.layer_norm_epsilon", 6, float32(epsilon))
	w.put("bert.attention.causal", 7, uint8(0))
	w.number("bert.pooling_type", uint32(m.pooling))
	w.text("tokenizer.ggml.model", "bert")
	w.text("tokenizer.ggml.pre", "default")
	w.number("tokenizer.ggml.token_type_count", 2)
	w.texts("tokenizer.ggml.tokens", m.tokens)
	kinds := make([]int32, len(m.tokens))
	for i := range kinds {
		kinds[i] = 1 // an ordinary token
		if int32(i) <= Mask {
			kinds[i] = 3 // a control token
		}
	}
	kinds[Unknown] = 2
	w.put("tokenizer.ggml.token_type", 9, struct {
		Kind uint32
		N    uint64
	}{5, uint64(len(kinds))})
	binary.Write(&w.pairs, binary.LittleEndian, kinds)
	for key, id := range map[string]int32{"padding": Pad, "unknown": Unknown, "bos": CLS, "cls": CLS, "seperator": SEP, "mask": Mask} {
		w.number("tokenizer.ggml."+key+"_token_id", uint32(id)) // the separator's key is misspelt in the format
	}
	return w.file(m.tensors)
}

// writer collects the pairs of a header.
type writer struct {
	pairs bytes.Buffer
	n     uint64
}

func putString(b *bytes.Buffer, s string) {
	binary.Write(b, binary.LittleEndian, uint64(len(s)))
	b.WriteString(s)
}

// put writes a pair whose value is of this type of GGUF.
func (w *writer) put(key string, kind uint32, value any) {
	w.n++
	putString(&w.pairs, key)
	binary.Write(&w.pairs, binary.LittleEndian, kind)
	binary.Write(&w.pairs, binary.LittleEndian, value)
}

func (w *writer) number(key string, v uint32) { w.put(key, 4, v) }

func (w *writer) text(key, v string) {
	w.n++
	putString(&w.pairs, key)
	binary.Write(&w.pairs, binary.LittleEndian, uint32(8))
	putString(&w.pairs, v)
}

func (w *writer) texts(key string, list []string) {
	w.put(key, 9, struct {
		Kind uint32
		N    uint64
	}{8, uint64(len(list))})
	for _, s := range list {
		putString(&w.pairs, s)
	}
}

// file puts header, tensor table and data together.
func (w *writer) file(tensors []tensor) []byte {
	const alignment = 32
	pad := func(b *bytes.Buffer) { b.Write(make([]byte, (alignment-b.Len()%alignment)%alignment)) }
	var out, data bytes.Buffer
	out.WriteString("GGUF")
	binary.Write(&out, binary.LittleEndian, uint32(3))
	binary.Write(&out, binary.LittleEndian, [2]uint64{uint64(len(tensors)), w.n})
	out.Write(w.pairs.Bytes())
	for _, t := range tensors {
		putString(&out, t.name)
		binary.Write(&out, binary.LittleEndian, uint32(len(t.dims)))
		for _, d := range t.dims {
			binary.Write(&out, binary.LittleEndian, uint64(d))
		}
		binary.Write(&out, binary.LittleEndian, uint32(0)) // F32
		binary.Write(&out, binary.LittleEndian, uint64(data.Len()))
		binary.Write(&data, binary.LittleEndian, t.data)
		pad(&data)
	}
	pad(&out)
	out.Write(data.Bytes())
	return out.Bytes()
}

// Tokens gives the tokens of words that the vocabulary has, without any around them.
func (m *Model) Tokens(text string) []int32 {
	var out []int32
	for _, w := range strings.Fields(text) {
		out = append(out, int32(slices.Index(m.tokens, "\u2581"+w)))
	}
	return out
}
