//go:build llama

package llama

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/engine/models"
)

// memoryTest loads the demo on test GPUs of 64 MiB, of which others may have some.
type memoryTest struct {
	t      *testing.T
	found  []FoundMemory // by the last load
	phases []string      // of the last load
	log    bytes.Buffer
}

// load loads the demo by an engine of its own, which knows what was found before, and returns what it knows then. wait
// is called each time that it waits for memory.
func (m *memoryTest) load(device string, limit time.Duration, wait func(), change func(*Options)) models.Facts {
	m.t.Helper()
	b, _ := gpuBackend(m.t, device, func(o *Options) {
		o.CacheBytes, o.FoundBefore, o.MemoryWait = 0, m.found, limit
		o.OnFound = func(found []FoundMemory) { m.found = found }
		o.Logger = slog.New(slog.NewTextHandler(&m.log, nil))
		if change != nil {
			change(o)
		}
	})
	m.phases = nil
	spec := models.BaseSpec{Name: "demo", Path: demoFile(m.t, "demo-q8_0.gguf"), Parallel: 64}
	base, err := b.LoadBase(m.t.Context(), spec, func(p models.Progress) {
		if len(m.phases) == 0 || m.phases[len(m.phases)-1] != p.Phase {
			m.phases = append(m.phases, p.Phase)
		}
		if p.Phase == "memory" {
			wait()
		}
	})
	if err != nil {
		m.t.Fatal(err)
	}
	facts := base.Facts()
	if err := base.Close(); err != nil {
		m.t.Fatal(err)
	}
	return facts
}

// waits reports whether the last load waited for memory.
func (m *memoryTest) waits() bool { return slices.Contains(m.phases, "memory") }

// An engine that begins while a dead one's memory isn't back has the same cache as before.
func TestALoadWaitsForMemoryThatTheEngineBeforeHad(t *testing.T) {
	for name, c := range map[string]struct{ device, phases string }{
		"one GPU":  {"TestGPU0", "weights memory context"},
		"two GPUs": {"testgpu", "memory weights context"}, // the weights are spread by what is free
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TESTGPU_MEMORY", "64")
			setFaults(t, "")
			m := memoryTest{t: t}
			neverWait := func() { t.Error("a load waits although all memory is free") }
			before := m.load(c.device, time.Minute, neverWait, nil)
			setFaults(t, "taken 44")
			after := m.load(c.device, time.Minute, func() { setFaults(t, "") }, nil)
			if after.Cells != before.Cells || after.KV.Layout != before.KV.Layout || after.CellsLimit != before.CellsLimit {
				t.Errorf("%d cells (%s, %s), before %d (%s, %s)", after.Cells, after.KV.Layout, after.CellsLimit, before.Cells, before.KV.Layout, before.CellsLimit)
			}
			if phases := strings.Join(m.phases, " "); !strings.HasPrefix(phases, c.phases) || !strings.Contains(m.log.String(), "a load waits for memory") {
				t.Errorf("phases of the load: %s, want %s; log %s", phases, c.phases, &m.log)
			}
			m.load(c.device, time.Minute, neverWait, nil)
		})
	}
}

// Memory that somebody else has taken for good is waited for once, and missed aloud.
func TestALoadTakesWhatThereIs(t *testing.T) {
	t.Setenv("TESTGPU_MEMORY", "64")
	setFaults(t, "")
	m := memoryTest{t: t}
	before := m.load("TestGPU0", time.Minute, nil, nil)
	setFaults(t, "taken 44")
	after := m.load("TestGPU0", time.Millisecond, func() {}, nil)
	if after.Cells >= before.Cells || !strings.Contains(after.CellsLimit, "46.1 MB of TestGPU0, which the engine before had, is taken") {
		t.Errorf("%d cells by %s, before %d", after.Cells, after.CellsLimit, before.Cells)
	}
	if log := m.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "memory that the engine before had is taken") {
		t.Errorf("no warning: %s", log)
	}
	again := m.load("TestGPU0", time.Minute, nil, nil)
	if again.Cells != after.Cells || m.waits() || strings.Contains(again.CellsLimit, "engine before") {
		t.Errorf("the engine after that one has %d cells by %s, and phases %v", again.Cells, again.CellsLimit, m.phases)
	}
}

// Memory that a load has no use for isn't waited for.
func TestALoadDoesNotWaitForMemoryInVain(t *testing.T) {
	t.Setenv("TESTGPU_MEMORY", "64")
	setFaults(t, "")
	m := memoryTest{t: t}
	few := func(o *Options) { o.CacheCells = 2048 }
	m.load("TestGPU0", time.Minute, nil, few)
	setFaults(t, "taken 30")
	if facts := m.load("TestGPU0", time.Minute, func() {}, few); facts.Cells != 2048 || m.waits() {
		t.Errorf("%d cells by %s, phases %v", facts.Cells, facts.CellsLimit, m.phases)
	}
}

// What this engine's own models hold isn't missing.
func TestMemoryOfOtherModelsIsNotMissing(t *testing.T) {
	t.Setenv("TESTGPU_MEMORY", "64")
	setFaults(t, "")
	var found []FoundMemory
	b, _ := gpuBackend(t, "TestGPU0", func(o *Options) {
		o.CacheBytes, o.OnFound = 0, func(f []FoundMemory) { found = f }
	})
	first := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	loadVersion(t, first, "v1.0")
	all := found[0].Bytes
	b.opts.FoundBefore = found
	if missing := b.opts.missing(b.findMemory()); len(missing) > 0 || all < 63<<20 {
		t.Errorf("%v are missing of %d bytes", missing, all)
	}
	if found = b.findMemory(); all-found[0].Bytes > 1<<20 {
		t.Errorf("beside a model %d bytes are found, %d before", found[0].Bytes, all)
	}
}
