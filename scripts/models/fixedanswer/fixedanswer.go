// Package fixedanswer makes small models of the Llama kind that always give the same answer, as GGUF files. For tests
// of everything around an answer: a real engine writes reasoning, text and tool calls that the test has chosen, and
// nobody has to hope that a small model does so.
package fixedanswer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Sizes of the model.
const (
	width   = 512 // numbers of a token's vector, one for each token of the vocabulary
	context = 4096
	heads   = 8
	inner   = 64
)

// Ids of tokens. Every byte has one, and so has every piece of the answer. The blank has none: texts that the tokeniser
// doesn't give back as they were are never forced by a grammar, in pieces that aren't the answer's. Every token is
// drawn.
const (
	begin int32 = iota + 1
	startOfTurn
	endOfTurn
	firstByte
	firstPiece = firstByte + 256
)

// Kinds of tokens in GGUF files.
const (
	ordinary = 1
	unknown  = 2
	control  = 3
	byteKind = 6
)

// Model makes a model that answers every prompt whose last byte is a line end. Its chat template is that of ChatML,
// with reasoning between <think> tags and tool calls as JSON between <tool_call> tags; prompts end with a line end.
//
// The vector of a token has a single one in it, and the output layer moves it to the token that follows in the answer,
// so each piece of the answer is a token of its own and comes once. Attention adds a little noise that depends on
// everything before, so that log-probabilities are those of the whole context.
func Model(answer string) ([]byte, error) {
	pieces, err := piecesOf(answer)
	if err != nil {
		return nil, err
	}
	m := &file{}
	m.addHeader()
	m.addVocabulary(pieces)
	m.addWeights(len(pieces))
	return m.bytes(), nil
}

// piecesOf cuts an answer into texts of two to six characters, of which none comes twice.
func piecesOf(answer string) ([]string, error) {
	const least, most = 2, 6
	var pieces []string
	used := map[string]bool{}
	for rest := []rune(answer); len(rest) > 0; {
		n := min(least+len(pieces)%3, len(rest))
		for n < min(most, len(rest)) && used[string(rest[:n])] {
			n++
		}
		piece := string(rest[:n])
		if used[piece] {
			return nil, fmt.Errorf("cut the answer into different pieces: %q comes again", piece)
		}
		used[piece] = true
		pieces = append(pieces, piece)
		rest = rest[n:]
	}
	if len(pieces) == 0 || len(pieces) > width-int(firstPiece) {
		return nil, fmt.Errorf("an answer of %d pieces; there is room for 1 to %d", len(pieces), width-int(firstPiece))
	}
	return pieces, nil
}

// file collects a model's file.
type file struct {
	pairs     bytes.Buffer
	pairCount uint64
	infos     bytes.Buffer // of the tensors
	data      bytes.Buffer
	tensors   uint64
}

func (m *file) addHeader() {
	m.addText("general.architecture", "llama")
	for _, p := range []struct {
		key   string
		value uint32
	}{
		{"general.file_type", 0}, {"llama.context_length", context}, {"llama.embedding_length", width}, {"llama.feed_forward_length", inner},
		{"llama.block_count", 1}, {"llama.attention.head_count", heads}, {"llama.attention.head_count_kv", 1},
		{"llama.rope.dimension_count", width / heads}, {"llama.vocab_size", width},
	} {
		m.addPair(p.key, 4, p.value)
	}
	m.addPair("llama.attention.layer_norm_rms_epsilon", 6, float32(1e-5))
	m.addText("tokenizer.chat_template", ChatTemplate)
}

func (m *file) addVocabulary(pieces []string) {
	texts := []string{"<unk>", "<s>", "<|im_start|>", "<|im_end|>"}
	kinds := []int32{unknown, control, control, control}
	for b := range 256 {
		texts, kinds = append(texts, fmt.Sprintf("<0x%02X>", b)), append(kinds, byteKind)
	}
	for _, p := range pieces {
		texts, kinds = append(texts, escapeBlanks(p)), append(kinds, ordinary)
	}
	for i := len(texts); i < width; i++ {
		texts, kinds = append(texts, fmt.Sprintf("<|unused_%d|>", i)), append(kinds, control)
	}
	m.addText("tokenizer.ggml.model", "llama")
	m.addPair("tokenizer.ggml.tokens", 9, listHead{8, width})
	for _, t := range texts {
		putText(&m.pairs, t)
	}
	m.addPair("tokenizer.ggml.scores", 9, listHead{6, width})
	put(&m.pairs, make([]float32, width))
	m.addPair("tokenizer.ggml.token_type", 9, listHead{5, width})
	put(&m.pairs, kinds)
	m.addPair("tokenizer.ggml.bos_token_id", 4, uint32(begin))
	m.addPair("tokenizer.ggml.eos_token_id", 4, uint32(endOfTurn))
	m.addPair("tokenizer.ggml.unknown_token_id", 4, uint32(0))
	m.addPair("tokenizer.ggml.add_space_prefix", 7, uint8(0))
	m.addPair("tokenizer.ggml.add_bos_token", 7, uint8(0))
}

