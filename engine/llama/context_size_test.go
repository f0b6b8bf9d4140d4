//go:build llama

package llama

import (
	"strings"
	"testing"

	"tandem/engine/models"
)

func TestContextIsCutToWhatIsSafe(t *testing.T) {
	for _, c := range []struct {
		context, parallel, trained int
		cellBytes, free            int64
		want                       contextSize
	}{
		{0, 8, 512, 1024, 8 << 30, contextSize{512, 4096, 8, "the model's context and PARALLEL"}},
		{1 << 28, 1, 512, 1024, 8 << 30, contextSize{512, 512, 1, "the model's context and PARALLEL"}},
		{0, 32, 131072, 128 << 10, 16 << 30, contextSize{8192, 32768, 32, "a quarter of the free memory of CPU"}},
		{4096, 1, 8192, 1 << 20, 1 << 30, contextSize{256, 256, 1, "a quarter of the free memory of CPU"}},
		{0, 32, 131072, 128 << 10, 1, contextSize{256, 256, 32, "a quarter of the free memory of CPU"}},
		{2048, 0, 8192, 0, 0, contextSize{2048, 2048, 1, "CONTEXT and PARALLEL"}},
	} {
		spec := models.BaseSpec{Context: c.context, Parallel: c.parallel}
		devices := []deviceShare{{name: "CPU", cellBytes: c.cellBytes, free: c.free}}
		if got := chooseContextSize(spec, Options{CacheCells: defaultCacheCells}, c.trained, devices); got != c.want {
			t.Errorf("%+v gives %+v", c, got)
		}
	}
}

// A cell lies on all devices, so the one with least room for its part of it decides.
func TestTheTightestDeviceDecidesTheCells(t *testing.T) {
	spec := models.BaseSpec{Parallel: 32}
	for _, c := range []struct {
		name       string
		devices    []deviceShare
		cacheBytes int64
		cells      int
		limit      string
	}{
		{"two alike", []deviceShare{{name: "A", cellBytes: 1 << 10, free: 64 << 20}, {name: "B", cellBytes: 1 << 10, free: 64 << 20}}, 0, 16384, "free memory of A"},
		{"the second has less", []deviceShare{{name: "A", cellBytes: 1 << 10, free: 64 << 20}, {name: "B", cellBytes: 1 << 10, free: 16 << 20}}, 0, 4096, "free memory of B"},
		{"the second has fewer layers", []deviceShare{{name: "A", cellBytes: 3 << 10, free: 64 << 20}, {name: "B", cellBytes: 1 << 10, free: 64 << 20}}, 0, 5461, "free memory of A"},
		{"a device without layers", []deviceShare{{name: "A", cellBytes: 1 << 10, free: 64 << 20}, {name: "B", free: 1}}, 0, 16384, "free memory of A"},
		{"one that doesn't say", []deviceShare{{name: "A", cellBytes: 1 << 10, free: 64 << 20}, {name: "B", cellBytes: 1 << 10}}, 0, 16384, "free memory of A"},
		{"cells that are smaller than the mask", []deviceShare{{name: "A", cellBytes: 256, free: 40 << 20}}, 0, 16384, "half of the free memory of A"},
		{"a limit in bytes", []deviceShare{{name: "A", cellBytes: 1 << 10, free: 1 << 20}, {name: "B", cellBytes: 3 << 10}}, 8 << 20, 2048, "limit in bytes"},
		{"room for all", []deviceShare{{name: "A", cellBytes: 1, free: 1 << 40}}, 0, 65536, "the largest cache"},
	} {
		got := chooseContextSize(spec, Options{CacheCells: defaultCacheCells, CacheBytes: c.cacheBytes}, 131072, c.devices)
		if got.cells != c.cells || !strings.Contains(got.limit, c.limit) {
			t.Errorf("%s: %d cells by %q; want %d by %q", c.name, got.cells, got.limit, c.cells, c.limit)
		}
	}
}

// The library takes all memory of the machine for free; what a container may fill is known elsewhere.
func TestFreeMemoryOfTheHost(t *testing.T) {
	for _, c := range []struct{ free, room, roomFree, weights, want int64 }{
		{256, 0, 0, 10, 256}, {256, 16, 32, 10, 6}, {4, 16, 32, 10, 4}, {256, 10, 32, 10, 1},
		{256, 1, 32, 10, 22}, {256, 1, 8, 10, 1}, // loaded although there is no room for them below the watermark
	} {
		if got := hostFree(c.free, &models.BaseSpec{HostRoom: c.room, HostFree: c.roomFree}, c.weights); got != c.want {
			t.Errorf("%+v gives %d", c, got)
		}
	}
}
