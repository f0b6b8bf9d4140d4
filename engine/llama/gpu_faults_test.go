//go:build llama

package llama

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
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

// A GPU on which nothing is to compute isn't opened, from the start to the end of a model: that takes memory of it, and
// ends the process where another has the card for itself.
func TestAGPUThatIsNotUsedIsLeftAlone(t *testing.T) {
	const test = "TestAGPUThatIsNotUsedIsLeftAlone"
	if device := os.Getenv(gpuChild); device != "" {
		answerAndUnload(t, device)
		return
	}
	gpuBackend(t, "TestGPU0", nil) // it is there
	for _, device := range []string{"TestGPU1", "cpu", "second of testgpu"} {
		t.Run(device, func(t *testing.T) {
			if out, err := runChild(t, test, device, "busy 0"); err != nil {
				t.Errorf("the child ended with %v:\n%.2000s", err, out)
			}
		})
	}
	if out, err := runChild(t, test, "testgpu", "busy 0"); err == nil || !strings.Contains(out, "testgpu error") {
		t.Errorf("a busy GPU that is used: the child ended with %v:\n%.2000s", err, out)
	}
}

// answerAndUnload has a device answer with two versions, and frees everything on threads that computed nothing.
func answerAndUnload(t *testing.T, device string) {
	name, onSecond := strings.CutPrefix(device, "second of ")
	b, executor := gpuBackend(t, name, func(o *Options) { o.OneGPU, o.MainGPU = onSecond, 1 })
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	full, terse := loadVersion(t, base, "v1.0"), loadVersion(t, base, "v1.1")
	if got := capitalOfFrance(t, base, executor, full); got != "The capital of France is Paris." {
		t.Errorf("v1.0: %q", got)
	}
	if !base.AdapterFits(terse.bytes, terse.bytes, false) {
		t.Error("one more version doesn't fit")
	}
	for _, d := range b.Devices() {
		if used := strings.EqualFold(d.Name, name) || onSecond && d.Name == "TestGPU1" || d.Name == "CPU"; d.Used != used || d.TotalBytes > 0 != used {
			t.Errorf("%+v, used should be %v", d, used)
		}
	}
	base.opts.OnDevice = func(context.Context, func() error) error { return errors.New("nobody steps any more") }
	onNewThread(t, func() { terse.Close() })
	onNewThread(t, func() { base.Close() })
}

// onNewThread runs call on a thread that has run nothing else.
func onNewThread(t *testing.T, call func()) {
	t.Helper()
	old, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	defer close(ended)
	for range len(old) + 1 { // each keeps its thread, so that one of them is new
		isNew := make(chan bool)
		go func() {
			runtime.LockOSThread()
			id := strconv.Itoa(syscall.Gettid())
			isOld := slices.ContainsFunc(old, func(e os.DirEntry) bool { return e.Name() == id })
			if !isOld {
				call()
			}
			isNew <- !isOld
			<-ended
		}()
		if <-isNew {
			return
		}
	}
	t.Fatal("all threads were there before")
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
