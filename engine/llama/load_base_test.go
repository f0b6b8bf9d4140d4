//go:build llama

package llama

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

func damagedCopy(t *testing.T, from string, change func([]byte) []byte) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "damaged.gguf")
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// adapterFile writes a LoRA file with these tensors, of 32 numbers each.
func adapterFile(t *testing.T, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a Buffer doesn't fail
	b.WriteString("GGUF")
	put(uint32(3))
	put([2]uint64{uint64(len(names)), 4})
	for _, pair := range [][2]string{{"general.architecture", "llama"}, {"general.type", "adapter"}, {"adapter.type", "lora"}} {
		putText(&b, pair[0])
		put(uint32(ggufString))
		putText(&b, pair[1])
	}
	putText(&b, "adapter.lora.alpha")
	put(uint32(6)) // float
	put(float32(16))
	for i, name := range names {
		putText(&b, name)
		put(uint32(1))          // dimensions
		put(uint64(32))         // numbers
		put(uint32(0))          // F32
		put(uint64(i * 32 * 4)) // place in the data
	}
	for b.Len()%32 != 0 {
		b.WriteByte(0)
	}
	b.Write(make([]byte, len(names)*32*4))
	path := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantReason(t *testing.T, name string, err error, want models.Reason) {
	t.Helper()
	var failure *models.LoadError
	if !errors.As(err, &failure) || failure.Reason != want {
		t.Errorf("%s: %v, want reason %s", name, err, want)
	}
}

func TestFilesThatAreNoModel(t *testing.T) {
	b, _ := newBackend(t, nil)
	demo, lora := demoFile(t, "demo-q8_0.gguf"), demoFile(t, "demo-lora-v1.0.gguf")
	cut := func(n int) func([]byte) []byte { return func(d []byte) []byte { return d[:n] } }
	for name, c := range map[string]struct {
		path string
		want models.Reason
	}{
		"missing":           {filepath.Join(t.TempDir(), "none.gguf"), models.ReasonNotFound},
		"empty":             {damagedCopy(t, demo, cut(0)), models.ReasonBadFormat},
		"text":              {damagedCopy(t, demo, func([]byte) []byte { return []byte("hello") }), models.ReasonBadFormat},
		"only the magic":    {damagedCopy(t, demo, cut(4)), models.ReasonBadFormat},
		"cut in the header": {damagedCopy(t, demo, cut(400)), models.ReasonBadFormat},
		"cut in the data":   {damagedCopy(t, demo, cut(800_000)), models.ReasonBadFormat},
		"without last byte": {damagedCopy(t, demo, func(d []byte) []byte { return d[:len(d)-1] }), models.ReasonBadFormat},
		"a LoRA":            {lora, models.ReasonBadFormat},
		"garbage inside": {damagedCopy(t, demo, func(d []byte) []byte {
			copy(d[16:], bytes.Repeat([]byte{0xff}, 64))
			return d
		}), models.ReasonBadFormat},
	} {
		for _, mmap := range []bool{false, true} {
			_, err := b.LoadBase(t.Context(), models.BaseSpec{Name: name, Path: c.path, MMap: mmap, Parallel: 1}, nil)
			wantReason(t, name, err, c.want)
		}
	}
}

func TestFilesThatAreNoAdapterOfThisBase(t *testing.T) {
	base, executor := loadDemo(t, nil)
	demo, lora := demoFile(t, "demo-q8_0.gguf"), demoFile(t, "demo-lora-v1.0.gguf")
	for name, c := range map[string]struct {
		path string
		want models.Reason
	}{
		"missing":           {filepath.Join(t.TempDir(), "none.gguf"), models.ReasonNotFound},
		"text":              {damagedCopy(t, lora, func([]byte) []byte { return []byte("hello, world") }), models.ReasonBadFormat},
		"cut":               {damagedCopy(t, lora, func(d []byte) []byte { return d[:len(d)/2] }), models.ReasonBadFormat},
		"a model":           {demo, models.ReasonBadFormat},
		"other tensor name": {damagedCopy(t, lora, func(d []byte) []byte { return bytes.ReplaceAll(d, []byte("blk.0.attn_q"), []byte("blk.0.attn_z")) }), models.ReasonAdapterMismatch},
		"no tensors":        {adapterFile(t), models.ReasonAdapterMismatch},
		"nothing of use":    {adapterFile(t, "blk.0.attn_norm.weight"), models.ReasonAdapterMismatch},
	} {
		_, err := base.LoadAdapter(t.Context(), models.AdapterSpec{Name: name, Path: c.path})
		wantReason(t, name, err, c.want)
	}
	if text, _, err := generate(base, executor, nil, 0, render(t, base, france), greedy, 32); err != nil || text != "I think it is Paris." {
		t.Errorf("after the failures: %q, %v", text, err)
	}
}

// Only errors for which the file is to blame mark it as broken: others may be temporary.
func TestReasonsOfFailedLoads(t *testing.T) {
	for err, want := range map[error]models.Reason{
		errors.New("read error: Input/output error"):                         models.ReasonOther,
		errors.New("failed to open model.gguf: Stale file handle"):           models.ReasonOther,
		errors.New("failed to open model.gguf: Too many open files"):         models.ReasonOther,
		errors.New("no thread to load on: Resource temporarily unavailable"): models.ReasonOther,
		errors.New("read /m/v1.gguf: input/output error"):                    models.ReasonOther, // as Go has it
		errors.New("mmap failed: Cannot allocate memory"):                    models.ReasonOutOfMemory,
		fmt.Errorf("dry run: %w", &noMemoryError{"decode 32 tokens"}):        models.ReasonOutOfMemory,
		errors.New("unknown model architecture: 'x'"):                        models.ReasonBadFormat,
	} {
		if got := loadReason(t.Context(), err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

// A step for which there is no memory is to the executor as one for which there are no cells.
func TestNoMemoryIsNoCells(t *testing.T) {
	if err := fmt.Errorf("a step: %w", &noMemoryError{"decode 1 tokens"}); !errors.Is(err, batch.ErrNoCells) {
		t.Errorf("%v isn't %v", err, batch.ErrNoCells)
	}
}

func TestLoadReportsProgressAndCanBeAborted(t *testing.T) {
	b, _ := newBackend(t, nil)
	spec := models.BaseSpec{Name: "demo", Path: demoFile(t, "demo-q8_0.gguf"), Parallel: 1}
	last, calls := 0.0, 0
	base, err := b.LoadBase(t.Context(), spec, func(p models.Progress) {
		if p.Phase == "weights" {
			if p.Ratio < last {
				t.Errorf("progress went back from %g to %g", last, p.Ratio)
			}
			last = p.Ratio
			calls++
		}
	})
	if err != nil || calls < 2 || last != 1 {
		t.Fatalf("%d calls up to %g, %v", calls, last, err)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = b.LoadBase(ctx, spec, func(p models.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("aborted load ends with %v", err)
	}
}

func TestBackendFacts(t *testing.T) {
	b, _ := newBackend(t, nil)
	devices := b.Devices()
	if !slices.ContainsFunc(devices, func(d Device) bool { return d.Used && d.Backend != "" && d.TotalBytes > 0 }) {
		t.Errorf("devices %+v", devices)
	}
	if info := BuildInfo(); !strings.Contains(info, "llama.cpp 0.5.0") {
		t.Errorf("build info %q", info)
	}
	if _, err := New(Options{BackendDir: t.TempDir() + "/none", OnDevice: newTestExecutor(t).do}); err == nil {
		t.Error("a missing backend directory went through")
	}
}
