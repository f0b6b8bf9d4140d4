package models

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

func TestReadHeader(t *testing.T) {
	file := gguf("model", 7)
	h, err := readHeader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if want := (ggufHeader{Architecture: "llama", Type: "model", TrainContext: 512, Tensors: 2}); h != want {
		t.Errorf("header %+v, want %+v", h, want)
	}
}

func TestReadHeaderOfTheDemo(t *testing.T) {
	for _, f := range realDemo(t).Files {
		read := func(size int64) (ggufHeader, error) { // the data behind the header isn't unpacked
			r, err := xz.NewReader(bytes.NewReader(f.Packed))
			if err != nil {
				t.Fatal(err)
			}
			return readHeader(r, size)
		}
		h, err := read(f.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		wantType, wantTensors, wantQuantization := "model", 38, "Q8_0"
		if f.Version != "" {
			wantType, wantTensors, wantQuantization = "adapter", 56, h.Quantization
		}
		if h.Architecture != "llama" || h.Quantization != wantQuantization || h.Type != wantType || h.Tensors != wantTensors {
			t.Errorf("version %q: header %+v", f.Version, h)
		}
		if _, err := read(f.Bytes - 33); err == nil {
			t.Errorf("version %q: a file without its last bytes passes", f.Version)
		}
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	file := gguf("model", 7)
	for n := range file {
		if _, err := readHeader(bytes.NewReader(file[:n]), int64(n)); err == nil {
			t.Fatalf("the first %d of %d bytes pass", n, len(file))
		}
	}
}

func TestReadHeaderRefuses(t *testing.T) {
	le := binary.LittleEndian
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(gguf("model", 7))
		f(b)
		return b
	}
	at := func(b []byte, s string) int { return bytes.Index(b, []byte(s)) }
	tests := []struct {
		name, want string
		file       []byte
	}{
		{"magic", "doesn't begin", change(func(b []byte) { b[0] = 'X' })},
		{"big endian version", "version", change(func(b []byte) { le.PutUint32(b[4:], 3<<24) })},
		{"tensor count", "too many", change(func(b []byte) { le.PutUint64(b[8:], 1<<40) })},
		{"pair count", "too many", change(func(b []byte) { le.PutUint64(b[16:], 1<<63) })},
		{"key length", "name of", change(func(b []byte) { le.PutUint64(b[24:], 1<<62) })},
		{"alignment", "power of two", change(func(b []byte) { le.PutUint32(b[at(b, "general.alignment")+17+4:], 33) })},
		{"value type", "unknown", change(func(b []byte) { le.PutUint32(b[at(b, "some.floats")+11:], 77) })},
		{"array length", "larger than", change(func(b []byte) { le.PutUint64(b[at(b, "some.floats")+11+8:], 1<<61) })},
		{"array of arrays", "unknown", change(func(b []byte) { le.PutUint32(b[at(b, "some.floats")+11+4:], ggufArray) })},
		{"dimensions", "dimensions", change(func(b []byte) { le.PutUint32(b[at(b, "a.weight")+8:], 5) })},
		{"shape overflow", "impossible", change(func(b []byte) { le.PutUint64(b[at(b, "b.weight")+8+4:], 1<<63) })},
		{"shape too large", "cut off", change(func(b []byte) { le.PutUint64(b[at(b, "a.weight")+8+4:], 1<<40) })},
		{"block", "don't fit blocks", change(func(b []byte) { le.PutUint64(b[at(b, "b.weight")+8+4:], 33) })},
		{"offset", "cut off", change(func(b []byte) { le.PutUint64(b[at(b, "a.weight")+8+4+8+4:], 1<<63) })},
		{"alignment of data", "aligned", change(func(b []byte) { le.PutUint64(b[at(b, "a.weight")+8+4+8+4:], 1) })},
		{"no architecture", "missing", change(func(b []byte) { copy(b[at(b, "general.arch"):], "GENERAL") })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readHeader(bytes.NewReader(tt.file), int64(len(tt.file)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func FuzzGGUFHeader(f *testing.F) {
	f.Add(gguf("model", 1))
	f.Add(gguf("adapter", 1))
	f.Add(gguf("model", 1)[:100])
	f.Add([]byte("GGUF"))
	f.Fuzz(func(t *testing.T, file []byte) {
		h, err := readHeader(bytes.NewReader(file), int64(len(file)))
		if err == nil && (h.Architecture == "" || h.Tensors > len(file)) {
			t.Errorf("accepted %+v from %d bytes", h, len(file))
		}
	})
}
