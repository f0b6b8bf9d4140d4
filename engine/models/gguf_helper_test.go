package models

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
)

// gguf makes a small valid file; kind is model or adapter. Different salts give different content of the same length.
func gguf(kind string, salt byte) []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a Buffer doesn't fail
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(2)) // tensors
	put(uint64(6)) // pairs
	text("general.architecture")
	put(uint32(ggufString))
	text("llama")
	text("general.type")
	put(uint32(ggufString))
	text(kind)
	text("llama.context_length")
	put(uint32(ggufUint32))
	put(uint32(512))
	text("general.alignment")
	put(uint32(ggufUint32))
	put(uint32(32))
	text("tokenizer.ggml.tokens")
	put(uint32(ggufArray))
	put(uint32(ggufString))
	put(uint64(3))
	text("a")
	text("")
	text("abc")
	text("some.floats")
	put(uint32(ggufArray))
	put(uint32(6))
	put(uint64(2))
	put([]float32{1, 2})
	tensor := func(name string, kind uint32, offset uint64, dims ...uint64) {
		text(name)
		put(uint32(len(dims)))
		put(dims)
		put(kind)
		put(offset)
	}
	tensor("a.weight", 0, 0, 16)     // 64 bytes of F32
	tensor("b.weight", 8, 64, 32, 2) // 68 bytes of Q8_0
	for b.Len()%32 != 0 {
		b.WriteByte(0)
	}
	b.Write(bytes.Repeat([]byte{salt}, 64+68))
	return b.Bytes()
}

// emptyGGUF is a valid header with nothing behind it.
func emptyGGUF(kind string) []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a Buffer doesn't fail
	b.WriteString("GGUF")
	put(uint32(3))
	put([2]uint64{0, 2}) // tensors, pairs
	for _, pair := range [][2]string{{"general.architecture", "llama"}, {"general.type", kind}} {
		put(uint64(len(pair[0])))
		b.WriteString(pair[0])
		put(uint32(ggufString))
		put(uint64(len(pair[1])))
		b.WriteString(pair[1])
	}
	return b.Bytes()
}

func packed(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 16, BlockSize: 200}.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// longAgo is before any clock of a test, so that files are settled at once.
var longAgo = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// place writes a file with an old modification time.
func place(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	return placeAt(t, dir, name, content, longAgo)
}

func placeAt(t testing.TB, dir, name string, content []byte, mtime time.Time) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path+".new", mtime, mtime); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// realDemo reads the built-in model from its source directory; this package may not import the one that embeds it.
func realDemo(t testing.TB) *Demo {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "demo", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return &Demo{Name: "demo", Description: "built in", Files: []EmbeddedFile{
		{Packed: read("demo-q8_0.gguf.xz"), Bytes: 1603680, SHA256: "c06d2dd2797610efbf2907b83ebdb19d2012a6d0e758f19f3d322179b7f28983"},
		{Version: "v1.0", Packed: read("demo-lora-v1.0.gguf.xz"), Bytes: 196576, SHA256: "3bbffc934ce9ac01b5ee64cab5e1cdd4bccd2792f6467fa8934a9d854897e302"},
	}}
}

func newTestRegistry(t testing.TB, o RegistryOptions) *Registry {
	t.Helper()
	r, err := NewRegistry(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// smallDemo is a demo model that is quicker to unpack.
func smallDemo(t testing.TB) *Demo {
	t.Helper()
	file := func(version, kind string) EmbeddedFile {
		raw := gguf(kind, 42)
		return EmbeddedFile{Version: version, Packed: packed(t, raw), Bytes: int64(len(raw)), SHA256: sha256Hex(raw)}
	}
	return &Demo{Name: "demo", Files: []EmbeddedFile{file("", "model"), file("v1.0", "adapter")}}
}
