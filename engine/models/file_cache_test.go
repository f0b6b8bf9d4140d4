package models

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func noProgress(Progress) {}

func sha256Hex(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// weightsOfModelM scans dir and returns the weights of its model m.
func weightsOfModelM(t *testing.T, dir string) *weightsFile {
	t.Helper()
	return newTestRegistry(t, RegistryOptions{Dir: dir}).source("m", BaseVersion).base
}

func reasonOf(err error) Reason {
	if le, ok := errors.AsType[*LoadError](err); ok {
		return le.Reason
	}
	return ""
}

// unpackedFiles lists the files in a cache directory besides the checksums.
func unpackedFiles(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, unpackedSubdir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(dir, unpackedSubdir, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(list, hidden...)
}

func TestPackedFileIsUnpackedOnce(t *testing.T) {
	dir, cache := t.TempDir(), t.TempDir()
	content := gguf("model", 5)
	place(t, dir, "m/model.gguf.xz", packed(t, content))
	a := weightsOfModelM(t, dir)
	var phases []string
	report := func(p Progress) {
		if p.Ratio < 0 || p.Ratio > 1 {
			t.Errorf("ratio %v", p.Ratio)
		}
		phases = append(phases, p.Phase)
	}
	f := openFileCache(cache, discardLog())
	path, err := f.prepare(t.Context(), a, "m", report)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("unpacked content differs (%v)", err)
	}
	if len(phases) == 0 || phases[0] != "unpack" {
		t.Errorf("phases %v", phases)
	}
	if sum, err := f.contentHash(t.Context(), a); err != nil || hex.EncodeToString(sum) != sha256Hex(content) {
		t.Errorf("content %x, %v", sum, err)
	}

	phases = nil
	again := openFileCache(cache, discardLog()) // as after a restart
	if second, err := again.prepare(t.Context(), a, "m", report); err != nil || second != path || len(phases) != 0 {
		t.Errorf("second time: %s, %v, phases %v", second, err, phases)
	}
	if l := unpackedFiles(t, cache); len(l) != 1 {
		t.Errorf("cache holds %v", l)
	}
}

func TestDamagedPackedFileLeavesNothing(t *testing.T) {
	good := packed(t, gguf("model", 5))
	damaged := bytes.Clone(good)
	damaged[60] ^= 0xff // inside the first block; the index stays right
	tests := []struct {
		name string
		file []byte
	}{
		{"damaged block", damaged},
		{"content isn't GGUF", packed(t, []byte(strings.Repeat("no model ", 100)))},
		{"content is cut off", packed(t, gguf("model", 5)[:180])},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, cache := t.TempDir(), t.TempDir()
			place(t, dir, "m/model.gguf.xz", tt.file)
			f, a := openFileCache(cache, discardLog()), weightsOfModelM(t, dir)
			_, err := f.prepare(t.Context(), a, "m", noProgress)
			if reasonOf(err) != ReasonBadFormat {
				t.Errorf("error %v, want bad_format", err)
			}
			_, again := f.prepare(t.Context(), a, "m", func(Progress) { t.Error("it is unpacked again") })
			if reasonOf(again) != ReasonBadFormat {
				t.Errorf("second time: error %v", again)
			}
			if l := unpackedFiles(t, cache); len(l) > 0 {
				t.Errorf("left behind: %v", l)
			}
		})
	}
}

func TestUnpackingHoldsTheFileToItsSize(t *testing.T) {
	file := packed(t, gguf("model", 5))
	for _, size := range []int64{1, 10_000} {
		var b bytes.Buffer
		if _, err := unpack(t.Context(), &b, bytes.NewReader(file), size, noProgress); err == nil {
			t.Errorf("a file that promised %d bytes passes", size)
		}
		if int64(b.Len()) > size+1 {
			t.Errorf("%d bytes were written where %d were promised", b.Len(), size)
		}
	}
}

func TestUnpackingStopsWithItsContext(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errLoadTimeout)
	dir, cache := t.TempDir(), t.TempDir()
	place(t, dir, "m/model.gguf.xz", packed(t, gguf("model", 5)))
	_, err := openFileCache(cache, discardLog()).prepare(ctx, weightsOfModelM(t, dir), "m", noProgress)
	if reasonOf(err) != ReasonTimeout {
		t.Errorf("error %v, want timeout", err)
	}
	if l := unpackedFiles(t, cache); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

