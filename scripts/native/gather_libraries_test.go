package native

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// libraries is a directory as build-llama.sh makes them, with a program beside it.
type libraries struct {
	t   *testing.T
	dir string
}

func newLibraries(t *testing.T) *libraries {
	t.Helper()
	for _, name := range []string{"cc", "objdump", "strip", "ldd"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name, "isn't installed")
		}
	}
	l := &libraries{t: t, dir: t.TempDir()}
	for _, name := range []string{"llama/lib", "elsewhere", "out"} {
		if err := os.MkdirAll(l.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l.compile("out/program", "int main(void) { return 0; }")
	return l
}

func (l *libraries) path(name string) string { return filepath.Join(l.dir, name) }

func (l *libraries) compile(name, code string, args ...string) {
	l.t.Helper()
	source := l.path("source.c")
	if err := os.WriteFile(source, []byte(code), 0o644); err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("cc", append([]string{"-o", l.path(name), source}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("cc of %s: %v\n%s", name, err, out)
	}
}

// library compiles a library with a soname and something for strip to remove, which calls those of needs.
func (l *libraries) library(name string, needs ...string) {
	l.t.Helper()
	function := func(path string) string {
		base, _, _ := strings.Cut(filepath.Base(path), ".")
		return strings.ReplaceAll(base, "-", "_") + "_function"
	}
	code := "static int kept_by_no_one(void) { return 1; } int " + function(name) + "(void) { return kept_by_no_one(); }\n"
	args := []string{"-shared", "-fPIC", "-O0", "-Wl,-soname," + filepath.Base(name), "-Wl,--no-as-needed"}
	for _, needed := range needs {
		args = append(args, l.path(needed))
	}
	l.compile(name, code, args...)
}

func (l *libraries) gather() (output string, err error) {
	l.t.Helper()
	out, err := exec.Command("../gather-libraries.sh", l.path("llama/lib"), l.path("out/program"), l.path("bare")).CombinedOutput()
	return string(out), err
}

func (l *libraries) read(name string) []byte {
	l.t.Helper()
	content, err := os.ReadFile(l.path(name))
	if err != nil {
		l.t.Fatal(err)
	}
	return content
}

func TestAnImageLacksNoLibraryButTheDrivers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		missing string
		fails   bool
	}{
		"the toolkit's": {"libcudart.so.13", true},
		"another":       {"libsomething.so.1", true},
		"the driver's":  {"libcuda.so.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLibraries(t)
			l.library("elsewhere/" + test.missing)
			l.library("llama/lib/libggml-cuda.so", "elsewhere/"+test.missing)
			output, err := l.gather()
			if (err != nil) != test.fails || test.fails && !strings.Contains(output, "libggml-cuda.so needs "+test.missing) {
				t.Errorf("%v, output %q", err, output)
			}
		})
	}
}

func TestNVIDIAsLibrariesAreTakenAsTheyAre(t *testing.T) {
	t.Parallel()
	l := newLibraries(t)
	l.library("llama/lib/libcudart.so.13")
	l.library("llama/lib/libcublasLt.so.13")
	l.library("llama/lib/libcublas.so.13", "llama/lib/libcublasLt.so.13")
	l.library("llama/lib/libggml-cuda.so", "llama/lib/libcudart.so.13", "llama/lib/libcublas.so.13")
	if err := os.WriteFile(l.path("llama/LICENSE.nvidia"), []byte("terms\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if output, err := l.gather(); err != nil || strings.Contains(output, "licence") {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, name := range []string{"libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"} {
		if !bytes.Equal(l.read("llama/lib/"+name), l.read("out/lib/"+name)) {
			t.Errorf("%s was changed", name)
		}
	}
	if ours := l.read("out/lib/libggml-cuda.so"); bytes.Contains(ours, []byte("kept_by_no_one")) {
		t.Error("libggml-cuda.so wasn't stripped")
	}
	if got := string(l.read("out/lib/LICENSE.nvidia")); got != "terms\n" {
		t.Errorf("NVIDIA's licence is %q", got)
	}
	if err := errors.Join(os.Remove(l.path("llama/LICENSE.nvidia")), os.Remove(l.path("out/lib/LICENSE.nvidia"))); err != nil {
		t.Fatal(err)
	}
	if output, err := l.gather(); err != nil || !strings.Contains(output, "the text of the licence of NVIDIA is missing") {
		t.Errorf("without its licence: %v, %q", err, output)
	}
}

// What build-llama.sh makes runs where it was made: the toolkit's libraries lie beside the backend.
func TestTheToolkitsLibrariesLieBesideTheBackend(t *testing.T) {
	t.Parallel()
	collect := func(l *libraries) (string, error) {
		line := `set -euo pipefail; say() { echo "$*" >&2; }; die() { say "$*"; exit 1; }; . ./cuda.sh; toolkit=$1; collect_cuda "$2"`
		out, err := exec.Command("bash", "-c", line, "-", l.path("toolkit"), l.path("llama")).CombinedOutput()
		return string(out), err
	}
	l := newLibraries(t)
	if err := os.MkdirAll(l.path("toolkit/lib64"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.library("toolkit/lib64/libcudart.so.13")
	l.library("toolkit/lib64/libcublasLt.so.13")
	l.library("toolkit/lib64/libcublas.so.13", "toolkit/lib64/libcublasLt.so.13")
	l.library("elsewhere/libcuda.so.1")
	l.library("llama/lib/libggml-cuda.so", "toolkit/lib64/libcudart.so.13", "toolkit/lib64/libcublas.so.13", "elsewhere/libcuda.so.1")
	if err := os.WriteFile(l.path("toolkit/EULA.txt"), []byte("terms\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if output, err := collect(l); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, name := range []string{"libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"} {
		if !bytes.Equal(l.read("toolkit/lib64/"+name), l.read("llama/lib/"+name)) {
			t.Errorf("%s isn't the toolkit's", name)
		}
	}
	if _, err := os.Stat(l.path("llama/lib/libcuda.so.1")); err == nil {
		t.Error("the driver's library was taken along")
	}
	if got := string(l.read("llama/LICENSE.nvidia")); got != "terms\n" {
		t.Errorf("NVIDIA's licence is %q", got)
	}

	for _, gone := range []string{"llama/lib/libcudart.so.13", "toolkit/lib64/libcudart.so.13"} {
		if err := os.Remove(l.path(gone)); err != nil {
			t.Fatal(err)
		}
	}
	if output, err := collect(l); err == nil || !strings.Contains(output, "needs libcudart.so.13") {
		t.Errorf("without a library: %v, %q", err, output)
	}
}
