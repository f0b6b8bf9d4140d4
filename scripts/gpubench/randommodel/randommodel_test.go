package randommodel

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"tandem/scripts/gguf"
)

// half is the value of an IEEE binary16 that isn't negative.
func half(h uint16) float64 {
	exponent, mantissa := int(h>>10), float64(h&0x3ff)
	if exponent == 0 {
		return mantissa * math.Pow(2, -24)
	}
	return (1 + mantissa/1024) * math.Pow(2, float64(exponent-15))
}

// valuesQ4K are the values of one block, after the layout that ggml documents.
func valuesQ4K(b []byte) (values []float64) {
	d, dmin := half(binary.LittleEndian.Uint16(b)), half(binary.LittleEndian.Uint16(b[2:]))
	packed, quants := b[4:16], b[16:]
	for group := range 8 {
		var scale, minimum byte
		if group < 4 {
			scale, minimum = packed[group]&63, packed[group+4]&63
		} else {
			scale = packed[group+4]&15 | packed[group-4]>>6<<4
			minimum = packed[group+4]>>4 | packed[group]>>6<<4
		}
		for i := range 32 {
			q := quants[group/2*32+i] >> (group % 2 * 4) & 15
			values = append(values, d*float64(scale)*float64(q)-dmin*float64(minimum))
		}
	}
	return values
}

// valuesQ6K are the values of one block; their order doesn't matter here.
func valuesQ6K(b []byte) (values []float64) {
	low, high, scales, d := b[:128], b[128:192], b[192:208], half(binary.LittleEndian.Uint16(b[208:]))
	for part := range 2 {
		l, h, s := low[part*64:], high[part*32:], scales[part*8:]
		for i := range 32 {
			for k := range 4 {
				q := l[i+k%2*32]>>(k/2*4)&15 | h[i]>>(2*k)&3<<4
				values = append(values, d*float64(int8(s[i/16+2*k]))*(float64(q)-32))
			}
		}
	}
	return values
}

// The weights have no mean to speak of and the deviation that keeps activations as large as they are.
func TestWeightsKeepActivationsTheirSize(t *testing.T) {
	for name, c := range map[string]struct {
		kind   uint32
		values func([]byte) []float64
	}{"Q4_K": {gguf.Q4_K, valuesQ4K}, "Q6_K": {gguf.Q6_K, valuesQ6K}} {
		tensor := gguf.Tensor{Rows: 64, Cols: 4096, Type: c.kind}
		b := make([]byte, tensor.Size())
		fill(b, tensor, source(1, chunk{}))
		sum, squares, n := 0.0, 0.0, 0.0
		for at := 0; at < len(b); at += tensor.BlockBytes() {
			for _, v := range c.values(b[at : at+tensor.BlockBytes()]) {
				sum, squares, n = sum+v, squares+v*v, n+1
			}
		}
		want := 1 / math.Sqrt(4096)
		if mean, deviation := sum/n, math.Sqrt(squares/n); math.Abs(mean) > want/50 || math.Abs(deviation/want-1) > 0.05 || n != 64*4096 {
			t.Errorf("%s: mean %g, deviation %g of %g values, want 0 and %g", name, mean, deviation, n, want)
		}
	}
}

// The matrices of one layer must fit together, and a row must be whole blocks long.
func TestShapesAreSound(t *testing.T) {
	for _, s := range shapes {
		bytes := int64(0)
		for _, m := range s.tensors() {
			bytes += m.Size()
			if m.Type != gguf.F32 && m.Cols%256 != 0 {
				t.Errorf("%s: %s has rows of %d", s.Name, m.Name, m.Cols)
			}
		}
		t.Logf("%s: %.2f GB", s.Name, float64(bytes)/1e9)
		if s.Heads%s.KVHeads != 0 {
			t.Errorf("%s: %d heads, %d of keys and values", s.Name, s.Heads, s.KVHeads)
		}
	}
	if _, err := ShapeOf("70b"); err == nil {
		t.Error("no error for a shape that isn't there")
	}
}

func TestEqualSeedsGiveEqualFiles(t *testing.T) {
	dir := t.TempDir()
	tiny, err := ShapeOf("tiny")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for name, seed := range map[string]uint64{"one": 1, "again": 1, "two": 2} {
		path := filepath.Join(dir, name)
		if err := Write(path, tiny, seed); err != nil {
			t.Fatal(err)
		}
		if files[name], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files["one"], files["again"]) || bytes.Equal(files["one"], files["two"]) {
		t.Error("files depend on more or less than their seed")
	}
	v, err := gguf.ReadVocabulary(files["one"])
	if err != nil || len(v.Tokens) != tiny.Tokens || len(v.Merges) == 0 {
		t.Errorf("the vocabulary: %v", err)
	}
	if err := Write(filepath.Join(dir, "none", "x"), tiny, 1); err == nil {
		t.Error("no error where nothing can be written")
	}
}