// escapeBlanks writes blanks as the tokenizer's files do.
func escapeBlanks(s string) string {
	return string(bytes.ReplaceAll([]byte(s), []byte(" "), []byte("\u2581")))
}

// addWeights adds the tensors for an answer of so many pieces.
func (m *file) addWeights(pieces int) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(spread float64, n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = float32(spread * random.NormFloat64())
		}
		return out
	}
	ones := make([]float32, width)
	for i := range ones {
		ones[i] = 1
	}
	embedding, output := noise(0.002, width*width), noise(0.002, width*width)
	for token := range width {
		embedding[token*width+token] = 1
	}
	after := func(token, next int32) { output[int(next)*width+int(token)] = 1 }
	after(firstByte+'\n', firstPiece)
	for i := range int32(pieces - 1) {
		after(firstPiece+i, firstPiece+i+1)
	}
	after(firstPiece+int32(pieces)-1, endOfTurn)
	const headSize = width / heads
	m.addTensor("token_embd.weight", embedding, width, width)
	m.addTensor("output.weight", output, width, width)
	m.addTensor("output_norm.weight", ones, width)
	m.addTensor("blk.0.attn_norm.weight", ones, width)
	m.addTensor("blk.0.ffn_norm.weight", ones, width)
	m.addTensor("blk.0.attn_q.weight", noise(0.05, width*width), width, width)
	m.addTensor("blk.0.attn_k.weight", noise(0.05, width*headSize), width, headSize)
	m.addTensor("blk.0.attn_v.weight", noise(0.05, width*headSize), width, headSize)
	m.addTensor("blk.0.attn_output.weight", noise(0.001, width*width), width, width)
	m.addTensor("blk.0.ffn_gate.weight", noise(0.02, width*inner), width, inner)
	m.addTensor("blk.0.ffn_up.weight", noise(0.02, width*inner), width, inner)
	m.addTensor("blk.0.ffn_down.weight", noise(0.001, inner*width), inner, width)
}

// listHead is what a list in a header begins with.
type listHead struct {
	kind  uint32
	count uint64
}

func put(b *bytes.Buffer, value any) { _ = binary.Write(b, binary.LittleEndian, value) } // a buffer takes everything

func putText(b *bytes.Buffer, s string) {
	put(b, uint64(len(s)))
	b.WriteString(s)
}

// addPair adds a pair whose value is of this type of GGUF.
func (m *file) addPair(key string, kind uint32, value any) {
	m.pairCount++
	putText(&m.pairs, key)
	put(&m.pairs, kind)
	if head, ok := value.(listHead); ok {
		put(&m.pairs, head.kind)
		put(&m.pairs, head.count)
		return
	}
	put(&m.pairs, value)
}

func (m *file) addText(key, text string) {
	m.pairCount++
	putText(&m.pairs, key)
	put(&m.pairs, uint32(8))
	putText(&m.pairs, text)
}

const alignment = 32

func pad(b *bytes.Buffer) { b.Write(make([]byte, (alignment-b.Len()%alignment)%alignment)) }

// addTensor adds a tensor; the first dimension lies contiguous.
func (m *file) addTensor(name string, values []float32, dims ...uint64) {
	m.tensors++
	putText(&m.infos, name)
	put(&m.infos, uint32(len(dims)))
	put(&m.infos, dims)
	put(&m.infos, uint32(0)) // 32-bit floats
	put(&m.infos, uint64(m.data.Len()))
	put(&m.data, values)
	pad(&m.data)
}

func (m *file) bytes() []byte {
	var out bytes.Buffer
	out.WriteString("GGUF")
	put(&out, uint32(3))
	put(&out, m.tensors)
	put(&out, m.pairCount)
	out.Write(m.pairs.Bytes())
	out.Write(m.infos.Bytes())
	pad(&out)
	out.Write(m.data.Bytes())
	return out.Bytes()
}
