package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// The adapters of the real model: LoRA of rank 16 on all matrices of its 30 layers, random and small, so that answers
// stay text. The matrices are those of SmolLM2-135M.
const (
	adapterRank  = 16
	adapterAlpha = 16
	smolLayers   = 30
	smolEmbd     = 576
	smolKV       = 192
	smolFF       = 1536
)

// adapterMatrices are the matrices with their inputs and outputs.
var adapterMatrices = []struct {
	name    string
	in, out int
}{
	{"attn_q", smolEmbd, smolEmbd}, {"attn_k", smolEmbd, smolKV}, {"attn_v", smolEmbd, smolKV}, {"attn_output", smolEmbd, smolEmbd},
	{"ffn_gate", smolEmbd, smolFF}, {"ffn_up", smolEmbd, smolFF}, {"ffn_down", smolFF, smolEmbd},
}

// ensureAdapters writes the adapters a0, a1 … into a directory and returns their paths.
func ensureAdapters(dir string, n int) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("%s.gguf", adapterName(i)))
		if _, err := os.Stat(path); err != nil {
			if err := writeAdapter(path, uint64(i)); err != nil {
				return nil, err
			}
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func adapterName(i int) string { return fmt.Sprintf("a%d", i) }

func writeAdapter(path string, seed uint64) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	var tensors []tensor
	for layer := range smolLayers {
		for _, m := range adapterMatrices {
			name := fmt.Sprintf("blk.%d.%s.weight", layer, m.name)
			tensors = append(tensors, tensor{name: name + ".lora_a", rows: adapterRank, cols: m.in, kind: tensorF16},
				tensor{name: name + ".lora_b", rows: m.out, cols: adapterRank, kind: tensorF16})
		}
	}
	g := &gguf{w: bufio.NewWriterSize(f, 1<<20)}
	const keys = 4
	g.begin(withOffsets(tensors), keys)
	g.text("general.type", "adapter")
	g.text("general.architecture", "llama")
	g.text("adapter.type", "lora")
	g.float("adapter.lora.alpha", adapterAlpha)
	g.describe(tensors)
	random := rand.New(rand.NewPCG(seed, 3))
	for _, t := range tensors {
		g.smallWeights(t, random)
	}
	if err := g.finish(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".part", path)
}

// smallWeights writes normally distributed values with a deviation of 0.02.
func (g *gguf) smallWeights(t tensor, random *rand.Rand) {
	values := make([]byte, 0, t.size())
	for range t.rows * t.cols {
		v := float32(random.NormFloat64() * 0.02)
		half := halfFloat(max(v, -v))
		if v < 0 {
			half |= 1 << 15
		}
		values = binary.LittleEndian.AppendUint16(values, half)
	}
	g.bytes(values)
	g.pad()
}
