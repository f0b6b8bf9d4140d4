//go:build llama

package llama

import (
	"cmp"
	"strings"
	"testing"

	"tandem/engine/models"
)

const (
	unified = models.LayoutUnified
	streams = models.LayoutStreams
)

func TestContextIsCutToWhatIsSafe(t *testing.T) {
	for _, c := range []struct {
		context, parallel, trained int
		cellBytes, free            int64
		want                       contextSize
	}{
		{0, 8, 512, 1024, 8 << 30, contextSize{512, 4096, 8, "the model's context and PARALLEL", unified, "asked"}},
		{1 << 28, 1, 512, 1024, 8 << 30, contextSize{512, 512, 1, "the model's context and PARALLEL", unified, "asked"}},
		{0, 32, 131072, 128 << 10, 16 << 30, contextSize{8192, 32768, 32, "a quarter of the free memory of CPU", unified, "asked"}},
		{4096, 1, 8192, 1 << 20, 1 << 30, contextSize{256, 256, 1, "a quarter of the free memory of CPU", unified, "asked"}},
		{0, 32, 131072, 128 << 10, 1, contextSize{256, 256, 32, "a quarter of the free memory of CPU", unified, "asked"}},
		{2048, 0, 8192, 0, 0, contextSize{2048, 2048, 1, "CONTEXT and PARALLEL", unified, "asked"}},
		{100000, 2, 131072, 1, 0, contextSize{100000, 100000, 2, "the largest cache that is made in a host's memory without KV_CELLS", unified, "asked"}},
	} {
		spec := models.BaseSpec{Context: c.context, Parallel: c.parallel}
		devices := []deviceShare{{name: "CPU", host: true, cellBytes: c.cellBytes, free: c.free}}
		if got := chooseContextSize(spec, Options{MicroBatch: 512}, c.trained, maskBytes, layoutChoice{unified, "asked", false}, devices); got != c.want {
			t.Errorf("%+v gives %+v", c, got)
		}
	}
}

// A cell lies on all devices, so the one with least room for its part of it decides.
func TestTheTightestDeviceDecidesTheCells(t *testing.T) {
	spec := models.BaseSpec{Parallel: 32}
	host := func(name string, cellBytes, free int64) deviceShare {
		return deviceShare{name: name, host: true, cellBytes: cellBytes, free: free}
	}
	gpu := func(name string, cellBytes, free int64) deviceShare {
		return deviceShare{name: name, cellBytes: cellBytes, free: free}
	}
	for _, c := range []struct {
		name      string
		devices   []deviceShare
		options   Options
		seenBytes int64 // 0: those of a mask
		cells     int
		limit     string
	}{
		{"two alike", []deviceShare{host("A", 1<<10, 64<<20), host("B", 1<<10, 64<<20)}, Options{}, 0, 16384, "free memory of A"},
		{"the second has less", []deviceShare{host("A", 1<<10, 64<<20), host("B", 1<<10, 16<<20)}, Options{}, 0, 4096, "free memory of B"},
		{"the second has fewer layers", []deviceShare{host("A", 3<<10, 64<<20), host("B", 1<<10, 64<<20)}, Options{}, 0, 5461, "free memory of A"},
		{"a device without layers", []deviceShare{host("A", 1<<10, 64<<20), gpu("B", 0, 1)}, Options{}, 0, 16384, "free memory of A"},
		{"one that doesn't say", []deviceShare{host("A", 1<<10, 64<<20), gpu("B", 1<<10, 0)}, Options{}, 0, 16384, "free memory of A"},
		{"cells that are smaller than the mask", []deviceShare{host("A", 256, 40<<20)}, Options{}, 0, 16384, "half of the free memory of A"},
		{"a limit in bytes", []deviceShare{host("A", 1<<10, 1<<20), gpu("B", 3<<10, 0)}, Options{CacheBytes: 8 << 20}, 0, 2048, "limit in bytes"},
		{"a host with room for all", []deviceShare{host("A", 1, 1<<40)}, Options{}, 0, 65536, "without KV_CELLS"},
		{"a GPU with room for all", []deviceShare{gpu("A", 1<<10, 1<<40)}, Options{}, 0, 32 * 8192, "CONTEXT and PARALLEL"},
		{"a GPU with a part of the layers", []deviceShare{gpu("A", 1<<10, 1<<40), host("B", 1<<10, 1<<40)}, Options{}, 0, 65536, "without KV_CELLS"},
		{"a GPU with the host's memory", []deviceShare{{name: "A", integrated: true, cellBytes: 1 << 10, free: 64 << 20}}, Options{}, 0, 16384, "a quarter of the free memory of A"},
		{"a GPU with some room", []deviceShare{gpu("A", 1<<10, 64<<20)}, Options{}, 0, 64 << 20 / 4 * 3 / 2048, "three quarters of the memory of A"},
		{"smaller passes", []deviceShare{gpu("A", 1<<10, 64<<20)}, Options{MicroBatch: 64}, 0, 64 << 20 / 4 * 3 / (1024 + 128), "three quarters of the memory of A"},
		{"scores of 32 heads", []deviceShare{gpu("A", 128<<10, 16<<30)}, Options{}, 4 * 33, 16 << 30 / 4 * 3 / (128<<10 + 4*33*512), "three quarters of the memory of A"},
		{"scores of 32 heads on a host", []deviceShare{host("A", 32<<10, 1<<30)}, Options{}, 4 * 33, 1 << 30 / 2 / (32<<10 + 4*33*512), "half of the free memory of A"},
		{"fewer cells are asked for", []deviceShare{gpu("A", 1<<10, 1<<40)}, Options{CacheCells: 10000}, 0, 10000, "KV_CELLS"},
		{"more cells than a host gives by itself", []deviceShare{host("A", 1<<10, 1<<40)}, Options{CacheCells: 100000}, 0, 100000, "KV_CELLS"},
		{"more cells than a host has room for", []deviceShare{host("A", 1<<10, 64<<20)}, Options{CacheCells: 100000}, 0, 64 << 20 / 4 * 3 / 2048, "three quarters of the memory of A"},
	} {
		o := c.options
		o.MicroBatch = cmp.Or(o.MicroBatch, 512)
		got := chooseContextSize(spec, o, 131072, cmp.Or(c.seenBytes, maskBytes), layoutChoice{layout: unified}, c.devices)
		if got.cells != c.cells || !strings.Contains(got.limit, c.limit) {
			t.Errorf("%s: %d cells by %q; want %d by %q", c.name, got.cells, got.limit, c.cells, c.limit)
		}
	}
}

