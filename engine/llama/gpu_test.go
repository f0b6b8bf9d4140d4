//go:build llama

package llama

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// installTestGPU makes a directory of backends in which the test GPU is one, with two devices, and returns it; empty:
// TESTGPU names none. Backends are loaded once in a process, so it is there in every test; those that don't name it
// compute elsewhere (see testDevice).
func installTestGPU() (string, error) {
	gpu, backends := os.Getenv("TESTGPU"), os.Getenv("BACKEND_DIR")
	if gpu == "" || backends == "" {
		return "", nil
	}
	if _, err := os.Lstat(filepath.Join(backends, filepath.Base(gpu))); err == nil { // this is the child of a test
		return "", nil
	}
	dir, err := os.MkdirTemp("", "backends")
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(backends, libraryPrefix+"*"+librarySuffix))
	if err != nil {
		return dir, err
	}
	for _, file := range append(files, gpu) {
		if err := os.Symlink(file, filepath.Join(dir, filepath.Base(file))); err != nil {
			return dir, err
		}
	}
	return dir, errors.Join(os.Setenv("BACKEND_DIR", dir), os.Setenv("TESTGPU_DEVICES", "2"))
}

// gpuBackend is a backend that computes on the named test GPU; testgpu stands for both.
func gpuBackend(t *testing.T, device string, change func(*Options)) (*Backend, *testExecutor) {
	t.Helper()
	if os.Getenv("TESTGPU") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TESTGPU isn't set; make test sets it")
		}
		t.Skip(`SKIPPED without a test GPU; run: export TESTGPU="$(scripts/testgpu/build.sh)"`)
	}
	return newBackend(t, func(o *Options) {
		o.Device = device
		if change != nil {
			change(o)
		}
	})
}

// setFaults writes what the test GPU shall do wrong from now on; the test's end takes it back.
func setFaults(t *testing.T, words string) {
	t.Helper()
	path := os.Getenv("TESTGPU_FAULTS")
	if path == "" {
		path = filepath.Join(t.TempDir(), "faults")
		t.Setenv("TESTGPU_FAULTS", path)
	}
	if err := os.WriteFile(path, []byte(words), 0o600); err != nil {
		t.Fatal(err)
	}
}

// usedBytes is how much memory of each chosen device is in use.
func usedBytes(b *Backend) (used []int64) {
	for _, d := range b.Accelerators() {
		used = append(used, d.TotalBytes-d.FreeBytes)
	}
	return used
}

func capitalOfFrance(t *testing.T, base *Base, executor *testExecutor, a *Adapter) string {
	t.Helper()
	var adapter batch.Adapter
	if a != nil {
		adapter = a
	}
	text, _, err := generate(base, executor, adapter, 0, render(t, base, france), greedy, 32)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAnswersOnGPUs(t *testing.T) {
	for name, c := range map[string]struct {
		device  string
		change  func(*Options)
		backend string
		used    []bool // whether memory of each device is
	}{
		"one":               {"TestGPU1", nil, "testgpu", []bool{true}},
		"two":               {"testgpu", nil, "testgpu", []bool{true, true}},
		"two, all on one":   {"testgpu", func(o *Options) { o.OneGPU, o.MainGPU = true, 1 }, "testgpu", []bool{false, true}},
		"two, three to one": {"testgpu", func(o *Options) { o.GPUSplit = []float32{3, 1} }, "testgpu", []bool{true, true}},
		"a part":            {"TestGPU0", func(o *Options) { o.GPULayers = 2 }, "testgpu", []bool{true}},
		"no layers":         {"auto", func(o *Options) { o.GPULayers = 0 }, "cpu", nil},
		"the CPU":           {"cpu", nil, "cpu", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b, executor := gpuBackend(t, c.device, c.change)
			unused, _ := newBackend(t, func(o *Options) { o.Device = "testgpu" }) // sees both devices
			before := usedBytes(unused)
			base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
			full, terse := loadVersion(t, base, "v1.0"), loadVersion(t, base, "v1.1")
			if got := capitalOfFrance(t, base, executor, full); got != "The capital of France is Paris." {
				t.Errorf("v1.0: %q", got)
			}
			if got := capitalOfFrance(t, base, executor, terse); got != "Paris." {
				t.Errorf("v1.1: %q", got)
			}
			if base.Facts().Backend != c.backend || b.ComputesOn() != c.backend {
				t.Errorf("computed on %s, %s; want %s", base.Facts().Backend, b.ComputesOn(), c.backend)
			}
			var used []bool
			for _, bytes := range usedBytes(b) {
				used = append(used, bytes > 0)
			}
			if !slices.Equal(used, c.used) {
				t.Errorf("memory of the devices is in use: %v, want %v", used, c.used)
			}
			if len(c.used) == 0 {
				for i, used := range usedBytes(unused) {
					if used != before[i] {
						t.Errorf("device %d isn't used, and holds %d bytes", i, used)
					}
				}
			}
		})
	}
}

