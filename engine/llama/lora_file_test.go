//go:build llama

package llama

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Tensor types of a GGUF file.
const (
	tensorF32  = 0
	tensorF16  = 1
	tensorQ8_0 = 8
)

// loraFile describes a random LoRA adapter.
type loraFile struct {
	rank    int
	kind    uint32  // type of its tensors
	alpha   float32 // 0: none, so the scale is 1
	size    float64 // of the weights in B
	weights string  // regular expression; empty: all matrices of the layers
	seed    uint64
	widened bool // the same numbers, each as F32
}

// weightShape is a matrix of the base: rows of cols numbers, experts times.
type weightShape struct {
	name                string
	cols, rows, experts int
}

// matricesOf reads the header of a model: its architecture and its matrices.
func matricesOf(t testing.TB, path string) (architecture string, list []weightShape) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &ggufReader{data: data}
	r.take(8)
	tensors, pairs := r.u64(), r.u64()
	for range pairs {
		key, kind := r.text(), r.u32()
		value := r.value(kind)
		if key == "general.architecture" {
			architecture = string(value[8:])
		}
	}
	for range tensors {
		name, dims := r.text(), []int{1, 1, 1, 1}
		n := int(r.u32())
		for i := range n {
			dims[i] = r.u64()
		}
		r.take(12)
		if n > 1 {
			list = append(list, weightShape{name, dims[0], dims[1], dims[2]})
		}
	}
	return architecture, list
}

// write makes the adapter for a base in a file of the test's directory.
func (l loraFile) write(t testing.TB, base string) string {
	t.Helper()
	architecture, all := matricesOf(t, base)
	pattern := l.weights
	if pattern == "" {
		pattern = `^blk\.\d+\.(attn|ffn)_[a-z_]+\.weight$`
	}
	wanted := regexp.MustCompile(pattern)
	random := rand.New(rand.NewPCG(l.seed, 5))
	var names bytes.Buffer
	var weights []byte
	tensors := 0
	add := func(name string, cols, rows, experts int, size float64) {
		putText(&names, name)
		stored := l.kind
		if l.widened {
			stored = tensorF32
		}
		for _, v := range []any{uint32(3), uint64(cols), uint64(rows), uint64(experts), stored, uint64(len(weights))} {
			binary.Write(&names, binary.LittleEndian, v)
		}
		for range cols * rows * experts / 32 {
			var block [32]float32
			for i := range block {
				block[i] = float32(random.NormFloat64() * size)
			}
			weights = l.appendBlock(weights, block)
		}
		weights = append(weights, make([]byte, (32-len(weights)%32)%32)...)
		tensors++
	}
	for _, w := range all {
		switch {
		case !wanted.MatchString(w.name):
		case w.name == "token_embd.weight": // A and B the other way round
			add(w.name+".lora_a", l.rank, w.rows, 1, 0.2)
			add(w.name+".lora_b", l.rank, w.cols, 1, l.size)
		default:
			add(w.name+".lora_a", w.cols, l.rank, w.experts, 1/math.Sqrt(float64(w.cols)))
			add(w.name+".lora_b", l.rank, w.rows, w.experts, l.size)
		}
	}
	if tensors == 0 {
		t.Fatalf("%s has no weights like %s", base, pattern)
	}
	var out bytes.Buffer
	out.WriteString("GGUF")
	binary.Write(&out, binary.LittleEndian, uint32(3))
	binary.Write(&out, binary.LittleEndian, []uint64{uint64(tensors), 4})
	for _, pair := range [][2]string{{"general.type", "adapter"}, {"general.architecture", architecture}, {"adapter.type", "lora"}} {
		putText(&out, pair[0])
		binary.Write(&out, binary.LittleEndian, uint32(ggufString))
		putText(&out, pair[1])
	}
	putText(&out, "adapter.lora.alpha")
	binary.Write(&out, binary.LittleEndian, uint32(6))
	binary.Write(&out, binary.LittleEndian, l.alpha)
	out.Write(names.Bytes())
	out.Write(make([]byte, (32-out.Len()%32)%32))
	out.Write(weights)
	path := filepath.Join(t.TempDir(), fmt.Sprintf("lora-%d-%t.gguf", l.seed, l.widened))
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// appendBlock rounds the numbers to the file's type and appends them.
func (l loraFile) appendBlock(to []byte, block [32]float32) []byte {
	var packed []byte
	switch l.kind {
	case tensorF16:
		for i, v := range block {
			packed = binary.LittleEndian.AppendUint16(packed, half(v))
			block[i] = fromHalf(half(v))
		}
	case tensorQ8_0:
		most := float32(0)
		for _, v := range block {
			most = max(most, float32(math.Abs(float64(v))))
		}
		scale := fromHalf(half(most / 127))
		packed = binary.LittleEndian.AppendUint16(packed, half(scale))
		for i, v := range block {
			n := int8(max(-127, min(127, math.Round(float64(v/scale)))))
			packed = append(packed, byte(n))
			block[i] = float32(n) * scale
		}
	}
	if packed != nil && !l.widened {
		return append(to, packed...)
	}
	for _, v := range block {
		to = binary.LittleEndian.AppendUint32(to, math.Float32bits(v))
	}
	return to
}

// half rounds a small number to half precision; subnormal ones become zero.
func half(v float32) uint16 {
	bits := math.Float32bits(v) + 1<<12
	exponent := int(bits>>23&0xff) - 127 + 15
	sign := uint16(bits >> 16 & 0x8000)
	if exponent <= 0 {
		return sign
	}
	return sign | uint16(exponent)<<10 | uint16(bits>>13&0x3ff)
}

func fromHalf(h uint16) float32 {
	if h&0x7fff == 0 {
		return 0
	}
	return math.Float32frombits(uint32(h&0x8000)<<16 | uint32(int(h>>10&0x1f)-15+127)<<23 | uint32(h&0x3ff)<<13)
}
