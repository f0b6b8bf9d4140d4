package models

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// listing is the registry's content as text, a line a model: name: version; a version with a problem has a ! after it.
func listing(r *Registry) string {
	var b strings.Builder
	for _, m := range r.Snapshot() {
		fmt.Fprintf(&b, "%s:", m.Name)
		for _, v := range m.Versions {
			b.WriteString(" " + v.Name)
			if v.Problem != "" {
				b.WriteString("!")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func wantListing(t *testing.T, r *Registry, want ...string) {
	t.Helper()
	if got := strings.TrimSpace(listing(r)); got != strings.Join(want, "\n") {
		t.Errorf("listed:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func problem(t *testing.T, r *Registry, model, version string) string {
	t.Helper()
	m, ok := r.Find(model)
	if !ok {
		t.Fatalf("%s isn't listed", model)
	}
	v, ok := m.Find(version)
	if !ok {
		t.Fatalf("%s has no version %s", model, version)
	}
	return v.Problem
}

func TestRegistryLayouts(t *testing.T) {
	dir := t.TempDir()
	model, adapter := gguf("model", 1), gguf("adapter", 2)
	place(t, dir, "plain/model.gguf", model)
	place(t, dir, "plain/versions/v2.gguf", adapter)
	place(t, dir, "plain/versions/v1.0.gguf.xz", packed(t, adapter))
	place(t, dir, "plain/versions/README.md", []byte("not a version"))
	place(t, dir, "org/one/model.gguf.xz", packed(t, model))
	place(t, dir, "org/two/model-00001-of-00002.gguf", model)
	place(t, dir, "org/two/model-00002-of-00002.gguf", model)
	place(t, dir, "full/model.gguf", model)
	place(t, dir, "full/big.gguf", model)
	place(t, dir, "full/model.yaml", []byte("description: Two models\ndefault_version: v1.0\nversions: {v1.0: {file: model.gguf}, v2.0: {file: big.gguf}}\n"))
	place(t, dir, "notes.txt", []byte("not a model"))
	place(t, dir, ".hidden/model.gguf", model)
	place(t, dir, "none/model.gguf", model)
	place(t, dir, "bad name/model.gguf", model)

	r := newTestRegistry(t, RegistryOptions{Dir: dir, Demo: smallDemo(t)})
	wantListing(t, r, "full: base v1.0 v2.0", "org/one: base", "org/two: base", "plain: base v1.0 v2")
	full, _ := r.Find("full")
	if full.Description != "Two models" || full.Resolve("v2.0") != "v1.0" || full.TrainContext != 512 {
		t.Errorf("full: %+v", full)
	}
	plain, _ := r.Find("plain")
	if plain.Resolve("v2") != "v2" || plain.Resolve("v9") != "base" {
		t.Error("plain: wrong default version")
	}
	if r.source("full", "v1.0").baseID != r.source("full", "base").baseID {
		t.Error("a full version that is the base's own file isn't shared with it")
	}
	if r.source("full", "v2.0").baseID == r.source("full", "base").baseID {
		t.Error("another full version shares the base")
	}
	if p := r.source("org/two", "base").base.parts; len(p) != 2 || !strings.HasSuffix(p[0].realPath, "model-00001-of-00002.gguf") {
		t.Errorf("parts %v", p)
	}
}

func TestBadFilesAreListedWithTheReason(t *testing.T) {
	dir := t.TempDir()
	model, adapter := gguf("model", 1), gguf("adapter", 2)
	place(t, dir, "cut/model.gguf", model[:len(model)-40])
	place(t, dir, "garbage/model.gguf", []byte("hello"))
	place(t, dir, "empty/model.gguf", nil)
	place(t, dir, "broken-off/model.gguf.xz", packed(t, model)[:200])
	place(t, dir, "missing-part/model-00001-of-00002.gguf", model)
	place(t, dir, "yaml/model.gguf", model)
	place(t, dir, "yaml/model.yaml", []byte("descripton: typo\n"))
	place(t, dir, "nobase/versions/v1.gguf", adapter)
	place(t, dir, "swapped/model.gguf", adapter)
	place(t, dir, "swapped/versions/v1.gguf", model)
	place(t, dir, "half/model.gguf", model)
	place(t, dir, "half/versions/v1.gguf", adapter[:50])
	place(t, dir, "half/versions/v2.gguf", adapter)
	r := newTestRegistry(t, RegistryOptions{Dir: dir})
	tests := []struct{ model, version, want string }{
		{"cut", "base", "cut off"},
		{"garbage", "base", "GGUF"},
		{"empty", "base", "cut off"},
		{"broken-off", "base", "breaks off"},
		{"missing-part", "base", "model-00002-of-00002.gguf is missing"},
		{"yaml", "base", "line 1: field descripton"},
		{"nobase", "base", "model.gguf is missing"},
		{"nobase", "v1", "model.gguf is missing"},
		{"swapped", "base", "is an adapter"},
		{"half", "v1", "cut off"},
		{"half", "base", ""},
		{"half", "v2", ""},
	}
	for _, tt := range tests {
		got := problem(t, r, tt.model, tt.version)
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s@%s: problem %q, want %q", tt.model, tt.version, got, tt.want)
		}
	}
	if p := r.source("swapped", "v1").adapter.problem; !strings.Contains(p, "not a LoRA") {
		t.Errorf("a full model in versions/: %q", p)
	}
}

func TestDemoStandsInWhileNothingIsInstalled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	demo := smallDemo(t)
	now := time.Now()
	r := newTestRegistry(t, RegistryOptions{Dir: dir, Demo: demo})
	wantListing(t, r, "demo: base v1.0")
	if m, _ := r.Find("demo"); m.Resolve("v1.0") != "v1.0" || m.DefaultVersion != "" || !m.Demo {
		t.Errorf("demo: %+v", m)
	}

	changed := r.Changes()
	place(t, dir, "mine/model.gguf", gguf("model", 1))
	refresh(t, r, now)
	refresh(t, r, now.Add(3*time.Second))
	wantListing(t, r, "mine: base")
	select {
	case <-changed:
	default:
		t.Error("no word of the change")
	}

	always := newTestRegistry(t, RegistryOptions{Dir: dir, Demo: demo, AlwaysDemo: true})
	wantListing(t, always, "demo: base v1.0", "mine: base")

	place(t, dir, "demo/model.gguf", gguf("model", 1))
	own := newTestRegistry(t, RegistryOptions{Dir: dir, Demo: demo, AlwaysDemo: true})
	wantListing(t, own, "demo: base", "mine: base")
}

func refresh(t *testing.T, r *Registry, now time.Time) {
	t.Helper()
	if err := r.refresh(now); err != nil {
		t.Fatal(err)
	}
}

func TestFilesCountWhenTheyHaveSettled(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	file := gguf("model", 1)
	r := newTestRegistry(t, RegistryOptions{Dir: dir})
	placeAt(t, dir, "m/model.gguf", file[:60], now)
	refresh(t, r, now)
	wantListing(t, r)
	now = now.Add(time.Second)
	placeAt(t, dir, "m/model.gguf", file, now) // still growing
	refresh(t, r, now)
	refresh(t, r, now.Add(1900*time.Millisecond))
	wantListing(t, r)
	refresh(t, r, now.Add(2*time.Second))
	wantListing(t, r, "m: base")
	before := r.source("m", "base")

	// What is listed stays until a new file has settled, then the new one counts.
	now = now.Add(time.Minute)
	changed := r.Changes()
	placeAt(t, dir, "m/model.gguf", gguf("model", 2), now)
	refresh(t, r, now)
	if r.source("m", "base") != before {
		t.Error("a fresh file counts at once")
	}
	refresh(t, r, now.Add(2*time.Second))
	if r.source("m", "base").identity == before.identity {
		t.Error("the new file isn't noticed")
	}
	select {
	case <-changed:
	default:
		t.Error("no word of the change")
	}

	if err := os.RemoveAll(filepath.Join(dir, "m")); err != nil {
		t.Fatal(err)
	}
	refresh(t, r, now.Add(3*time.Second))
	wantListing(t, r)
}

// A pod that copies its models at its start has files that are a moment old. Nobody wants the demo meanwhile.
func TestFreshFilesAreAwaitedAtTheStart(t *testing.T) {
	demo := smallDemo(t)
	for _, c := range []struct {
		name  string
		files map[string]time.Time // when each changed last; bubbles begin in 2000
		grows bool
		waits time.Duration
		want  []string
	}{
		{"no files", nil, false, 0, []string{"demo: base v1.0"}},
		{"old files", map[string]time.Time{"old/model.gguf": longAgo}, false, 0, []string{"old: base"}},
		{"fresh files", map[string]time.Time{"mine/model.gguf": time.Now()}, false, settleTime, []string{"mine: base"}},
		{"fresh files beside old ones", map[string]time.Time{"mine/model.gguf": time.Now(), "old/model.gguf": longAgo}, false, settleTime, []string{"mine: base", "old: base"}},
		{"a file that is still being copied", map[string]time.Time{"mine/model.gguf": time.Now()}, true, settleTime, []string{"demo: base v1.0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for path, changed := range c.files {
				placeAt(t, dir, path, gguf("model", 1), changed)
			}
			synctest.Test(t, func(t *testing.T) {
				r := newTestRegistry(t, RegistryOptions{Dir: dir, Demo: demo})
				if c.grows {
					time.AfterFunc(settleTime/2, func() { place(t, dir, "mine/model.gguf", append(gguf("model", 1), 0)) })
				}
				began := time.Now()
				if err := r.AwaitFreshFiles(t.Context()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != c.waits {
					t.Errorf("waited %v, want %v", took, c.waits)
				}
				wantListing(t, r, c.want...)
			})
		})
	}
}

func TestNothingChangedIsNoChange(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "m/model.gguf", gguf("model", 1))
	place(t, dir, "m/model.yaml", []byte("defaults: {temperature: 0.5}\n"))
	r := newTestRegistry(t, RegistryOptions{Dir: dir})
	changed := r.Changes()
	refresh(t, r, time.Now().Add(time.Hour))
	refresh(t, r, time.Now().Add(2*time.Hour))
	select {
	case <-changed:
		t.Error("word of a change that wasn't")
	default:
	}
}

// What model.yaml says of a file that stays as it is counts like the file itself.
func TestChecksumsCountWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "m/model.gguf", gguf("model", 1))
	place(t, dir, "m/versions/v1.gguf", gguf("adapter", 1))
	r := newTestRegistry(t, RegistryOptions{Dir: dir})
	ids := map[string]bool{r.source("m", "v1").identity: true}
	base := r.source("m", "base").baseID
	for i, yaml := range []string{"checksums: {versions/v1.gguf: " + sha256Hex([]byte("a")) + "}\n", "checksums: {versions/v1.gguf: " + sha256Hex([]byte("b")) + "}\n"} {
		place(t, dir, "m/model.yaml", []byte(yaml))
		now := time.Now().Add(time.Duration(i) * time.Hour)
		refresh(t, r, now)
		refresh(t, r, now.Add(settleTime))
		if len(r.source("m", "v1").adapter.wantChecksums) != 1 {
			t.Errorf("%s: not known", yaml)
		}
		ids[r.source("m", "v1").identity] = true
	}
	if len(ids) != 3 {
		t.Errorf("three states of model.yaml have the identities %v", ids)
	}
	if r.source("m", "v1").baseID != base {
		t.Error("an adapter's checksum is another base")
	}
	place(t, dir, "m/model.yaml", []byte("checksums: {model.gguf: "+sha256Hex([]byte("a"))+"}\n"))
	now := time.Now().Add(2 * time.Hour)
	refresh(t, r, now)
	refresh(t, r, now.Add(settleTime))
	if r.source("m", "v1").baseID == base {
		t.Error("a base that must have a checksum is shared with one that needn't")
	}
}

func TestARenamedLinkIsOpenedByItsNewName(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	blob := place(t, outside, "blob", gguf("model", 1))
	symlink(t, blob, dir, "m/a.gguf")
	r := newTestRegistry(t, RegistryOptions{Dir: dir})
	before := r.source("m", "base")
	if err := os.Rename(filepath.Join(dir, "m/a.gguf"), filepath.Join(dir, "m/model.gguf")); err != nil {
		t.Fatal(err)
	}
	refresh(t, r, time.Now())
	after := r.source("m", "base")
	if name := filepath.Base(after.base.parts[0].openPath); name != "model.gguf" {
		t.Errorf("it would open %s", name)
	}
	if after.identity != before.identity {
		t.Error("the same file under another name would be loaded anew")
	}
}

// A disk or network that fails for a moment changes no model, only one that goes on failing does.
func TestAFaultOfTheDiskIsNoChange(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	for _, name := range []string{"m", "m/model.gguf", "m/model.yaml", "m/versions", "org", "org/one", "top.gguf"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			place(t, dir, "m/model.gguf", gguf("model", 1))
			place(t, dir, "m/model.yaml", []byte("description: a model\n"))
			place(t, dir, "m/versions/v1.gguf", gguf("adapter", 1))
			place(t, dir, "org/one/model.gguf", gguf("model", 2))
			place(t, dir, "top.gguf", gguf("model", 3))
			r := newTestRegistry(t, RegistryOptions{Dir: dir})
			all := []string{"m: base v1", "org/one: base", "top: base"}
			wantListing(t, r, all...)
			setMode := func(mode os.FileMode) {
				if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
					t.Fatal(err)
				}
			}
			r.scanner.checks = map[fileIdentity]headerCheck{} // so that headers are read again
			changed, now := r.Changes(), time.Now()
			setMode(0)
			defer setMode(0o700)
			refresh(t, r, now)
			refresh(t, r, now.Add(faultTime-time.Second))
			setMode(0o700)
			for i := range 4 {
				refresh(t, r, now.Add(faultTime+time.Duration(i)*time.Second))
			}
			wantListing(t, r, all...)
			select {
			case <-changed:
				t.Error("word of a change that wasn't")
			default:
			}
			r.scanner.checks = map[fileIdentity]headerCheck{}
			setMode(0)
			refresh(t, r, now.Add(time.Hour))
			wantListing(t, r, all...)
			refresh(t, r, now.Add(time.Hour+faultTime))
			if listing(r) == strings.Join(all, "\n")+"\n" {
				t.Error("it is still listed as good when it couldn't be read for long")
			}
		})
	}
}