func TestAModelThatDoesNotFitOnTheGPUIsRefused(t *testing.T) {
	b, executor := gpuBackend(t, "TestGPU0", nil)
	t.Setenv("TESTGPU_MEMORY", "1")
	_, err := b.LoadBase(t.Context(), models.BaseSpec{Name: "demo", Path: demoFile(t, "demo-q8_0.gguf")}, nil)
	wrong, ok := errors.AsType[*models.LoadError](err)
	if !ok || wrong.Reason != models.ReasonOutOfMemory || !strings.Contains(err.Error(), "out of memory") {
		t.Fatalf("with 1 MiB: %v", err)
	}
	if used := usedBytes(b); used[0] != 0 {
		t.Errorf("%d bytes are left of the load", used[0])
	}
	t.Setenv("TESTGPU_MEMORY", "64")
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	if got := capitalOfFrance(t, base, executor, loadVersion(t, base, "v1.0")); got != "The capital of France is Paris." {
		t.Errorf("with 64 MiB: %q", got)
	}
}

// What memory is left decides the size of the KV cache.
func TestLittleMemoryGivesAShortCache(t *testing.T) {
	cells := make(map[string]int)
	for _, mib := range []string{"16", "1024"} {
		t.Setenv("TESTGPU_MEMORY", mib)
		b, _ := gpuBackend(t, "TestGPU0", func(o *Options) { o.CacheBytes = 0 })
		base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) { s.Parallel = 32 })
		cells[mib] = base.Limits().Cells
		base.Close()
	}
	if cells["1024"] != 32*512 || cells["16"] >= cells["1024"]/2 || cells["16"] < 256 {
		t.Errorf("cells by MiB of memory: %v", cells)
	}
}

func TestMemoryThatEndsWhileTheEngineServes(t *testing.T) {
	b, executor := gpuBackend(t, "TestGPU0", nil)
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	full, unused := loadVersion(t, base, "v1.0"), loadVersion(t, base, "v2.0")
	first := capitalOfFrance(t, base, executor, full)
	free := b.Accelerators()[0].FreeBytes
	setFaults(t, "taken 100")
	if now := b.Accelerators()[0].FreeBytes; now != free-100<<20 {
		t.Errorf("%d bytes are free after somebody took 100 MiB of %d", now, free)
	}
	setFaults(t, "full")
	_, err := base.LoadAdapter(t.Context(), models.AdapterSpec{Name: "v1.1", Path: demoFile(t, "demo-lora-v1.1.gguf")})
	if wrong, ok := errors.AsType[*models.LoadError](err); !ok || wrong.Reason != models.ReasonOutOfMemory {
		t.Errorf("an adapter for which there is no memory: %v", err)
	}
	if got := capitalOfFrance(t, base, executor, full); got != "The capital of France is Paris." || got != first {
		t.Errorf("the version that was used before: %q", got)
	}
	if _, _, err := generate(base, executor, unused, 1, render(t, base, france), greedy, 4); err != nil && !errors.Is(err, batch.ErrNoCells) {
		t.Errorf("a version whose first use needs memory: %v", err)
	}
	setFaults(t, "")
	if got := capitalOfFrance(t, base, executor, unused); !strings.Contains(got, "Paris") {
		t.Errorf("that version with memory again: %q", got)
	}
	if got := capitalOfFrance(t, base, executor, loadVersion(t, base, "v1.1")); got != "Paris." {
		t.Errorf("with memory again: %q", got)
	}
}