func TestNoRoomOnDisk(t *testing.T) {
	if err := checkDiskSpace(t.TempDir(), 1<<20); err != nil {
		t.Skipf("the disk is full: %v", err)
	}
	if err := checkDiskSpace(t.TempDir(), maxUnpackedBytes+1); err == nil {
		t.Error("an absurd size passes")
	}
	if err := checkDiskSpace(t.TempDir(), maxUnpackedBytes); err == nil {
		t.Skip("a disk with more than 512 GiB free")
	}
}

func TestChecksumsOfModelYAML(t *testing.T) {
	content := gguf("model", 5)
	xz := packed(t, content)
	wrong := sha256Hex([]byte("something else"))
	tests := []struct {
		name, file, key, sum string
		content              []byte
		ok                   bool
	}{
		{"right", "model.gguf", "model.gguf", sha256Hex(content), content, true},
		{"wrong", "model.gguf", "model.gguf", wrong, content, false},
		{"packed, right", "model.gguf.xz", "model.gguf.xz", sha256Hex(xz), xz, true},
		{"packed, wrong", "model.gguf.xz", "model.gguf.xz", wrong, xz, false},
		{"unpacked, right", "model.gguf.xz", "model.gguf", sha256Hex(content), xz, true},
		{"unpacked, wrong", "model.gguf.xz", "model.gguf", wrong, xz, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, cache := t.TempDir(), t.TempDir()
			place(t, dir, "m/"+tt.file, tt.content)
			place(t, dir, "m/model.yaml", []byte("checksums: {"+tt.key+": "+tt.sum+"}\n"))
			f := openFileCache(cache, discardLog())
			for range 2 { // computed, then remembered
				_, err := f.prepare(t.Context(), weightsOfModelM(t, dir), "m", noProgress)
				if tt.ok && err != nil || !tt.ok && reasonOf(err) != ReasonBadFormat {
					t.Errorf("error %v", err)
				}
			}
		})
	}
}

