// Package gguf writes GGUF files, reads the vocabulary of one, and changes the chat template of one: for tests that
// need a real model with another template, and benchmarks that need models of a shape and no sense.
package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

const (
	typeString  = 8
	typeArray   = 9
	templateKey = "tokenizer.chat_template"
	alignment   = 32 // of the tensors' data; the files that tests use say no other
)

var sizes = map[uint32]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

// WithTemplate writes a copy of a model with another chat template.
func WithTemplate(from, to, template string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	header, rest, err := withTemplate(data, template)
	if err != nil {
		return fmt.Errorf("chat template of %s: %w", from, err)
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(header)
	if err == nil {
		_, err = f.Write(rest)
	}
	return errors.Join(err, f.Close())
}

// withTemplate returns the header with another template, up to the tensors' data, and the data.
func withTemplate(data []byte, template string) (header, rest []byte, err error) {
	r := &reader{data: data}
	var out bytes.Buffer
	out.Write(r.take(8)) // magic, version
	tensors, pairs := r.u64(), r.u64()
	countAt := out.Len() + 8
	put(&out, tensors)
	put(&out, pairs)
	found := false
	for i := uint64(0); i < pairs && r.err == nil; i++ {
		start := r.at
		key, kind := r.text(), r.u32()
		r.skip(kind, 0)
		if key != templateKey {
			out.Write(r.data[start:r.at])
			continue
		}
		found = true
		putTemplate(&out, template)
	}
	if !found {
		putTemplate(&out, template)
		binary.LittleEndian.PutUint64(out.Bytes()[countAt:], pairs+1)
	}
	start := r.at
	for i := uint64(0); i < tensors && r.err == nil; i++ {
		r.text()
		r.take(8 * int(min(r.u32(), 8)))
		r.take(12)
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	out.Write(r.data[start:r.at])
	out.Write(make([]byte, aligned(out.Len())-out.Len()))
	return out.Bytes(), data[min(aligned(r.at), len(data)):], nil
}

func aligned(n int) int { return (n + alignment - 1) / alignment * alignment }

func put(b *bytes.Buffer, n uint64) { b.Write(binary.LittleEndian.AppendUint64(nil, n)) }

func putText(b *bytes.Buffer, s string) {
	put(b, uint64(len(s)))
	b.WriteString(s)
}

func putTemplate(b *bytes.Buffer, template string) {
	putText(b, templateKey)
	b.Write(binary.LittleEndian.AppendUint32(nil, typeString))
	putText(b, template)
}

// reader reads a header; after the first error it gives zeros.
type reader struct {
	data []byte
	at   int
	err  error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.data)-r.at) {
		r.err = errors.New("the header is cut off")
	}
	if r.err != nil {
		return make([]byte, 8)
	}
	r.at += n
	return r.data[r.at-n : r.at]
}

func (r *reader) u32() uint32  { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64  { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *reader) text() string { return string(r.take(int(min(r.u64(), uint64(len(r.data)))))) }

// skip skips a value.
func (r *reader) skip(kind uint32, depth int) {
	switch {
	case kind == typeString:
		r.text()
	case kind == typeArray && depth < 4:
		element, n := r.u32(), r.u64()
		for i := uint64(0); i < n && r.err == nil; i++ {
			r.skip(element, depth+1)
		}
	case sizes[kind] > 0:
		r.take(sizes[kind])
	default:
		r.err = fmt.Errorf("a value of type %d", kind)
	}
}