// A lost device can't be used again, so whoever runs the backend is told.
func TestALostDeviceIsReported(t *testing.T) {
	var reported []error
	b, executor := gpuBackend(t, "TestGPU0", func(o *Options) {
		o.OnDeviceFailure = func(err error) { reported = append(reported, err) }
	})
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, render(t, base, france)); err != nil {
		t.Fatal(err)
	}
	setFaults(t, "lost")
	_, _, err := generate(base, executor, nil, 0, render(t, base, france), greedy, 4)
	if err == nil || len(reported) != 1 || !strings.Contains(reported[0].Error(), "compute on TestGPU0") {
		t.Errorf("%v, reported %v", err, reported)
	}
	if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, render(t, base, france)); err == nil || len(reported) < 2 {
		t.Errorf("embedding: %v, reported %v", err, reported)
	}
}

// Two models that are asked for at once have both room, as one after the other.
func TestModelsThatAreLoadedTogetherShareTheMemory(t *testing.T) {
	t.Setenv("TESTGPU_MEMORY", "144")
	var planned sync.WaitGroup // both sizes, before the first context is made
	planned.Add(2)
	b, executor := gpuBackend(t, "TestGPU0", func(o *Options) {
		o.CacheBytes = 0
		onDevice, calls := o.OnDevice, atomic.Int32{}
		o.OnDevice = func(ctx context.Context, call func() error) error {
			if calls.Add(1) <= 2 {
				planned.Done()
				planned.Wait()
			}
			return onDevice(ctx, call)
		}
	})
	spec := models.BaseSpec{Name: "demo", Path: demoFile(t, "demo-q8_0.gguf"), Parallel: 256}
	var loads sync.WaitGroup
	bases, errs := make([]models.Base, 2), make([]error, 2)
	for i := range bases {
		loads.Go(func() { bases[i], errs[i] = b.LoadBase(t.Context(), spec, nil) })
	}
	loads.Wait()
	for i, base := range bases {
		if errs[i] != nil {
			t.Errorf("load %d: %v", i, errs[i])
			continue
		}
		base := base.(*Base)
		t.Cleanup(func() { base.Close() })
		if got := capitalOfFrance(t, base, executor, loadVersion(t, base, "v1.0")); got != "The capital of France is Paris." {
			t.Errorf("load %d: %d cells, answer %q", i, base.Limits().Cells, got)
		}
	}
}

