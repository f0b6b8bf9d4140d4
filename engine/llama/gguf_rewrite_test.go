//go:build llama

package llama

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// A model with another chat template and other special tokens is made of the demo model by rewriting its header.

const (
	ggufString = 8
	ggufArray  = 9
)

var ggufSizes = map[uint32]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

type ggufReader struct {
	data []byte
	at   int
}

func (r *ggufReader) take(n int) []byte { r.at += n; return r.data[r.at-n : r.at] }
func (r *ggufReader) u32() uint32       { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *ggufReader) u64() int          { return int(binary.LittleEndian.Uint64(r.take(8))) }
func (r *ggufReader) text() string      { return string(r.take(r.u64())) }

// value skips over a value and returns its bytes.
func (r *ggufReader) value(kind uint32) []byte {
	start := r.at
	switch kind {
	case ggufString:
		r.text()
	case ggufArray:
		element, n := r.u32(), r.u64()
		for range n {
			r.value(element)
		}
	default:
		r.take(ggufSizes[kind])
	}
	return r.data[start:r.at]
}

func putText(b *bytes.Buffer, s string) {
	binary.Write(b, binary.LittleEndian, uint64(len(s)))
	b.WriteString(s)
}

// replaceTokens rewrites a string or type array with other entries.
func replaceTokens(value []byte, change func(i int, old []byte) []byte) []byte {
	r := &ggufReader{data: value}
	var out bytes.Buffer
	out.Write(r.take(4))
	r.at = 0
	kind, n := r.u32(), r.u64()
	binary.Write(&out, binary.LittleEndian, uint64(n))
	for i := range n {
		out.Write(change(i, r.value(kind)))
	}
	return out.Bytes()
}

// demoWithTemplate writes a copy of the demo model with the template and special tokens of another family; the names
// take the first ids. If there are more of them than the demo model has, ordinary tokens at the end of the vocabulary
// become control tokens.
func demoWithTemplate(t testing.TB, template string, names []string) string {
	t.Helper()
	id := make(map[int]string)
	for i, name := range names {
		if i < 6 {
			id[i] = name
		} else {
			id[1024-i] = name
		}
	}
	return rewriteDemo(t, func(key string, value []byte) []byte {
		switch key {
		case "tokenizer.chat_template":
			var b bytes.Buffer
			putText(&b, template)
			value = b.Bytes()
		case "tokenizer.ggml.tokens":
			value = replaceTokens(value, func(i int, old []byte) []byte {
				if name, ok := id[i]; ok {
					var b bytes.Buffer
					putText(&b, name)
					return b.Bytes()
				}
				return old
			})
		case "tokenizer.ggml.token_type":
			value = replaceTokens(value, func(i int, old []byte) []byte {
				if _, ok := id[i]; ok {
					return []byte{3, 0, 0, 0} // control
				}
				return old
			})
		}
		return value
	})
}

// rewriteDemo writes a copy of the demo model with other values in its header.
func rewriteDemo(t testing.TB, change func(key string, value []byte) []byte) string {
	t.Helper()
	data, err := os.ReadFile(demoFile(t, "demo-q8_0.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	r := &ggufReader{data: data}
	var out bytes.Buffer
	out.Write(r.take(8))
	tensors, pairs := r.u64(), r.u64()
	binary.Write(&out, binary.LittleEndian, [2]uint64{uint64(tensors), uint64(pairs)})
	for range pairs {
		key, kind := r.text(), r.u32()
		value := change(key, r.value(kind))
		putText(&out, key)
		binary.Write(&out, binary.LittleEndian, kind)
		out.Write(value)
	}
	for range tensors {
		start := r.at
		r.text()
		r.take(8 * int(r.u32()))
		r.take(12)
		out.Write(data[start:r.at])
	}
	const alignment = 32
	out.Write(make([]byte, (alignment-out.Len()%alignment)%alignment))
	out.Write(data[(r.at+alignment-1)/alignment*alignment:])
	path := filepath.Join(t.TempDir(), "dressed.gguf")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
