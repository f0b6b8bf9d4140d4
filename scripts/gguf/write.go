package gguf

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Types of values in a header, from the GGUF specification, version 3.
const (
	typeUint32  = 4
	typeInt32   = 5
	typeFloat32 = 6
	typeBool    = 7
)

// Types of tensors.
const (
	F32  uint32 = 0
	F16  uint32 = 1
	Q8_0 uint32 = 8
	Q4_K uint32 = 12
	Q6_K uint32 = 14
)

// blocks says how many values of a type lie together, and in how many bytes.
var blocks = map[uint32]struct{ values, bytes int }{
	F32: {1, 4}, F16: {1, 2}, Q8_0: {32, 34}, Q4_K: {256, 144}, Q6_K: {256, 210},
}

// Tensor is a matrix; a row lies contiguous and is whole blocks long. A vector has one row.
type Tensor struct {
	Name       string
	Rows, Cols int
	Type       uint32
	Offset     int64 // behind the header
}

// Size is its length in bytes.
func (t Tensor) Size() int64 {
	b := blocks[t.Type]
	return int64(t.Rows) * int64(t.Cols) / int64(b.values) * int64(b.bytes)
}

// BlockBytes is the length of one block.
func (t Tensor) BlockBytes() int { return blocks[t.Type].bytes }

// WithOffsets lays tensors one behind the other.
func WithOffsets(list []Tensor) []Tensor {
	offset := int64(0)
	for i := range list {
		list[i].Offset = offset
		offset += (list[i].Size() + alignment - 1) / alignment * alignment
	}
	return list
}

// Writer writes a file from its beginning to its end; the first error is kept. Begin comes first, then as many pairs as
// it was told, then Describe, then the tensors' data.
type Writer struct {
	w       *bufio.Writer
	written int64
	pairs   int
	err     error
}

// NewWriter returns a writer, which buffers.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 1<<20)} }

// Begin writes what every file begins with.
func (w *Writer) Begin(tensors []Tensor, pairs int) {
	w.Bytes([]byte("GGUF"))
	w.U32(3)
	w.u64(uint64(len(tensors)))
	w.u64(uint64(pairs))
}

// Describe writes the table of the tensors, which ends the header, and returns where their data begins.
func (w *Writer) Describe(tensors []Tensor) int64 {
	for _, t := range tensors {
		w.Text(t.Name)
		if t.Rows == 1 {
			w.U32(1)
			w.u64(uint64(t.Cols))
		} else {
			w.U32(2)
			w.u64(uint64(t.Cols))
			w.u64(uint64(t.Rows))
		}
		w.U32(t.Type)
		w.u64(uint64(t.Offset))
	}
	w.Pad()
	return w.written
}

// Bytes writes bytes as they are.
func (w *Writer) Bytes(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
		w.written += int64(len(b))
	}
}

// U32 writes a number without a key: an element of a list, or a part of a tensor.
func (w *Writer) U32(v uint32) { w.Bytes(binary.LittleEndian.AppendUint32(nil, v)) }

// Text writes a text without a key: an element of a list.
func (w *Writer) Text(s string) {
	w.u64(uint64(len(s)))
	w.Bytes([]byte(s))
}

// Pad writes zeros up to where a tensor may begin.
func (w *Writer) Pad() { w.Bytes(make([]byte, (alignment-w.written%alignment)%alignment)) }

// Finish writes what is left and returns the first error.
func (w *Writer) Finish() error {
	w.Pad()
	if err := w.w.Flush(); w.err == nil {
		w.err = err
	}
	return w.err
}

func (w *Writer) u64(v uint64) { w.Bytes(binary.LittleEndian.AppendUint64(nil, v)) }

// Pairs is the number of pairs that were written.
func (w *Writer) Pairs() int { return w.pairs }

func (w *Writer) key(name string, kind uint32) {
	w.pairs++
	w.Text(name)
	w.U32(kind)
}

// PutNumber, PutFloat, PutText and PutFlag write a pair.
func (w *Writer) PutNumber(key string, v int) {
	w.key(key, typeUint32)
	w.U32(uint32(v))
}

