//go:build llama

package llama

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	testExperts     = 4
	testExpertsUsed = 2
)

// demoWithExperts writes a copy of the demo model whose feed-forward matrices are those of four experts, of which a
// random router takes two. What it answers is nonsense.
func demoWithExperts(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(demoFile(t, "demo-q8_0.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	r := &ggufReader{data: data}
	r.take(8)
	tensors, pairs := r.u64(), r.u64()
	keys := r.at
	for range pairs {
		r.text()
		r.value(r.u32())
	}
	header := bytes.NewBuffer(append([]byte(nil), data[keys:r.at]...))
	for key, value := range map[string]uint32{"llama.expert_count": testExperts, "llama.expert_used_count": testExpertsUsed} {
		putText(header, key)
		binary.Write(header, binary.LittleEndian, []uint32{4, value})
	}
	var weights []byte
	count := 0
	add := func(name string, dims []uint64, kind uint32, content []byte) {
		putText(header, name)
		binary.Write(header, binary.LittleEndian, uint32(len(dims)))
		binary.Write(header, binary.LittleEndian, dims)
		binary.Write(header, binary.LittleEndian, kind)
		binary.Write(header, binary.LittleEndian, uint64(len(weights)))
		weights = append(weights, content...)
		weights = append(weights, make([]byte, (32-len(weights)%32)%32)...)
		count++
	}
	type old struct {
		name       string
		dims       []uint64
		kind       uint32
		from, size int
	}
	var list []old
	for range tensors {
		o := old{name: r.text(), size: 1}
		for range r.u32() {
			o.dims = append(o.dims, uint64(r.u64()))
			o.size *= int(o.dims[len(o.dims)-1])
		}
		o.kind, o.from = r.u32(), r.u64()
		switch o.kind {
		case tensorF32:
			o.size *= 4
		case tensorF16:
			o.size *= 2
		case tensorQ8_0:
			o.size = o.size / 32 * 34
		default:
			t.Fatalf("%s is of type %d", o.name, o.kind)
		}
		list = append(list, o)
	}
	body := data[(r.at+31)/32*32:]
	random := rand.New(rand.NewPCG(8, 9))
	for _, o := range list {
		content := body[o.from : o.from+o.size]
		if !strings.Contains(o.name, ".ffn_") || strings.Contains(o.name, "norm") {
			add(o.name, o.dims, o.kind, content)
			continue
		}
		add(strings.Replace(o.name, ".weight", "_exps.weight", 1), append(o.dims, testExperts), o.kind, bytes.Repeat(content, testExperts))
		if strings.Contains(o.name, "ffn_gate") {
			var router []byte
			for range o.dims[0] * testExperts {
				router = binary.LittleEndian.AppendUint32(router, math.Float32bits(float32(random.NormFloat64())))
			}
			add(strings.Replace(o.name, "ffn_gate", "ffn_gate_inp", 1), []uint64{o.dims[0], testExperts}, tensorF32, router)
		}
	}
	var out bytes.Buffer
	out.WriteString("GGUF")
	binary.Write(&out, binary.LittleEndian, uint32(3))
	binary.Write(&out, binary.LittleEndian, []uint64{uint64(count), uint64(pairs + 2)})
	out.Write(header.Bytes())
	out.Write(make([]byte, (32-out.Len()%32)%32))
	out.Write(weights)
	path := filepath.Join(t.TempDir(), "experts.gguf")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