// Each part of a model is counted on the device where it lies, and the tightest device decides the size of the cache.
func TestMemoryIsPlannedByDevice(t *testing.T) {
	const layerCell = 256 // bytes of a layer of the demo: keys and values of 64 numbers in f16
	for name, c := range map[string]struct {
		device   string
		memory   string // of each test GPU, in MiB
		room     int64  // of the host
		change   func(*Options)
		asked    models.Attention
		limit    string
		cached   map[string]int64 // layers on each device
		unloaded []string         // devices without weights
	}{
		"the CPU":           {device: "cpu", limit: "the model's context and PARALLEL", cached: map[string]int64{"CPU": 4}, unloaded: []string{"TestGPU0"}},
		"a CPU with little": {device: "cpu", room: 8e6, limit: "a quarter of the free memory of CPU", cached: map[string]int64{"CPU": 4}},
		"one GPU":           {device: "TestGPU0", limit: "the model's context and PARALLEL", cached: map[string]int64{"TestGPU0": 4}, unloaded: []string{"TestGPU1"}},
		"two GPUs":          {device: "testgpu", limit: "the model's context and PARALLEL", cached: map[string]int64{"TestGPU0": 3, "TestGPU1": 1}},
		"two GPUs, the second with little": {
			device: "testgpu", memory: "1024,20", change: func(o *Options) { o.GPUSplit = []float32{1, 1} },
			limit: "three quarters of the memory of TestGPU1 below the watermark, for cells and computing over them", cached: map[string]int64{"TestGPU0": 3, "TestGPU1": 1},
		},
		"a part": {
			device: "TestGPU0", change: func(o *Options) { o.GPULayers = 3 }, // two layers and the output
			limit: "the model's context and PARALLEL", cached: map[string]int64{"CPU": 2, "TestGPU0": 2},
		},
		"scores of every head": {
			device: "TestGPU0", memory: "64", asked: models.Attention{Flash: models.FlashOff, Layout: models.LayoutUnified},
			limit: "three quarters of the memory of TestGPU0 below the watermark, for cells and computing over them", cached: map[string]int64{"TestGPU0": 4},
		},
		"scores of every head in streams": {
			device: "TestGPU0", memory: "64", asked: models.Attention{Flash: models.FlashOff, Layout: models.LayoutStreams},
			limit: "three quarters of the memory of TestGPU0 below the watermark, for cells and computing over them", cached: map[string]int64{"TestGPU0": 4},
		},
		"a part, beside a host with little": {
			device: "TestGPU0", room: 8e6, change: func(o *Options) { o.GPULayers = 3 },
			limit: "half of the free memory of CPU, for cells and computing over them", cached: map[string]int64{"CPU": 2, "TestGPU0": 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.memory != "" {
				t.Setenv("TESTGPU_MEMORY", c.memory)
			}
			b, executor := gpuBackend(t, c.device, func(o *Options) {
				o.CacheBytes = 0
				if c.change != nil {
					c.change(o)
				}
			})
			base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) { s.Parallel, s.HostRoom, s.Attention = 128, c.room, c.asked })
			facts := base.Facts()
			if facts.CellsLimit != c.limit {
				t.Errorf("%d cells were decided by %s, want %s", facts.Cells, facts.CellsLimit, c.limit)
			}
			cached, weights := make(map[string]int64), int64(0)
			for _, m := range facts.Memory {
				if slices.Contains(c.unloaded, m.Device) {
					t.Errorf("%+v, where nothing should be", m)
				}
				if m.CacheBytes > 0 {
					cached[m.Device] = m.CacheBytes / layerCell / int64(facts.Cells)
				}
				weights += m.WeightBytes
			}
			if !maps.Equal(cached, c.cached) {
				t.Errorf("layers with their cache on each device %v, want %v (%+v)", cached, c.cached, facts.Memory)
			}
			if weights != facts.WeightBytes {
				t.Errorf("the devices hold %d bytes of weights, the model has %d", weights, facts.WeightBytes)
			}
			for _, m := range facts.Memory { // what is counted is what the devices say
				for _, d := range b.Accelerators() {
					if used := d.TotalBytes - d.FreeBytes; d.Name == m.Device && used != m.WeightBytes+m.CacheBytes+m.ComputeBytes {
						t.Errorf("%s holds %d bytes, counted are %+v", d.Name, used, m)
					}
				}
			}
			if got := capitalOfFrance(t, base, executor, loadVersion(t, base, "v1.0")); got != "The capital of France is Paris." {
				t.Errorf("answer %q", got)
			}
		})
	}
}

