package randommodel

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"tandem/scripts/gguf"
)

// The deviation of a block's values when all its integers are uniform, in units of its scale: it makes the scale that
// gives a matrix values of deviation 1/sqrt(columns), with which activations neither grow nor vanish.
const (
	// Of scale times quant less minimum: scales and minimums are 0 to 63, quants 0 to 15. The scale of the minimums is
	// 7.5 times the other, which makes the mean 0.
	deviationQ4K = 258
	meanQuantQ4K = 7.5
	// Of scale times quant: scales are -128 to 127, quants -32 to 31.
	deviationQ6K = 1365
	// Of an adapter's values: small, so that answers stay those of the model.
	adapterDeviation = 0.02
)

// fill writes the values of a tensor into b, which holds whole blocks of it.
func fill(b []byte, t gguf.Tensor, random *rand.ChaCha8) {
	switch t.Type {
	case gguf.F32:
		for i := 0; i < len(b); i += 4 {
			binary.LittleEndian.PutUint32(b[i:], math.Float32bits(1))
		}
	case gguf.F16:
		fillHalves(b, random)
	case gguf.Q4_K:
		fillQ4K(b, t, random)
	case gguf.Q6_K:
		fillQ6K(b, t, random)
	}
}

// fillHalves makes uniform values: the sum of many is what counts.
func fillHalves(b []byte, random *rand.ChaCha8) {
	const reach = adapterDeviation * 1.732 // of a uniform value of that deviation
	for i := 0; i < len(b); i += 8 {
		bits := random.Uint64()
		for j := i; j < min(i+8, len(b)); j += 2 {
			half := gguf.HalfFloat(reach * float32(bits&0x7fff) / 0x8000)
			binary.LittleEndian.PutUint16(b[j:], half|uint16(bits&0x8000))
			bits >>= 16
		}
	}
}

// A block of Q4_K: scale and scale of the minimums, twelve bytes with both of eight groups, and the quants.
func fillQ4K(b []byte, t gguf.Tensor, random *rand.ChaCha8) {
	scale := 1 / (math.Sqrt(float64(t.Cols)) * deviationQ4K)
	head := binary.LittleEndian.AppendUint16(nil, gguf.HalfFloat(float32(scale)))
	head = binary.LittleEndian.AppendUint16(head, gguf.HalfFloat(float32(scale*meanQuantQ4K)))
	_, _ = random.Read(b) // never fails
	for i := 0; i < len(b); i += t.BlockBytes() {
		copy(b[i:], head)
	}
}

// A block of Q6_K: the quants in two parts, the scales of sixteen groups, and the scale of these.
func fillQ6K(b []byte, t gguf.Tensor, random *rand.ChaCha8) {
	scale := gguf.HalfFloat(float32(1 / (math.Sqrt(float64(t.Cols)) * deviationQ6K)))
	_, _ = random.Read(b) // never fails
	for i := t.BlockBytes(); i <= len(b); i += t.BlockBytes() {
		binary.LittleEndian.PutUint16(b[i-2:], scale)
	}
}
