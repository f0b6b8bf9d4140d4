package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"

	"tandem/scripts/gguf"
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

	blockValues = 32 // in a Q8_0 block: one f16 scale and 32 int8
)

// writeBenchModel writes the model to path by way of a temporary file.
func writeBenchModel(path string) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	g := gguf.NewWriter(f)
	tensors := benchTensors()
	writeBenchHeader(g, tensors)
	random := rand.New(rand.NewPCG(1, 2))
	for _, t := range tensors {
		writeBenchWeights(g, t, random)
	}
	if err := g.Finish(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".part", path)
}

func benchTensors() []gguf.Tensor {
	var list []gguf.Tensor
	add := func(name string, rows, cols int, kind uint32) {
		list = append(list, gguf.Tensor{Name: name, Rows: rows, Cols: cols, Type: kind})
	}
	add("token_embd.weight", benchVocab, benchEmbd, gguf.Q8_0)
	add("output_norm.weight", 1, benchEmbd, gguf.F32)
	for i := range benchLayers {
		p := fmt.Sprintf("blk.%d.", i)
		add(p+"attn_norm.weight", 1, benchEmbd, gguf.F32)
		add(p+"attn_q.weight", benchHeads*benchHeadDim, benchEmbd, gguf.Q8_0)
		add(p+"attn_k.weight", benchKVHeads*benchHeadDim, benchEmbd, gguf.Q8_0)
		add(p+"attn_v.weight", benchKVHeads*benchHeadDim, benchEmbd, gguf.Q8_0)
		add(p+"attn_output.weight", benchEmbd, benchHeads*benchHeadDim, gguf.Q8_0)
		add(p+"ffn_norm.weight", 1, benchEmbd, gguf.F32)
		add(p+"ffn_gate.weight", benchFF, benchEmbd, gguf.Q8_0)
		add(p+"ffn_up.weight", benchFF, benchEmbd, gguf.Q8_0)
		add(p+"ffn_down.weight", benchEmbd, benchFF, gguf.Q8_0)
	}
	return gguf.WithOffsets(list)
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func writeBenchHeader(g *gguf.Writer, tensors []gguf.Tensor) {
	const keys = 25
	g.Begin(tensors, keys)
	g.PutText("general.architecture", "llama")
	g.PutText("general.name", "bench")
	g.PutNumber("general.file_type", 7)
	g.PutNumber("general.quantization_version", 2)
	g.PutNumber("llama.vocab_size", benchVocab)
	g.PutNumber("llama.context_length", benchContext)
	g.PutNumber("llama.embedding_length", benchEmbd)
	g.PutNumber("llama.block_count", benchLayers)
	g.PutNumber("llama.feed_forward_length", benchFF)
	g.PutNumber("llama.attention.head_count", benchHeads)
	g.PutNumber("llama.attention.head_count_kv", benchKVHeads)
	g.PutNumber("llama.attention.key_length", benchHeadDim)
	g.PutNumber("llama.attention.value_length", benchHeadDim)
	g.PutNumber("llama.rope.dimension_count", benchHeadDim)
	g.PutFloat("llama.rope.freq_base", 10000)
	g.PutFloat("llama.attention.layer_norm_rms_epsilon", 1e-5)
	g.PutText("tokenizer.ggml.model", "gpt2")
	g.PutText("tokenizer.ggml.pre", "gpt-2")
	writeBenchVocabulary(g)
	g.PutNumber("tokenizer.ggml.bos_token_id", 0)
	g.PutNumber("tokenizer.ggml.eos_token_id", 1)
	g.PutFlag("tokenizer.ggml.add_bos_token", true)
	g.PutFlag("tokenizer.ggml.add_eos_token", false)
	g.Describe(tensors)
}

// writeBenchVocabulary writes two control tokens, one token a byte in GPT-2's printable mapping, and made-up words.
// There is one merge, since there must be one.
func writeBenchVocabulary(g *gguf.Writer) {
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
	kinds := make([]int32, len(tokens))
	for i := range kinds {
		kinds[i] = normal
	}
	kinds[0], kinds[1] = control, control
	g.PutTexts("tokenizer.ggml.tokens", tokens)
	g.PutInts("tokenizer.ggml.token_type", kinds)
	g.PutTexts("tokenizer.ggml.merges", []string{"Ġ w"})
}

func writeBenchWeights(g *gguf.Writer, t gguf.Tensor, random *rand.Rand) {
	defer g.Pad()
	if t.Type == gguf.F32 {
		for range t.Cols * t.Rows {
			g.U32(math.Float32bits(1))
		}
		return
	}
	// int8 values are uniform, so the scale makes their deviation 1/sqrt(cols); 73 is the deviation of a uniform int8.
	scale := gguf.HalfFloat(float32(1 / (math.Sqrt(float64(t.Cols)) * 73)))
	block := make([]byte, t.BlockBytes())
	binary.LittleEndian.PutUint16(block, scale)
	for range t.Rows * t.Cols / blockValues {
		for i := 2; i < len(block); i += 8 {
			binary.LittleEndian.PutUint64(block[i:], random.Uint64())
		}
		g.Bytes(block)
	}
}