func (w *Writer) PutFloat(key string, v float32) {
	w.key(key, typeFloat32)
	w.U32(math.Float32bits(v))
}

func (w *Writer) PutText(key, v string) {
	w.key(key, typeString)
	w.Text(v)
}

func (w *Writer) PutFlag(key string, v bool) {
	w.key(key, typeBool)
	if v {
		w.Bytes([]byte{1})
	} else {
		w.Bytes([]byte{0})
	}
}

// PutTexts writes a list of texts.
func (w *Writer) PutTexts(key string, list []string) {
	w.list(key, typeString, len(list))
	for _, s := range list {
		w.Text(s)
	}
}

// PutInts writes a list of signed numbers.
func (w *Writer) PutInts(key string, list []int32) {
	w.list(key, typeInt32, len(list))
	for _, v := range list {
		w.U32(uint32(v))
	}
}

func (w *Writer) list(key string, kind uint32, n int) {
	w.key(key, typeArray)
	w.U32(kind)
	w.u64(uint64(n))
}

// HalfFloat converts a number that isn't negative to IEEE binary16, cutting the mantissa.
func HalfFloat(v float32) uint16 {
	bits := math.Float32bits(v)
	exponent := int(bits>>23&0xff) - 127 + 15
	if exponent <= 0 { // subnormal
		return uint16(v * (1 << 24))
	}
	return uint16(exponent<<10) | uint16(bits>>13&0x3ff)
}

// Vocabulary is what a file says of its tokens.
type Vocabulary struct {
	Model, Pre string
	Tokens     []string
	Kinds      []int32
	Merges     []string
	Begin, End int
}

// ReadVocabulary reads the vocabulary of a model's file whose tokenizer has merges.
func ReadVocabulary(data []byte) (*Vocabulary, error) {
	r := &reader{data: data}
	r.take(8) // magic, version
	r.u64()
	v := &Vocabulary{Begin: -1, End: -1}
	for n := r.u64(); n > 0 && r.err == nil; n-- {
		key, kind := r.text(), r.u32()
		switch {
		case key == "tokenizer.ggml.model" && kind == typeString:
			v.Model = r.text()
		case key == "tokenizer.ggml.pre" && kind == typeString:
			v.Pre = r.text()
		case key == "tokenizer.ggml.tokens" && kind == typeArray:
			v.Tokens = r.texts()
		case key == "tokenizer.ggml.merges" && kind == typeArray:
			v.Merges = r.texts()
		case key == "tokenizer.ggml.token_type" && kind == typeArray:
			v.Kinds = r.ints()
		case key == "tokenizer.ggml.bos_token_id" && kind == typeUint32:
			v.Begin = int(r.u32())
		case key == "tokenizer.ggml.eos_token_id" && kind == typeUint32:
			v.End = int(r.u32())
		default:
			r.skip(kind, 0)
		}
	}
	if r.err != nil {
		return nil, fmt.Errorf("read the vocabulary: %w", r.err)
	}
	if n := len(v.Tokens); len(v.Merges) == 0 || len(v.Kinds) != n || v.Begin < 0 || v.Begin >= n || v.End < 0 || v.End >= n {
		return nil, fmt.Errorf("read the vocabulary: %d tokens, %d kinds, %d merges, first %d, last %d", n, len(v.Kinds), len(v.Merges), v.Begin, v.End)
	}
	return v, nil
}

// texts reads a list of texts.
func (r *reader) texts() (list []string) {
	for n := r.elements(typeString); n > 0 && r.err == nil; n-- {
		list = append(list, r.text())
	}
	return list
}

// ints reads a list of signed numbers.
func (r *reader) ints() (list []int32) {
	for n := r.elements(typeInt32); n > 0 && r.err == nil; n-- {
		list = append(list, int32(r.u32()))
	}
	return list
}

// elements reads the head of a list, whose elements must be of a type, and returns how many there are.
func (r *reader) elements(kind uint32) uint64 {
	if found := r.u32(); found != kind && r.err == nil {
		r.err = fmt.Errorf("a list of type %d where one of %d should be", found, kind)
	}
	return r.u64()
}
