package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// compile makes a library that needs others, which lie in the same directory.
func compile(t *testing.T, path string, needs ...string) {
	t.Helper()
	args := []string{"-shared", "-x", "c", "/dev/null", "-Wl,--no-as-needed", "-Wl,-soname," + filepath.Base(path), "-o", path, "-x", "none"}
	for _, name := range needs {
		args = append(args, filepath.Join(filepath.Dir(path), name))
	}
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Skipf("no C compiler: %v, %s", err, out)
	}
}

// What the backend needs of the toolkit, and what that needs in turn, is linked beside it from a directory that is
// named; one that isn't anywhere is told, and the driver's library is none of them.
func TestLinkCUDALibraries(t *testing.T) {
	// Of no CUDA that is installed.
	const runtime, blas, lt, driver = "libcudart.so.0", "libcublas.so.0", "libcublasLt.so.0", "libcuda.so.0"
	lib, named := t.TempDir(), t.TempDir()
	if notes := linkCUDALibraries(lib, named); notes != nil {
		t.Errorf("without the backend: %q", notes)
	}
	compile(t, filepath.Join(named, lt))
	compile(t, filepath.Join(named, driver))
	compile(t, filepath.Join(named, runtime))
	compile(t, filepath.Join(named, blas), lt)
	compile(t, filepath.Join(named, "libggml-cuda.so"), runtime, blas, driver)
	if err := os.Rename(filepath.Join(named, "libggml-cuda.so"), filepath.Join(lib, "libggml-cuda.so")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(named, runtime)); err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(linkCUDALibraries(lib, named), "\n")
	if strings.Count(notes, "\n") != 2 || !strings.Contains(notes, runtime+" isn't found") || !strings.Contains(notes, blas+" is used") {
		t.Errorf("notes: %s", notes)
	}
	for name, linked := range map[string]bool{blas: true, lt: true, runtime: false, driver: false} {
		if to, err := os.Readlink(filepath.Join(lib, name)); (err == nil) != linked || linked && to != filepath.Join(named, name) {
			t.Errorf("%s: %q, %v", name, to, err)
		}
	}
	// In the second run what was found is there.
	if notes := linkCUDALibraries(lib, ""); len(notes) != 1 {
		t.Errorf("again: %q", notes)
	}
}

// The toolkit that a build with CUDA=1 fetched and the Python of the PATH are looked into without being named.
func TestWhereCUDALibrariesAreLookedFor(t *testing.T) {
	home, python := t.TempDir(), t.TempDir()
	t.Setenv("TANDEM_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", home)
	script := "#!/bin/sh\nprintf '\\n/nowhere\\n%s\\n' '" + python + "/my packages'\n"
	if err := os.WriteFile(filepath.Join(python, "python3"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", python+":"+os.Getenv("PATH"))
	for _, want := range []string{home + "/.cache/tandem/cuda/13.0.2-abc/lib", home + "/.cache/tandem/llama.cpp/v1-abc/lib",
		python + "/my packages/nvidia/cu13/lib"} {
		if err := os.MkdirAll(want, 0o755); err != nil {
			t.Fatal(err)
		}
		if dirs := cudaDirectories(""); !slices.Contains(dirs, want) {
			t.Errorf("%s isn't among %q", want, dirs)
		}
	}
}
