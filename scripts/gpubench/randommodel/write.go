package randommodel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"tandem/engine/demo"
	"tandem/scripts/gguf"

	"github.com/ulikunitz/xz"
)

// chunkBlocks is how many blocks one goroutine makes at a time: some hundred kilobytes.
const chunkBlocks = 4096

// Write writes a model to path by way of a temporary file. Its tokenizer is that of the demo model, with made-up words
// up to the size of the shape's vocabulary.
func Write(path string, s Shape, seed uint64) error {
	v, err := demoVocabulary()
	if err != nil {
		return err
	}
	if err := pad(v, s.Tokens); err != nil {
		return err
	}
	return write(path, s.tensors(), seed, func(w *gguf.Writer) { putModel(w, s, v) })
}

// WriteAdapter writes a LoRA adapter for all matrices of a shape's layers.
func WriteAdapter(path string, s Shape, rank int, seed uint64) error {
	return write(path, s.adapterTensors(rank), seed, func(w *gguf.Writer) {
		w.PutText("general.type", "adapter")
		w.PutText("general.architecture", "llama")
		w.PutText("adapter.type", "lora")
		w.PutFloat("adapter.lora.alpha", float32(rank))
	})
}

func demoVocabulary() (*gguf.Vocabulary, error) {
	unpacked, err := xz.NewReader(bytes.NewReader(demo.Files()[0].Packed))
	if err != nil {
		return nil, fmt.Errorf("unpack the demo model: %w", err)
	}
	file, err := io.ReadAll(unpacked)
	if err != nil {
		return nil, fmt.Errorf("unpack the demo model: %w", err)
	}
	return gguf.ReadVocabulary(file)
}

func pad(v *gguf.Vocabulary, tokens int) error {
	const ordinary = 1
	if tokens < len(v.Tokens) {
		return fmt.Errorf("a vocabulary of %d tokens: the tokenizer alone has %d", tokens, len(v.Tokens))
	}
	for i := len(v.Tokens); i < tokens; i++ {
		v.Tokens, v.Kinds = append(v.Tokens, fmt.Sprintf("Ġw%d", i)), append(v.Kinds, ordinary)
	}
	return nil
}

// putModel writes the pairs of a model's header.
func putModel(w *gguf.Writer, s Shape, v *gguf.Vocabulary) {
	w.PutText("general.architecture", "llama")
	w.PutText("general.name", "random "+s.Name)
	w.PutNumber("general.file_type", 15) // mostly Q4_K, medium
	w.PutNumber("general.quantization_version", 2)
	w.PutNumber("llama.vocab_size", s.Tokens)
	w.PutNumber("llama.context_length", s.Context)
	w.PutNumber("llama.embedding_length", s.Width)
	w.PutNumber("llama.block_count", s.Layers)
	w.PutNumber("llama.feed_forward_length", s.Inner)
	w.PutNumber("llama.attention.head_count", s.Heads)
	w.PutNumber("llama.attention.head_count_kv", s.KVHeads)
	w.PutNumber("llama.attention.key_length", s.HeadWidth)
	w.PutNumber("llama.attention.value_length", s.HeadWidth)
	w.PutNumber("llama.rope.dimension_count", s.HeadWidth)
	w.PutFloat("llama.rope.freq_base", 500_000)
	w.PutFloat("llama.attention.layer_norm_rms_epsilon", 1e-5)
	w.PutText("tokenizer.ggml.model", v.Model)
	w.PutText("tokenizer.ggml.pre", v.Pre)
	w.PutTexts("tokenizer.ggml.tokens", v.Tokens)
	w.PutInts("tokenizer.ggml.token_type", v.Kinds)
	w.PutTexts("tokenizer.ggml.merges", v.Merges)
	w.PutNumber("tokenizer.ggml.bos_token_id", v.Begin)
	w.PutNumber("tokenizer.ggml.eos_token_id", v.End)
	w.PutFlag("tokenizer.ggml.add_bos_token", true)
	w.PutFlag("tokenizer.ggml.add_eos_token", false)
}

// counted counts the pairs that a function writes.
func counted(put func(*gguf.Writer)) int {
	w := gguf.NewWriter(io.Discard)
	put(w)
	return w.Pairs()
}

func write(path string, tensors []gguf.Tensor, seed uint64, put func(*gguf.Writer)) (err error) {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(path+".part", path)
		}
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
			_ = os.Remove(path + ".part") // what is left of it is of no use
		}
	}()
	w := gguf.NewWriter(f)
	w.Begin(tensors, counted(put))
	put(w)
	data := w.Describe(tensors)
	if err := w.Finish(); err != nil {
		return err
	}
	last := tensors[len(tensors)-1]
	if err := f.Truncate(data + last.Offset + last.Size()); err != nil {
		return err
	}
	return writeTensors(f, data, tensors, seed)
}

// chunk is a part of a tensor that one goroutine makes.
type chunk struct {
	tensor     gguf.Tensor
	number     int // of the tensor
	from, size int64
}

// writeTensors fills the tensors on all processors. What a chunk holds depends on the seed and its place alone.
func writeTensors(f io.WriterAt, data int64, tensors []gguf.Tensor, seed uint64) error {
	var chunks []chunk
	for i, t := range tensors {
		step := int64(chunkBlocks * t.BlockBytes())
		for from := int64(0); from < t.Size(); from += step {
			chunks = append(chunks, chunk{t, i, from, min(step, t.Size()-from)})
		}
	}
	var next atomic.Int64
	var mu sync.Mutex
	var first error
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			var buffer []byte
			for {
				i := int(next.Add(1)) - 1
				if i >= len(chunks) {
					return
				}
				c := chunks[i]
				buffer = append(buffer[:0], make([]byte, c.size)...)
				fill(buffer, c.tensor, source(seed, c))
				if _, err := f.WriteAt(buffer, data+c.tensor.Offset+c.from); err != nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
					next.Store(int64(len(chunks))) // a full disk is full for all
				}
			}
		})
	}
	group.Wait()
	return first
}

func source(seed uint64, c chunk) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[0:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(c.number))
	binary.LittleEndian.PutUint64(key[16:], uint64(c.from))
	return rand.NewChaCha8(key)
}
