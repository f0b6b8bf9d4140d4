package native

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kernelsOf are the places in the cache of CUDA's backend and of the whole build, with a toolkit of two lines and the
// patches of a copy of the scripts.
func kernelsOf(t *testing.T, scripts string, env ...string) (kernels, whole string) {
	t.Helper()
	toolkit := t.TempDir()
	program(t, filepath.Join(toolkit, "bin/nvcc"), "echo compiler; echo version")
	ask := func(what string) string {
		cmd := exec.Command("bash", filepath.Join(scripts, "build-llama.sh"), what)
		cmd.Env = append(os.Environ(), append([]string{"CUDA=1", "CUDA_HOME=" + toolkit, "CUDA_ARCHS=90-real", "TANDEM_CACHE=/cache"}, env...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", what, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	return ask("--kernels-key"), ask("--key")
}

// CUDA's backend takes ten times as long as all else: it is compiled again only for what it depends on.
func TestWhatCompilesKernelsAgain(t *testing.T) {
	t.Parallel()
	scripts := t.TempDir()
	if out, err := exec.Command("cp", "-r", "../build-llama.sh", "../cuda-toolkit.sh", "../native", scripts).CombinedOutput(); err != nil {
		t.Fatalf("copy the scripts: %v: %s", err, out)
	}
	t.Run("another variant of the CPU's code", func(t *testing.T) {
		kernels, whole := kernelsOf(t, scripts)
		again, all := kernelsOf(t, scripts, "VARIANTS=all")
		if kernels != again || whole == all || !strings.HasPrefix(kernels, "/cache/llama.cpp/cuda-") {
			t.Errorf("%s and %s, whole %s and %s", kernels, again, whole, all)
		}
	})
	t.Run("another card", func(t *testing.T) {
		kernels, whole := kernelsOf(t, scripts)
		again, other := kernelsOf(t, scripts, "CUDA_ARCHS=80-real")
		if kernels == again || whole == other {
			t.Errorf("%s and %s, whole %s and %s", kernels, again, whole, other)
		}
	})
	for file, wants := range map[string]bool{"src/llama-graph.cpp": false, "ggml/src/ggml-cpu/ops.cpp": false, "ggml/src/ggml.c": true, "ggml/src/ggml-cuda/mmf.cu": true} {
		t.Run("a patch of "+file, func(t *testing.T) {
			kernels, whole := kernelsOf(t, scripts)
			patch := filepath.Join(scripts, "native/patches/9999-test.patch")
			if err := os.WriteFile(patch, []byte("why\n\ndiff --git a/"+file+" b/"+file+"\n--- a/"+file+"\n+++ b/"+file+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(patch)
			again, other := kernelsOf(t, scripts)
			if (kernels != again) != wants || whole == other {
				t.Errorf("kernels %s and %s, whole %s and %s", kernels, again, whole, other)
			}
		})
	}
}
