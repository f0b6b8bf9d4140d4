package native

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// toolkitScript is a copy of cuda-toolkit.sh with a small wheel in a directory instead of the real ones on an index.
type toolkitScript struct {
	t   *testing.T
	dir string
}

// What the script expects of the real wheels, with programs and a header that can be told from theirs.
var wheelFiles = map[string]string{
	"nvidia/cu13/bin/nvcc":            "#!/bin/sh\necho nvcc of the wheel\n",
	"nvidia/cu13/nvvm/bin/cicc":       "#!/bin/sh\n",
	"nvidia/cu13/include/cuda.h":      "#define cuMemFree cuMemFree_v2\nint cuInit(unsigned flags);\nint cuMemFree (void *p);\n",
	"nvidia/cu13/lib/libcudart.so.13": "runtime", "nvidia/cu13/lib/libcublas.so.13": "", "nvidia/cu13/lib/libcublasLt.so.13": "",
	"nvidia/cu13/lib/libnvvm.so.4": "", "nvidia/cu13/lib/libnvblas.so.13": "",
	"nvidia_cuda_runtime-1.0.dist-info/licenses/License.txt": "terms\n",
	"nvidia_cuda_runtime-1.0.dist-info/METADATA":             "Metadata-Version: 2.1\nName: nvidia-cuda-runtime\nVersion: 1.0\n",
	"nvidia_cuda_runtime-1.0.dist-info/WHEEL":                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
	"nvidia_cuda_runtime-1.0.dist-info/RECORD":               "",
}

func newToolkitScript(t *testing.T) *toolkitScript {
	t.Helper()
	for _, needed := range [][]string{{"python3", "-c", "import pip"}, {"cc", "--version"}, {"flock", "--version"}} {
		if err := exec.Command(needed[0], needed[1:]...).Run(); err != nil {
			t.Skip(needed, err)
		}
	}
	if exec.Command("bash", "-c", ". ./cuda.sh; unset CUDA_HOME; installed_toolkit").Run() == nil {
		t.Skip("this machine has a toolkit, which the script would find")
	}
	s := &toolkitScript{t: t, dir: t.TempDir()}
	for _, name := range []string{"cuda-toolkit.sh", "native/source.sh", "native/wheels.sh", "native/cuda.sh"} {
		script, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		s.write("scripts/"+name, script)
	}
	wheel := s.buildWheel()
	s.write("wheels/nvidia_cuda_runtime-1.0-py3-none-any.whl", wheel)
	s.pin(sha256.Sum256(wheel))
	return s
}

func (s *toolkitScript) path(name string) string { return filepath.Join(s.dir, name) }

func (s *toolkitScript) write(name string, content []byte) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), content, 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *toolkitScript) buildWheel() []byte {
	s.t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range wheelFiles {
		file, err := w.Create(name)
		if err == nil {
			_, err = file.Write([]byte(content))
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes()
}

func (s *toolkitScript) pin(sum [sha256.Size]byte) {
	s.write("scripts/native/cuda-wheels", fmt.Appendf(nil, "# a comment\nnvidia-cuda-runtime 1.0 1 %x\n", sum))
}

func (s *toolkitScript) run(args ...string) (stdout, stderr string, err error) {
	s.t.Helper()
	cmd := exec.Command(s.path("scripts/cuda-toolkit.sh"), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TANDEM_CACHE=" + s.path("cache"),
		"PIP_NO_INDEX=1", "PIP_FIND_LINKS=" + s.path("wheels")}
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), errors.String(), err
}

func TestAToolkitIsPutTogetherOnce(t *testing.T) {
	t.Parallel()
	s := newToolkitScript(t)
	key, stderr, err := s.run("--key")
	if err != nil || stderr != "" || !strings.HasPrefix(key, s.path("cache/cuda/")) {
		t.Fatalf("--key: %q, %v\n%s", key, err, stderr)
	}
	if _, err := os.Stat(key); err == nil {
		t.Fatal("--key put it together")
	}
	toolkit, stderr, err := s.run()
	if err != nil || toolkit != key || !strings.Contains(stderr, "NVIDIA's licence applies") {
		t.Fatalf("got %q, %v; the key is %q\n%s", toolkit, err, key, stderr)
	}
	if out, err := exec.Command(filepath.Join(toolkit, "bin/nvcc")).Output(); err != nil || string(out) != "nvcc of the wheel\n" {
		t.Errorf("nvcc: %v, %q", err, out)
	}
	for name, want := range map[string]string{"lib64/libcudart.so": "runtime", "EULA.txt": "terms\n"} {
		if content, err := os.ReadFile(filepath.Join(toolkit, name)); err != nil || string(content) != want {
			t.Errorf("%s: %v, %q", name, err, content)
		}
	}

	if err := os.RemoveAll(s.path("wheels")); err != nil {
		t.Fatal(err)
	}
	if again, stderr, err := s.run(); err != nil || again != toolkit || stderr != "" {
		t.Errorf("the second time: %q, %v\n%s", again, err, stderr)
	}
}

// A program links against the stub where there is no driver, by the names that its header gives to functions.
func TestProgramsLinkAgainstTheDriversStub(t *testing.T) {
	t.Parallel()
	s := newToolkitScript(t)
	toolkit, stderr, err := s.run()
	if err != nil {
		t.Fatal(err, stderr)
	}
	s.write("main.c", []byte("#include <cuda.h>\nint main(void) { return cuInit(0) == 34 && cuMemFree(0) == 34 ? 0 : 1; }\n"))
	out, err := exec.Command("cc", "-I", toolkit+"/include", "-o", s.path("main"), s.path("main.c"), "-L", toolkit+"/lib/stubs", "-lcuda").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Symlink(toolkit+"/lib/stubs/libcuda.so", s.path("libcuda.so.1")); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(s.path("main"))
	run.Env = []string{"LD_LIBRARY_PATH=" + s.dir}
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("with the stub as the driver's library: %v\n%s", err, out)
	}
}

func TestAWheelThatIsNotPinnedIsRefused(t *testing.T) {
	t.Parallel()
	s := newToolkitScript(t)
	s.pin(sha256.Sum256([]byte("another")))
	path, stderr, err := s.run()
	if err == nil || path != "" || !strings.Contains(stderr, "another checksum than the pinned one") {
		t.Errorf("%q, %v\n%s", path, err, stderr)
	}
	if left, _ := filepath.Glob(s.path("cache/cuda/*/*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
