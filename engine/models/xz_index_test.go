package models

import (
	"bytes"
	"strings"
	"testing"
)

func unpackedSizeOf(b []byte) (int64, error) { return unpackedSize(bytes.NewReader(b), int64(len(b))) }

func TestPackedSize(t *testing.T) {
	content := gguf("model", 3) // several blocks
	one := packed(t, content)
	tests := []struct {
		name string
		file []byte
		want int
	}{
		{"one stream", one, len(content)},
		{"two streams", append(bytes.Clone(one), one...), 2 * len(content)},
		{"padding", append(bytes.Clone(one), make([]byte, 8)...), len(content)},
		{"demo", realDemo(t).Files[0].Packed, 1603680},
	}
	for _, tt := range tests {
		if got, err := unpackedSizeOf(tt.file); err != nil || got != int64(tt.want) {
			t.Errorf("%s: %d, %v, want %d", tt.name, got, err, tt.want)
		}
	}
}

func TestPackedSizeRefuses(t *testing.T) {
	file := packed(t, gguf("model", 3))
	for n := range file {
		if _, err := unpackedSizeOf(file[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes pass", n, len(file))
		}
	}
	front := file[20:]
	if _, err := unpackedSizeOf(front); err == nil {
		t.Error("a file without its front passes")
	}
	// The dictionary code of the first block: 28 is 64 MiB, 30 is 128 MiB.
	at := bytes.Index(file, []byte{0x21, 0x01})
	huge := bytes.Clone(file)
	huge[at+2] = 30
	if _, err := unpackedSizeOf(huge); err == nil || !strings.Contains(err.Error(), "128 MiB") {
		t.Errorf("a dictionary of 128 MiB: %v", err)
	}
	huge[at+2] = 28
	if _, err := unpackedSizeOf(huge); err != nil {
		t.Errorf("a dictionary of 64 MiB: %v", err)
	}
}

func FuzzPackedSize(f *testing.F) {
	f.Add(packed(f, gguf("model", 3)))
	f.Add([]byte("\xfd7zXZ\x00"))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, file []byte) {
		if n, err := unpackedSizeOf(file); err == nil && n <= 0 {
			t.Errorf("accepted a size of %d", n)
		}
	})
}