// Whatever the target of a link is called: the file's name in model.yaml is its path from the model's directory.
func TestChecksumsHoldBehindLinks(t *testing.T) {
	dir := t.TempDir()
	wrong := sha256Hex([]byte("something else"))
	place(t, dir, "m/model.gguf", gguf("model", 1))
	place(t, dir, "m/adapters/v1.gguf", gguf("adapter", 1))
	place(t, dir, "m/model.yaml", []byte("checksums: {versions/v1.gguf: "+wrong+", modell.gguf: "+wrong+"}\n"))
	if err := os.Symlink("adapters", filepath.Join(dir, "m/versions")); err != nil {
		t.Fatal(err)
	}
	place(t, dir, "versions/model.gguf", gguf("model", 2))
	place(t, dir, "versions/model.yaml", []byte("checksums: {model.gguf: "+wrong+"}\n"))
	var log bytes.Buffer
	r := newTestRegistry(t, RegistryOptions{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	f := openFileCache(t.TempDir(), discardLog())
	for _, a := range []*weightsFile{r.source("m", "v1").adapter, r.source("versions", "base").base} {
		if _, err := f.prepare(t.Context(), a, "m", noProgress); reasonOf(err) != ReasonBadFormat {
			t.Errorf("%s: error %v", a.name(), err)
		}
	}
	if text := log.String(); strings.Count(text, "checksum of a file") != 1 || !strings.Contains(text, "modell.gguf") {
		t.Errorf("the log says %q", text)
	}
}

func TestFileThatChangedIsRefused(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "m/model.gguf", gguf("model", 5))
	a := weightsOfModelM(t, dir)
	placeAt(t, dir, "m/model.gguf", gguf("model", 6), time.Now())
	_, err := openFileCache(t.TempDir(), discardLog()).prepare(t.Context(), a, "m", noProgress)
	if !errors.Is(err, errChanged) || reasonOf(err) != ReasonOther {
		t.Errorf("error %v", err)
	}
}

func TestDemoOnDiskAndInMemory(t *testing.T) {
	demo := smallDemo(t)
	a := &weightsFile{embedded: &demo.Files[0], isPacked: true}
	cache := t.TempDir()
	inFile := filepath.Join(place(t, t.TempDir(), "file", nil), "cache") // can't be made below a file, root or not
	for name, dir := range map[string]string{"disk": cache, "memory": inFile, "none": ""} {
		t.Run(name, func(t *testing.T) {
			f := openFileCache(dir, discardLog())
			defer f.close()
			first, err := f.prepare(t.Context(), a, "demo", noProgress)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(first); err != nil || sha256Hex(got) != demo.Files[0].SHA256 {
				t.Fatalf("content differs (%v)", err)
			}
			if inMemory := strings.HasPrefix(first, "/proc/self/fd/"); inMemory != (dir != cache) {
				t.Errorf("path %s", first)
			}
			if second, err := f.prepare(t.Context(), a, "demo", noProgress); err != nil || second != first {
				t.Errorf("second time %s, %v", second, err)
			}
		})
	}
	// A file that was changed in the cache directory is replaced.
	f := openFileCache(cache, discardLog())
	path := filepath.Join(cache, unpackedSubdir, a.unpackedName())
	if err := os.WriteFile(path, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.prepare(t.Context(), a, "demo", noProgress); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || sha256Hex(got) != demo.Files[0].SHA256 {
		t.Errorf("the changed file is still there (%v)", err)
	}
}

func TestPrune(t *testing.T) {
	cache := t.TempDir()
	f := openFileCache(cache, discardLog())
	old := place(t, cache, unpackedSubdir+"/old.gguf", []byte("x"))
	kept := place(t, cache, unpackedSubdir+"/kept.gguf", []byte("x"))
	fresh := placeAt(t, cache, unpackedSubdir+"/fresh.gguf", []byte("x"), time.Now())
	temp := place(t, cache, unpackedSubdir+"/"+tempPrefix+"123", []byte("x"))
	f.prune(map[string]bool{"kept.gguf": true})
	openFileCache(cache, discardLog())
	for path, want := range map[string]bool{old: false, kept: true, fresh: true, temp: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", filepath.Base(path), err == nil, want)
		}
	}
}

func TestChecksumsSurviveABrokenFile(t *testing.T) {
	path := place(t, t.TempDir(), "checksums.json", []byte(`{"a":`))
	c := openChecksums(path)
	if err := c.put("k", "v"); err != nil {
		t.Fatal(err)
	}
	if sum, ok := openChecksums(path).get("k"); !ok || sum != "v" {
		t.Errorf("%q, %v", sum, ok)
	}
}

// CACHE_DIR may be removed at any time, also while a file is being unpacked into it. The model's files are there.
func TestARemovedCacheDirIsMadeAgain(t *testing.T) {
	dir, cache := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	place(t, dir, "m/model.gguf.xz", packed(t, gguf("model", 5)))
	f, a := openFileCache(cache, discardLog()), weightsOfModelM(t, dir)
	remove := func() {
		if err := os.RemoveAll(cache); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	if _, err := f.prepare(t.Context(), a, "m", func(Progress) { remove() }); reasonOf(err) != ReasonOther {
		t.Errorf("removed while it is unpacked: error %v", err)
	}
	if _, err := f.prepare(t.Context(), a, "m", noProgress); err != nil {
		t.Errorf("removed before: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := f.prepare(t.Context(), a, "m", noProgress); reasonOf(err) != ReasonNotFound {
		t.Errorf("without the model's file: error %v", err)
	}
}

// A killed process leaves what it was unpacking. That goes at once, and what another one is unpacking stays.
func TestTemporaryFilesOfProcessesThatAreGoneAreRemoved(t *testing.T) {
	cache := t.TempDir()
	left := placeAt(t, cache, unpackedSubdir+"/"+tempPrefix+"1", []byte("x"), time.Now())
	live, err := createTemp(filepath.Dir(left))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	openFileCache(cache, discardLog())
	for path, want := range map[string]bool{left: false, live.Name(): true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", filepath.Base(path), err == nil, want)
		}
	}
}
