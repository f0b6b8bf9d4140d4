//go:build llama

package llama

import (
	"testing"

	"tandem/engine/models"
)

func TestContextIsCutToWhatIsSafe(t *testing.T) {
	for _, c := range []struct {
		context, parallel, trained int
		cellBytes, free            int64
		want                       contextSize
	}{
		{0, 8, 512, 1024, 8 << 30, contextSize{512, 4096, 8}},
		{1 << 28, 1, 512, 1024, 8 << 30, contextSize{512, 512, 1}},
		{0, 32, 131072, 128 << 10, 16 << 30, contextSize{8192, 32768, 32}},
		{4096, 1, 8192, 1 << 20, 1 << 30, contextSize{256, 256, 1}},
		{2048, 0, 8192, 0, 0, contextSize{2048, 2048, 1}},
	} {
		spec := models.BaseSpec{Context: c.context, Parallel: c.parallel}
		if got := chooseContextSize(spec, Options{CacheCells: defaultCacheCells}, c.trained, c.cellBytes, c.free); got != c.want {
			t.Errorf("%+v gives %+v", c, got)
		}
	}
	// The library takes all memory of the machine for free; a container's limit comes in FreeBytes.
	spec := models.BaseSpec{Parallel: 32, FreeBytes: 4 << 30}
	if got, want := chooseContextSize(spec, Options{CacheCells: defaultCacheCells}, 131072, 128<<10, 256<<30), (contextSize{8192, 8192, 32}); got != want {
		t.Errorf("with 4 GiB left: %+v, want %+v", got, want)
	}
	spec.FreeBytes = 1 // the weights fill it all
	if got, want := chooseContextSize(spec, Options{CacheCells: defaultCacheCells}, 131072, 128<<10, 256<<30), (contextSize{256, 256, 32}); got != want {
		t.Errorf("with nothing left: %+v, want %+v", got, want)
	}
}
