package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"tandem/scripts/gguf"
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
	var tensors []gguf.Tensor
	for layer := range smolLayers {
		for _, m := range adapterMatrices {
			name := fmt.Sprintf("blk.%d.%s.weight", layer, m.name)
			tensors = append(tensors, gguf.Tensor{Name: name + ".lora_a", Rows: adapterRank, Cols: m.in, Type: gguf.F16},
				gguf.Tensor{Name: name + ".lora_b", Rows: m.out, Cols: adapterRank, Type: gguf.F16})
		}
	}
	g := gguf.NewWriter(f)
	const keys = 4
	g.Begin(gguf.WithOffsets(tensors), keys)
	g.PutText("general.type", "adapter")
	g.PutText("general.architecture", "llama")
	g.PutText("adapter.type", "lora")
	g.PutFloat("adapter.lora.alpha", adapterAlpha)
	g.Describe(tensors)
	random := rand.New(rand.NewPCG(seed, 3))
	for _, t := range tensors {
		writeSmallWeights(g, t, random)
	}
	if err := g.Finish(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".part", path)
}

// writeSmallWeights writes normally distributed values with a deviation of 0.02.
func writeSmallWeights(g *gguf.Writer, t gguf.Tensor, random *rand.Rand) {
	values := make([]byte, 0, t.Size())
	for range t.Rows * t.Cols {
		v := float32(random.NormFloat64() * 0.02)
		half := gguf.HalfFloat(max(v, -v))
		if v < 0 {
			half |= 1 << 15
		}
		values = binary.LittleEndian.AppendUint16(values, half)
	}
	g.Bytes(values)
	g.Pad()
}
