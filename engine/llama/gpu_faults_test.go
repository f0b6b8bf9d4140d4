//go:build llama

package llama

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tandem/engine/models"
)

// runChild runs one test of this program in a process of its own, in which the test GPU has these faults and the
// variable gpuChild that text.
func runChild(t *testing.T, test, text, faults string) (output string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "faults")
	if err := os.WriteFile(path, []byte(faults), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), gpuChild+"="+text, "TESTGPU_FAULTS="+path)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const gpuChild = "LLAMA_TEST_GPU_CHILD"

// A backend that aborts has said why, in lines that a load keeps back for its error.
func TestAnAbortInALoadTellsItsReason(t *testing.T) {
	const test = "TestAnAbortInALoadTellsItsReason"
	if os.Getenv(gpuChild) != "" {
		b, _ := gpuBackend(t, "TestGPU0", func(o *Options) {
			o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		_, err := b.LoadBase(t.Context(), models.BaseSpec{Name: "demo", Path: demoFile(t, "demo-q8_0.gguf"), Parallel: 8}, nil)
		t.Fatalf("the load ended with %v", err)
	}
	gpuBackend(t, "TestGPU0", nil) // it is there
	out, err := runChild(t, test, "1", "abort")
	if err == nil || strings.Contains(out, "the load ended") {
		t.Fatalf("the child ended with %v:\n%.2000s", err, out)
	}
	for _, want := range []string{`level=ERROR msg="testgpu error: an illegal memory access was encountered"`, `current device: TestGPU0`, `testgpu error" source=llama.cpp`} {
		if !strings.Contains(out, want) {
			t.Errorf("its output has no %s:\n%.2000s", want, out)
		}
	}
}

// What is free is never more than all there is, whatever a driver says.
func TestFreeMemoryIsAPartOfAll(t *testing.T) {
	t.Setenv("TESTGPU_MEMORY", "64")
	b, _ := gpuBackend(t, "TestGPU0", nil)
	setFaults(t, "free 100000")
	if d := b.Accelerators()[0]; d.TotalBytes != 64<<20 || d.FreeBytes != d.TotalBytes {
		t.Errorf("%d bytes of %d are free", d.FreeBytes, d.TotalBytes)
	}
}
