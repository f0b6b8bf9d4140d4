package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
)

// The bench model: llama architecture, random weights in Q8_0, a vocabulary of 128,256 tokens, about 130 MB.
const (
	benchVocab   = 128_256
	benchEmbd    = 512
	benchLayers  = 16
	benchHeads   = 8
	benchKVHeads = 4
	benchHeadDim = 64
	benchFF      = 1536
	benchContext = 8192
)

// GGUF value and tensor types used here, from the GGUF specification, version 3.
const (
	ggufUint32  = 4
	ggufInt32   = 5
	ggufFloat32 = 6
	ggufBool    = 7
	ggufString  = 8
	ggufArray   = 9

	tensorF32  = 0
	tensorF16  = 1
	tensorQ8_0 = 8

	blockValues = 32 // values in a Q8_0 block: one f16 scale and 32 int8
	blockBytes  = 34
	alignment   = 32
)

type tensor struct {
	name       string
	rows, cols int // ggml order: cols is ne[0]
	kind       uint32
	offset     uint64
}

func (t tensor) size() uint64 {
	n := uint64(t.rows) * uint64(t.cols)
	switch t.kind {
	case tensorF32:
		return n * 4
	case tensorF16:
		return n * 2
	}
	return n / blockValues * blockBytes
}

// withOffsets lays tensors one behind the other.
func withOffsets(list []tensor) []tensor {
	offset := uint64(0)
	for i := range list {
		list[i].offset = offset
		offset += (list[i].size() + alignment - 1) / alignment * alignment
	}
	return list
}

// writeBenchModel writes the model to path by way of a temporary file.
func writeBenchModel(path string) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	g := &gguf{w: bufio.NewWriterSize(f, 1<<20)}
	tensors := benchTensors()
	g.header(tensors)
	random := rand.New(rand.NewPCG(1, 2))
	for _, t := range tensors {
		g.weights(t, random)
	}
	if err := g.finish(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".part", path)
}

func benchTensors() []tensor {
	var list []tensor
	add := func(name string, rows, cols int, kind uint32) {
		list = append(list, tensor{name: name, rows: rows, cols: cols, kind: kind})
	}
	add("token_embd.weight", benchVocab, benchEmbd, tensorQ8_0)
	add("output_norm.weight", 1, benchEmbd, tensorF32)
	for i := range benchLayers {
		p := fmt.Sprintf("blk.%d.", i)
		add(p+"attn_norm.weight", 1, benchEmbd, tensorF32)
		add(p+"attn_q.weight", benchHeads*benchHeadDim, benchEmbd, tensorQ8_0)
		add(p+"attn_k.weight", benchKVHeads*benchHeadDim, benchEmbd, tensorQ8_0)
		add(p+"attn_v.weight", benchKVHeads*benchHeadDim, benchEmbd, tensorQ8_0)
		add(p+"attn_output.weight", benchEmbd, benchHeads*benchHeadDim, tensorQ8_0)
		add(p+"ffn_norm.weight", 1, benchEmbd, tensorF32)
		add(p+"ffn_gate.weight", benchFF, benchEmbd, tensorQ8_0)
		add(p+"ffn_up.weight", benchFF, benchEmbd, tensorQ8_0)
		add(p+"ffn_down.weight", benchEmbd, benchFF, tensorQ8_0)
	}
	return withOffsets(list)
}

// gguf writes a GGUF file; the first error is kept.
type gguf struct {
	w       *bufio.Writer
	written uint64
	err     error
}

func (g *gguf) bytes(b []byte) {
	if g.err == nil {
		_, g.err = g.w.Write(b)
		g.written += uint64(len(b))
	}
}

func (g *gguf) u32(v uint32)  { g.bytes(binary.LittleEndian.AppendUint32(nil, v)) }
func (g *gguf) u64(v uint64)  { g.bytes(binary.LittleEndian.AppendUint64(nil, v)) }
func (g *gguf) str(s string)  { g.u64(uint64(len(s))); g.bytes([]byte(s)) }
func (g *gguf) pad()          { g.bytes(make([]byte, (alignment-g.written%alignment)%alignment)) }
func (g *gguf) finish() error { g.pad(); g.err = firstError(g.err, g.w.Flush()); return g.err }

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (g *gguf) key(name string, kind uint32) { g.str(name); g.u32(kind) }
func (g *gguf) number(name string, v int)    { g.key(name, ggufUint32); g.u32(uint32(v)) }
func (g *gguf) float(name string, v float32) { g.key(name, ggufFloat32); g.u32(math.Float32bits(v)) }
func (g *gguf) text(name, v string)          { g.key(name, ggufString); g.str(v) }
func (g *gguf) flag(name string, v bool) {
	g.key(name, ggufBool)
	if v {
		g.bytes([]byte{1})
	} else {
		g.bytes([]byte{0})
	}
}