func TestWhichErrorsMayPass(t *testing.T) {
	notThere := &os.PathError{Op: "lstat", Path: "x", Err: syscall.ENOENT}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {notThere, false}, {syscall.ENOTDIR, false}, {syscall.ENAMETOOLONG, false}, {errGGUF, false},
		{&symlinkError{why: "leads in a circle", err: errors.New("EvalSymlinks: too many links")}, false},
		{&symlinkError{why: "can't be followed", err: &os.PathError{Op: "lstat", Path: "x", Err: syscall.ESTALE}}, true},
		{fmt.Errorf("%w: %w", errGGUF, syscall.EIO), true}, {syscall.EACCES, true},
	} {
		if got := mayPass(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func TestRunNoticesANewModel(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newTestRegistry(t, RegistryOptions{Dir: dir})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		place(t, dir, "m/model.gguf", gguf("model", 1))
		start := time.Now()
		<-r.Changes()
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("noticed after %v", took)
		}
		wantListing(t, r, "m: base")
		stop()
		<-done
	})
}

func TestRevisions(t *testing.T) {
	state, other := strings.Repeat("s", 32), strings.Repeat("o", 32)
	sum, sum2 := strings.Repeat("c", 32), strings.Repeat("d", 32)
	tests := []struct {
		name, a, b string
		want       bool
	}{
		{"same state", state, state, true},
		{"checksum became known", state, state + sum, true},
		{"copied", state + sum, other + sum, true},
		{"other content", state + sum, other + sum2, false},
		{"other state, checksum unknown", state, other, false},
		{"other state, one checksum unknown", state + sum, other, false},
		{"empty", "", "", false},
	}
	for _, tt := range tests {
		if got := SameRevision(Revision(tt.a), Revision(tt.b)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
