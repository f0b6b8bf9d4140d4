package main

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

func writeArchive(t *testing.T, entries ...tar.Header) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "programs.tar.xz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := xz.NewWriter(file)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(packed)
	for _, entry := range entries {
		if entry.Typeflag == tar.TypeReg {
			entry.Size = int64(len(entry.Name))
		}
		if err := archive.WriteHeader(&entry); err != nil {
			t.Fatal(err)
		}
		if entry.Typeflag == tar.TypeReg {
			if _, err := archive.Write([]byte(entry.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, end := range []func() error{archive.Close, packed.Close, file.Close} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestUnpack(t *testing.T) {
	to := filepath.Join(t.TempDir(), "programs")
	archive := writeArchive(t, tar.Header{Typeflag: tar.TypeReg, Name: "./tandem-engine", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "lib/libllama.so.1", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "lib/libllama.so", Linkname: "libllama.so.1"})
	for range 2 { // the second time there is nothing to do
		if err := unpack(archive, to); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.Stat(filepath.Join(to, "tandem-engine"))
	if err != nil || program.Mode().Perm()&0o100 == 0 {
		t.Errorf("the program can't be run: %v", err)
	}
	if content, err := os.ReadFile(filepath.Join(to, "lib/libllama.so")); err != nil || string(content) != "lib/libllama.so.1" {
		t.Errorf("the link leads to %q, %v", content, err)
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, entry := range map[string]tar.Header{
		"another directory": {Typeflag: tar.TypeReg, Name: "../x"},
		"a link elsewhere":  {Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/etc/passwd"},
		"a device":          {Typeflag: tar.TypeFifo, Name: "x"},
	} {
		to := filepath.Join(t.TempDir(), "programs")
		if err := unpack(writeArchive(t, entry), to); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(to); err == nil {
			t.Errorf("%s: something is there", name)
		}
	}
	if err := unpack(filepath.Join(t.TempDir(), "none"), "programs"); err == nil {
		t.Error("no error without an archive")
	}
}

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