func TestStreamsHaveEqualParts(t *testing.T) {
	for _, c := range []struct {
		name              string
		context, parallel int
		cellBytes, free   int64
		cells             int // KV_CELLS
		auto              bool
		want              contextSize // without the texts
	}{
		{"room for all", 8192, 32, 1 << 10, 1 << 40, 0, true, contextSize{sequenceTokens: 8192, cells: 32 * 8192, sequences: 32, layout: streams}},
		{"a length that the library rounds up", 1000, 4, 1 << 10, 1 << 40, 0, true, contextSize{sequenceTokens: 1000, cells: 4 * 1024, sequences: 4, layout: streams}},
		{"no room for all at full length", 8192, 32, 1 << 10, 64 << 20, 0, true, contextSize{sequenceTokens: 8192, cells: 24576, sequences: 32, layout: unified}},
		{"streams all the same", 8192, 32, 1 << 10, 64 << 20, 0, false, contextSize{sequenceTokens: 1280, cells: 32 * 1280, sequences: 32, layout: streams}},
		{"fewer cells are asked for", 8192, 4, 1 << 10, 1 << 40, 4000, false, contextSize{sequenceTokens: 768, cells: 4 * 768, sequences: 4, layout: streams}},
		{"so few that there are fewer streams", 8192, 32, 1 << 10, 1 << 40, 1000, false, contextSize{sequenceTokens: 256, cells: 3 * 256, sequences: 3, layout: streams}},
		{"fewer streams than requests", 256, 64, 1 << 10, 1 << 40, 4096, true, contextSize{sequenceTokens: 256, cells: 4096, sequences: 64, layout: unified}},
		{"not one", 8192, 32, 1 << 10, 1, 0, false, contextSize{sequenceTokens: 256, cells: 256, sequences: 1, layout: streams}},
	} {
		spec := models.BaseSpec{Context: c.context, Parallel: c.parallel}
		devices := []deviceShare{{name: "A", cellBytes: c.cellBytes, free: c.free}}
		got := chooseContextSize(spec, Options{MicroBatch: 512, CacheCells: c.cells}, 131072, maskBytes, layoutChoice{layout: streams, auto: c.auto}, devices)
		if got.limit == "" || (got.layout == unified) != (got.layoutLimit != "") {
			t.Errorf("%s: decided by %q, the layout by %q", c.name, got.limit, got.layoutLimit)
		}
		got.limit, got.layoutLimit = "", ""
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestLayoutByDevice(t *testing.T) {
	cpu, none := deviceShare{name: "CPU", host: true, cellBytes: 1}, deviceShare{name: "CPU", host: true}
	gpu, igpu := deviceShare{name: "CUDA0", cellBytes: 1}, deviceShare{name: "Vulkan0", integrated: true, cellBytes: 1}
	for _, c := range []struct {
		name       string
		asked      models.KVLayout
		sequences  int
		keepsState bool
		devices    []deviceShare
		want       models.KVLayout
	}{
		{"a CPU", "auto", 8, false, []deviceShare{cpu}, unified},
		{"a GPU", "auto", 8, false, []deviceShare{none, gpu}, streams},
		{"two", "", 8, false, []deviceShare{gpu, gpu, none}, streams},
		{"a GPU in the host's memory", "auto", 8, false, []deviceShare{igpu, none}, streams},
		{"a part of the layers on a CPU", "auto", 8, false, []deviceShare{gpu, cpu}, unified},
		{"one request at a time", "auto", 1, false, []deviceShare{gpu}, unified},
		{"a recurrent model", "auto", 8, true, []deviceShare{gpu}, unified},
		{"no cells", "auto", 8, false, []deviceShare{none}, unified},
		{"asked on a CPU", "streams", 8, false, []deviceShare{cpu}, streams},
		{"asked on a GPU", "unified", 8, false, []deviceShare{gpu}, unified},
	} {
		got := chooseLayout(c.asked, c.sequences, c.keepsState, c.devices)
		if got.layout != c.want || got.limit == "" || got.auto != (c.asked == "" || c.asked == "auto") {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
	}
}

func TestMemoryBelowTheWatermark(t *testing.T) {
	for _, c := range []struct {
		free, total int64
		watermark   float64
		want        int64
	}{
		{60, 100, 0.8, 40}, {60, 100, 0, 60}, {60, 0, 0.8, 60}, {100, 100, 1, 100},
		{21, 100, 0.8, 7}, {12, 100, 0.8, 4}, // the weights take up to the watermark, or more
	} {
		if got := belowWatermark(c.free, c.total, c.watermark); got != c.want {
			t.Errorf("%+v gives %d", c, got)
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
