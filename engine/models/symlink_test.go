package models

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// symlink makes a link of this name below dir.
func symlink(t *testing.T, target, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// registryWithLog returns a registry and its log.
func registryWithLog(t *testing.T, o RegistryOptions) (*Registry, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	return newTestRegistry(t, o), &log
}

// wantLogLines checks that the log has exactly one line with all the parts of each entry, and no other line.
func wantLogLines(t *testing.T, log *bytes.Buffer, lines ...[]string) {
	t.Helper()
	all := strings.Split(strings.TrimSpace(log.String()), "\n")
	if log.Len() == 0 {
		all = nil
	}
	if len(all) != len(lines) {
		t.Errorf("%d lines, want %d:\n%s", len(all), len(lines), log)
	}
next:
	for _, parts := range lines {
		for _, line := range all {
			found := true
			for _, part := range parts {
				found = found && strings.Contains(line, part)
			}
			if found {
				continue next
			}
		}
		t.Errorf("no line with %q in:\n%s", parts, log)
	}
}

func TestLinksOutOfTheDirectoryAreFollowed(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	// As in the cache of Hugging Face, where files have no ending.
	blob := place(t, outside, "blobs/0d3f", gguf("model", 1))
	part1, part2 := place(t, outside, "blobs/aa01", gguf("model", 2)), place(t, outside, "blobs/aa02", gguf("model", 3))
	adapter := place(t, outside, "blobs/bb01", gguf("adapter", 4))
	symlink(t, "../../blobs/0d3f", outside, "snapshots/c1/tiny-Q4_K_M.gguf")
	symlink(t, filepath.Join(outside, "snapshots/c1"), dir, "org/snapshot")
	symlink(t, blob, dir, "file/model.gguf")
	symlink(t, adapter, dir, "file/versions/v1.gguf")
	symlink(t, part1, dir, "split/model-00001-of-00002.gguf")
	symlink(t, part2, dir, "split/model-00002-of-00002.gguf")
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	wantListing(t, r, "file: base v1", "org/snapshot: base", "split: base")
	wantLogLines(t, log)
	real, err := filepath.EvalSymlinks(blob)
	if err != nil {
		t.Fatal(err)
	}
	if p := r.source("file", "base").base.parts[0]; p.realPath != real {
		t.Errorf("known as %s, want its target %s", p.realPath, real)
	}
	if got := r.source("split", "base").base.parts[0].openPath; filepath.Base(got) != "model-00001-of-00002.gguf" {
		t.Errorf("the library would open %s, and not find the second part", got)
	}

	// The link stays, its target is another file: another state of the model.
	before := r.source("file", "base").identity
	placeAt(t, outside, "blobs/0d3f", gguf("model", 9), time.Now().Add(-time.Hour))
	now := time.Now()
	refresh(t, r, now)
	refresh(t, r, now.Add(settleTime))
	if r.source("file", "base").identity == before {
		t.Error("another target isn't noticed")
	}
}

func TestLinksThatLeadNowhereAreLoggedByName(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	symlink(t, filepath.Join(outside, "gone.gguf"), dir, "vanished/model.gguf")
	symlink(t, "model.gguf", dir, "circle/model.gguf")
	symlink(t, "loop", dir, "loop")
	symlink(t, filepath.Join(outside, "nas"), dir, "nas")
	symlink(t, "..", dir, "org/up")
	place(t, dir, "org/one/model.gguf", gguf("model", 1))
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	wantListing(t, r, "circle: base!", "org/one: base", "vanished: base!")
	for model, want := range map[string]string{"vanished": "a link whose target doesn't exist", "circle": "leads in a circle"} {
		if p := problem(t, r, model, "base"); !strings.Contains(p, want) || strings.Contains(p, outside) {
			t.Errorf("%s: clients are told %q, want %q and no path", model, p, want)
		}
	}
	wantLogLines(t, log,
		[]string{"model can't be loaded", "vanished", filepath.Join(outside, "gone.gguf")},
		[]string{"model can't be loaded", "circle", "leads in a circle"},
		[]string{"ignored", filepath.Join(dir, "loop"), "leads in a circle"},
		[]string{"ignored", filepath.Join(dir, "nas"), "target doesn't exist", filepath.Join(outside, "nas")},
		[]string{"ignored", filepath.Join(dir, "org/up"), "leads back"},
	)
	refresh(t, r, time.Now())
	if n := strings.Count(log.String(), "\n"); n != 5 {
		t.Errorf("%d lines after a second look, want the same 5:\n%s", n, log)
	}
}

func TestLinksStayInsideWhenTheyMust(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	secret := place(t, outside, "model.gguf", gguf("model", 1))
	inside := place(t, dir, "real/model.gguf", gguf("model", 2))
	symlink(t, outside, dir, "escape")
	symlink(t, secret, dir, "file/model.gguf")
	symlink(t, inside, dir, "alias/model.gguf")
	symlink(t, "real", dir, "twin")
	symlink(t, outside, dir, "real/versions")
	r, _ := registryWithLog(t, RegistryOptions{Dir: dir, LinksInside: true})
	wantListing(t, r, "alias: base", "file: base!", "real: base", "twin: base")
	if p := problem(t, r, "file", "base"); !strings.Contains(p, "leaves the models directory") || strings.Contains(p, outside) {
		t.Errorf("problem %q", p)
	}
	if r.source("file", "base").base.parts != nil {
		t.Error("a path outside was kept")
	}
}

// Problems of a model.yaml quote the file to clients, so no other file may be read as one.
func TestAModelYAMLFromElsewhereIsNotRead(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	secret := place(t, outside, "secret", []byte("temperature: hunter2\n"))
	for _, name := range []string{"link", "chain", "inside"} {
		place(t, dir, name+"/model.gguf", gguf("model", 1))
	}
	symlink(t, secret, dir, "link/model.yaml")
	symlink(t, secret, dir, "chain/b")
	symlink(t, "b", dir, "chain/model.yaml")
	place(t, dir, "inside/..data/model.yaml", []byte("description: as Kubernetes mounts it\n"))
	symlink(t, "..data/model.yaml", dir, "inside/model.yaml")
	place(t, outside, "model/model.gguf", gguf("model", 2))
	place(t, outside, "model/model.yaml", []byte("description: of a directory that is linked as a whole\n"))
	symlink(t, filepath.Join(outside, "model"), dir, "linked")
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	for _, name := range []string{"link", "chain"} {
		if p := problem(t, r, name, "base"); !strings.Contains(p, "leaves the models directory") || strings.Contains(p, "hunter2") {
			t.Errorf("%s: problem %q", name, p)
		}
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has the file's text:\n%s", log)
	}
	for _, name := range []string{"inside", "linked"} {
		if m, _ := r.Find(name); m.Description == "" || problem(t, r, name, "base") != "" {
			t.Errorf("%s isn't used: %+v", name, m)
		}
	}
}
