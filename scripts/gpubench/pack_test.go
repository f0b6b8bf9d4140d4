package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packStep runs a line of bash after pack-steps.sh was read.
func packStep(t *testing.T, line string, args ...string) (output string, err error) {
	t.Helper()
	script := `set -euo pipefail; shopt -s inherit_errexit; die() { echo "$*" >&2; exit 1; }; . ./pack-steps.sh; ` + line
	out, err := exec.Command("bash", append([]string{"-c", script, "pack"}, args...)...).CombinedOutput()
	return string(out), err
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The licence goes along where the toolkit had it, and the list of cards where the build kept it.
func TestGatherKernels(t *testing.T) {
	for name, c := range map[string]struct{ files, want map[string]string }{
		"of NVIDIA's wheels": {
			map[string]string{"LICENSE.nvidia": "the licence", "ingredients.txt": "-DGGML_CUDA=ON\n-DCMAKE_CUDA_ARCHITECTURES=80-real;90-real\n"},
			map[string]string{"LICENSE.nvidia": "the licence", "cuda-architectures": "80-real;90-real\n"},
		},
		"of a distribution":   {map[string]string{"ingredients.txt": "-DGGML_CUDA=ON\n"}, nil},
		"made by other means": {nil, nil},
	} {
		kernels, lib := t.TempDir(), t.TempDir()
		writeFiles(t, kernels, c.files)
		writeFiles(t, kernels, map[string]string{"lib/libcudart.so.13": "the runtime"})
		compile(t, filepath.Join(kernels, "lib/libggml-cuda.so"))
		if out, err := packStep(t, `gather_kernels "$@"`, kernels, lib); err != nil {
			t.Fatalf("%s: %v, %s", name, err, out)
		}
		want := map[string]string{"libcudart.so.13": "the runtime"}
		for name, content := range c.want {
			want[name] = content
		}
		there, err := filepath.Glob(lib + "/*")
		if err != nil || len(there) != len(want)+1 {
			t.Errorf("%s: %q, %v", name, there, err)
		}
		for file, content := range want {
			if got, err := os.ReadFile(filepath.Join(lib, file)); err != nil || string(got) != content {
				t.Errorf("%s: %s is %q, %v", name, file, got, err)
			}
		}
	}
	if out, err := packStep(t, `gather_kernels "$@"`, t.TempDir(), t.TempDir()); err == nil || !strings.Contains(out, "has no lib/libggml-cuda.so") {
		t.Errorf("without a backend: %v, %s", err, out)
	}
}

// What an earlier run left in the directory stays there, and the archive has the pack alone.
func TestPackOverResults(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "tandem-gpu-bench")
	for _, version := range []string{"first", "second"} {
		stage := t.TempDir()
		writeFiles(t, stage, map[string]string{"bench-gpu": version, "programs.tar.xz": version})
		if out, err := packStep(t, `place_pack "$@"`, stage, to); err != nil {
			t.Fatalf("%v, %s", err, out)
		}
		if version == "first" {
			writeFiles(t, to, map[string]string{"results/results.json": "{}", "programs/tandem-engine": "unpacked"})
		}
	}
	for name, want := range map[string]string{"programs.tar.xz": "second", "results/results.json": "{}"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	out, err := exec.Command("tar", "-tf", to+".tar").CombinedOutput()
	if err != nil || string(out) != "tandem-gpu-bench/bench-gpu\ntandem-gpu-bench/programs.tar.xz\n" {
		t.Errorf("the archive: %v, %s", err, out)
	}
}
