//go:build llama

package llama

import (
	"slices"
	"testing"

	"tandem/engine/models"
)

// A context leaves their room to weights that another load is about to read.
func TestAContextLeavesRoomForComingWeights(t *testing.T) {
	t.Setenv("TESTGPU_MEMORY", "64")
	b, _ := gpuBackend(t, "TestGPU0", func(o *Options) { o.CacheBytes = 0 })
	load := func() (cells int, free int64) {
		base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) { s.Parallel, s.WeightBytes = 128, 4<<20 })
		defer base.Close()
		return base.Limits().Cells, b.Accelerators()[0].FreeBytes
	}
	alone, _ := load()
	arrived := b.memory.expectWeights(30 << 20)
	beside, free := load()
	arrived()
	arrived()
	again, _ := load()
	if beside >= alone || free < 30<<20 || again != alone || b.memory.coming != 0 {
		t.Errorf("%d cells alone and %d afterwards, %d beside coming weights, which have %d bytes; %d bytes still come", alone, again, beside, free, b.memory.coming)
	}
}

func TestComingWeightsByDevice(t *testing.T) {
	devices := []Device{{number: 0, FreeBytes: 300}, {number: 1, FreeBytes: 100}, {number: 2, FreeBytes: 1000}}
	for name, c := range map[string]struct {
		options Options
		want    []int64
	}{
		"by what is free": {Options{}, []int64{300, 100, 0}},
		"as asked":        {Options{GPUSplit: []float32{1, 3}}, []int64{100, 300, 0}},
		"all on one":      {Options{OneGPU: true, MainGPU: 1}, []int64{0, 400, 0}},
	} {
		b := &Backend{opts: c.options, accelerators: devices[:2]}
		if got := b.comingWeights(devices, 400); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := (&Backend{}).comingWeights(devices, 400); !slices.Equal(got, []int64{0, 0, 0}) {
		t.Errorf("without accelerators: %v", got)
	}
}