func (g *gguf) list(name string, kind uint32, n int) {
	g.key(name, ggufArray)
	g.u32(kind)
	g.u64(uint64(n))
}

// begin writes what every file begins with.
func (g *gguf) begin(tensors []tensor, keys uint64) {
	g.bytes([]byte("GGUF"))
	g.u32(3)
	g.u64(uint64(len(tensors)))
	g.u64(keys)
}

func (g *gguf) header(tensors []tensor) {
	const keys = 25
	g.begin(tensors, keys)
	g.text("general.architecture", "llama")
	g.text("general.name", "bench")
	g.number("general.file_type", 7)
	g.number("general.quantization_version", 2)
	g.number("llama.vocab_size", benchVocab)
	g.number("llama.context_length", benchContext)
	g.number("llama.embedding_length", benchEmbd)
	g.number("llama.block_count", benchLayers)
	g.number("llama.feed_forward_length", benchFF)
	g.number("llama.attention.head_count", benchHeads)
	g.number("llama.attention.head_count_kv", benchKVHeads)
	g.number("llama.attention.key_length", benchHeadDim)
	g.number("llama.attention.value_length", benchHeadDim)
	g.number("llama.rope.dimension_count", benchHeadDim)
	g.float("llama.rope.freq_base", 10000)
	g.float("llama.attention.layer_norm_rms_epsilon", 1e-5)
	g.text("tokenizer.ggml.model", "gpt2")
	g.text("tokenizer.ggml.pre", "gpt-2")
	g.vocabulary()
	g.number("tokenizer.ggml.bos_token_id", 0)
	g.number("tokenizer.ggml.eos_token_id", 1)
	g.flag("tokenizer.ggml.add_bos_token", true)
	g.flag("tokenizer.ggml.add_eos_token", false)
	g.describe(tensors)
}

// describe writes the table of the tensors, which ends the header.
func (g *gguf) describe(tensors []tensor) {
	for _, t := range tensors {
		g.str(t.name)
		if t.rows == 1 {
			g.u32(1)
			g.u64(uint64(t.cols))
		} else {
			g.u32(2)
			g.u64(uint64(t.cols))
			g.u64(uint64(t.rows))
		}
		g.u32(t.kind)
		g.u64(t.offset)
	}
	g.pad()
}

// vocabulary writes two control tokens, one token a byte in GPT-2's printable mapping, and made-up words. It has one
// merge, since there must be one.
func (g *gguf) vocabulary() {
	const control, normal = 3, 1
	tokens := []string{"<|bos|>", "<|end|>"}
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r, next = next, next+1
		}
		tokens = append(tokens, string(r))
	}
	for len(tokens) < benchVocab {
		tokens = append(tokens, fmt.Sprintf("Ġw%d", len(tokens)))
	}
	g.list("tokenizer.ggml.tokens", ggufString, len(tokens))
	for _, t := range tokens {
		g.str(t)
	}
	g.list("tokenizer.ggml.token_type", ggufInt32, len(tokens))
	for i := range tokens {
		if i < 2 {
			g.u32(control)
		} else {
			g.u32(normal)
		}
	}
	g.list("tokenizer.ggml.merges", ggufString, 1)
	g.str("Ġ w")
}

func (g *gguf) weights(t tensor, random *rand.Rand) {
	defer g.pad()
	if t.kind == tensorF32 {
		for range t.cols * t.rows {
			g.u32(math.Float32bits(1))
		}
		return
	}
	// int8 values are uniform, so the scale makes their deviation 1/sqrt(cols); 73 is the deviation of a uniform int8.
	scale := halfFloat(float32(1 / (math.Sqrt(float64(t.cols)) * 73)))
	block := make([]byte, blockBytes)
	binary.LittleEndian.PutUint16(block, scale)
	for range t.rows * t.cols / blockValues {
		for i := 2; i < blockBytes; i += 8 {
			binary.LittleEndian.PutUint64(block[i:], random.Uint64())
		}
		g.bytes(block)
	}
}

// halfFloat converts a small positive normal number to IEEE binary16, cutting the mantissa.
func halfFloat(v float32) uint16 {
	bits := math.Float32bits(v)
	exponent := int(bits>>23&0xff) - 127 + 15
	if exponent <= 0 { // subnormal
		return uint16(v * (1 << 24))
	}
	return uint16(exponent<<10) | uint16(bits>>13&0x3ff)
}