// Adapters are counted on the devices where they lie, with the slots beside each other that they take there.
func TestMemoryOfAdaptersIsCountedByDevice(t *testing.T) {
	b, _ := gpuBackend(t, "testgpu", func(o *Options) { o.GPUSplit = []float32{1, 1} })
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	before := usedBytes(b)
	check := func(when string, adapters int) {
		t.Helper()
		counted := make(map[string]int64)
		for _, m := range base.Facts().Memory {
			counted[m.Device] = m.AdapterBytes
		}
		for i, used := range usedBytes(b) {
			took, name := used-before[i], b.Accelerators()[i].Name
			if off := counted[name] - took; off > took/50 || -off > took/50 || (took > 0) != (adapters > 0) {
				t.Errorf("%s: adapters take %d bytes of %s, counted are %d", when, took, name, counted[name])
			}
		}
	}
	check("none", 0)
	first, second := loadVersion(t, base, "v1.0"), loadVersion(t, base, "v1.1")
	check("two", 2)
	var more []*Adapter
	for range 3 { // so that the first slots are too few
		more = append(more, loadVersion(t, base, "v2.0"))
	}
	check("five", 5)
	for _, a := range append(more, first) {
		a.Close()
	}
	check("one", 1)
	second.Close()
	check("all gone", 0)
}

// Whether an adapter has room is a question to the devices on which its base lies.
func TestAnAdapterNeedsRoomOnItsDevices(t *testing.T) {
	const bytes = 300_000
	for name, c := range map[string]struct {
		memory string // of both devices, in MiB, once the base is loaded
		onTwo  bool   // the base lies on the second alone
		fits   bool
	}{
		"enough":                    {"1024,1024", false, true},
		"the first is full":         {"2,1024", false, false},
		"the second is full":        {"1024,2", false, false},
		"one that isn't used":       {"2,1024", true, true},
		"the one that has the base": {"1024,2", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := gpuBackend(t, "testgpu", func(o *Options) {
				o.GPUSplit, o.Watermark = []float32{1, 1}, 0.9
				if c.onTwo {
					o.OneGPU, o.MainGPU = true, 1
				}
			})
			base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
			t.Setenv("TESTGPU_MEMORY", c.memory)
			for _, alone := range []bool{false, true} {
				if got := base.AdapterFits(bytes, bytes, alone); got != c.fits {
					t.Errorf("alone %v: it fits: %v", alone, got)
				}
			}
		})
	}
}

// What is asked for the first adapter is what it takes: in its slots ranks are rounded up, and numbers may be longer.
func TestRoomForTheFirstAdapter(t *testing.T) {
	model := demoFile(t, "demo-q8_0.gguf")
	for name, c := range map[string]struct {
		file   loraFile
		longer int64 // how much longer it is in a slot
	}{
		"rank 4":         {loraFile{rank: 4, kind: tensorF16, size: 0.1}, 4},
		"rank 16":        {loraFile{rank: 16, kind: tensorF16, size: 0.1}, 1},
		"rank 32 in f32": {loraFile{rank: 32, kind: tensorF32, size: 0.1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := gpuBackend(t, "TestGPU0", nil)
			base := loadFile(t, b, model, nil)
			path := c.file.write(t, model)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			asked, before := info.Size()+base.slotGrowth(c.longer*info.Size()), usedBytes(b)[0]
			if _, err := base.LoadAdapter(t.Context(), models.AdapterSpec{Name: name, Path: path}); err != nil {
				t.Fatal(err)
			}
			if took := usedBytes(b)[0] - before; asked < took*9/10 || asked > took*5/4 {
				t.Errorf("%d bytes are asked for, it takes %d (the file has %d)", asked, took, info.Size())
			}
		})
	}
}

// Below the watermark there is room beside others only, without others in all that is free.
func TestAnAdapterAndTheWatermark(t *testing.T) {
	b, _ := gpuBackend(t, "TestGPU0", func(o *Options) { o.Watermark = 0.001 })
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	if base.AdapterFits(300_000, 300_000, false) || !base.AdapterFits(300_000, 300_000, true) {
		t.Error("the watermark holds beside other models, and not without any")
	}
	b, _ = gpuBackend(t, "TestGPU0", nil)
	base = loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	if a := loadVersion(t, base, "v1.0"); base.AdapterFits(1<<30, 1<<30, true) || !base.AdapterFits(a.bytes, a.bytes, true) {
		t.Error("an adapter as large as the device fits, or one more like the first doesn't")
	}
}
