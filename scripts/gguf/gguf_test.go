package gguf

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// small is a file with a tensor, and with a template if there is one.
func small(template string) []byte {
	var b bytes.Buffer
	b.WriteString("GGUF\x03\x00\x00\x00")
	pairs := uint64(2)
	if template != "" {
		pairs++
	}
	put(&b, 1)
	put(&b, pairs)
	putText(&b, "general.architecture")
	b.Write(binary.LittleEndian.AppendUint32(nil, typeString))
	putText(&b, "llama")
	if template != "" {
		putTemplate(&b, template)
	}
	putText(&b, "tokenizer.ggml.scores")
	b.Write(binary.LittleEndian.AppendUint32(nil, typeArray))
	b.Write(binary.LittleEndian.AppendUint32(nil, 6))
	put(&b, 2)
	b.Write(make([]byte, 8))
	putText(&b, "w")
	b.Write(binary.LittleEndian.AppendUint32(nil, 1))
	put(&b, 3)
	b.Write(make([]byte, 12))
	b.Write(make([]byte, aligned(b.Len())-b.Len()))
	b.WriteString("data")
	return b.Bytes()
}

func TestTemplateIsReplacedOrAdded(t *testing.T) {
	for name, old := range map[string]string{"replaced": "old template", "added": ""} {
		from, to := filepath.Join(t.TempDir(), "a.gguf"), filepath.Join(t.TempDir(), "b.gguf")
		if err := os.WriteFile(from, small(old), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := WithTemplate(from, to, "{{ messages }}"); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if header, rest, err := withTemplate(got, "{{ messages }}"); err != nil || !bytes.Equal(append(header, rest...), got) || string(rest) != "data" {
			t.Errorf("%s: the copy can't be read: %v, data %q", name, err, rest)
		}
		if !bytes.Contains(got, []byte("{{ messages }}")) || bytes.Contains(got, []byte("old template")) {
			t.Errorf("%s: the template isn't the new one", name)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add(small("x"))
	f.Add([]byte("GGUF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = withTemplate(data, "t") // an error, never a panic
	})
}
