package models

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestModelsUnderTheNamesThatTheyCameWith(t *testing.T) {
	dir := t.TempDir()
	model, adapter := gguf("model", 1), gguf("adapter", 2)
	place(t, dir, "tiny-Q8_0.gguf", model)
	place(t, dir, "packed.gguf.xz", packed(t, model))
	place(t, dir, "halves-00001-of-00002.gguf", model)
	place(t, dir, "halves-00002-of-00002.gguf", model)
	place(t, dir, "org/name/Name-1B-Q4_K_M.gguf", model)
	place(t, dir, "org/name/versions/v1.gguf", adapter)
	place(t, dir, "org/halves/big-00001-of-00002.gguf", model)
	place(t, dir, "org/halves/big-00002-of-00002.gguf", model)
	place(t, dir, "alone/whatever.gguf", model)
	place(t, dir, "seeing/text.gguf", model)
	place(t, dir, "seeing/mmproj-F16.gguf", gguf("mmproj", 3))
	place(t, dir, "named/a.gguf", model)
	place(t, dir, "named/b.gguf", gguf("model", 7))
	place(t, dir, "named/model.yaml", []byte("file: b.gguf\nversions: {old: {file: a.gguf}}\n"))
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	wantListing(t, r, "alone: base", "halves: base", "named: base old", "org/halves: base", "org/name: base v1", "packed: base", "seeing: base", "tiny-Q8_0: base")
	if got := filepath.Base(r.source("named", "base").base.parts[0].openPath); got != "b.gguf" {
		t.Errorf("model.yaml names b.gguf, got %s", got)
	}
	if p := r.source("halves", "base").base.parts; len(p) != 2 {
		t.Errorf("parts %v", p)
	}
	wantLogLines(t, log, []string{"file ignored", "mmproj-F16.gguf", "text.gguf is the base model here"})
}

func TestUnusedFilesAreLoggedOnceWithWhatWasExpected(t *testing.T) {
	dir := t.TempDir()
	model, adapter := gguf("model", 1), gguf("adapter", 2)
	place(t, dir, "lora.gguf", adapter)
	place(t, dir, "bad name.gguf", model)
	place(t, dir, "SHOUTED.GGUF", model)
	place(t, dir, "twice.gguf", model)
	place(t, dir, "twice/model.gguf", model)
	place(t, dir, "twice/other.gguf", model)
	place(t, dir, "twice/model.yml", []byte("domain: x\n"))
	place(t, dir, "twice/versions/v1.safetensors", []byte("x"))
	place(t, dir, "twice/README.md", []byte("no model"))
	place(t, dir, "org/one/model.gguf", model)
	place(t, dir, "org/stray.gguf", model)
	place(t, dir, "org/deep/deeper/model.gguf", model)
	place(t, dir, "hub/pytorch_model.bin", []byte("x"))
	place(t, dir, "many/a-Q4.gguf", model)
	place(t, dir, "many/a-Q8.gguf", model)
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	wantListing(t, r, "many: base!", "org/one: base", "twice: base")
	if p := problem(t, r, "many", "base"); !strings.Contains(p, "ambiguous: a-Q4.gguf, a-Q8.gguf") {
		t.Errorf("problem %q", p)
	}
	lines := [][]string{
		{"lora.gguf", "MODEL/versions/VERSION.gguf"},
		{"bad name.gguf", "not a valid model name"},
		{"SHOUTED.GGUF", "small letters"},
		{"file ignored", filepath.Join(dir, "twice.gguf"), "the directory of the same name"},
		{"twice/other.gguf", "model.gguf is the base model here"},
		{"twice/model.yml", "expected as model.yaml"},
		{"v1.safetensors", "expected as VERSION.gguf"},
		{"org/stray.gguf", "org/NAME/model.gguf"},
		{"directory ignored", "org/deep", "two levels"},
		{"directory ignored", filepath.Join(dir, "hub")},
		{"pytorch_model.bin", "convert-model.sh"},
		{"model can't be loaded", "many", "ambiguous"},
	}
	wantLogLines(t, log, lines...)
	refresh(t, r, time.Now().Add(time.Hour))
	wantLogLines(t, log, lines...)
}

// A directory that may be about to get its model isn't logged.
func TestADirectoryThatIsBeingFilledIsNotLogged(t *testing.T) {
	dir := t.TempDir()
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	place(t, dir, "soon/upload.tmp", []byte("x"))
	now := time.Now()
	refresh(t, r, now)
	wantLogLines(t, log)
	refresh(t, r, now.Add(emptyDirDelay+time.Second))
	wantLogLines(t, log, []string{"directory ignored", "soon"})
}

func TestAnAdapterWithoutTensorsIsRefused(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "m/model.gguf", gguf("model", 1))
	place(t, dir, "m/versions/empty.gguf", emptyGGUF("adapter"))
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	wantListing(t, r, "m: base empty!")
	if p := problem(t, r, "m", "empty"); !strings.Contains(p, "has no tensors") {
		t.Errorf("problem %q", p)
	}
	wantLogLines(t, log, []string{"model can't be loaded", "version=empty", "no tensors"})
}

// How many messages are remembered is bounded, but reaching the bound doesn't silence the log for good.
func TestOdditiesAreLoggedWhenManyWereBefore(t *testing.T) {
	var log bytes.Buffer
	s := newScanner("", false, slog.New(slog.NewTextHandler(&log, nil)))
	for i := range maxEntries {
		s.logOnce(fmt.Sprint("old ", i), func() {})
	}
	logged := 0
	for range 2 {
		s.warnOnce("new", "something new")
		logged += strings.Count(log.String(), "something new")
		log.Reset()
	}
	if logged != 1 {
		t.Errorf("logged %d times", logged)
	}
}

// Messages of level debug that aren't logged aren't remembered.
func TestUnloggedDebugMessagesAreNotRemembered(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a/model.gguf", gguf("model", 1))
	place(t, dir, "a/README.md", []byte("hello"))
	r, log := registryWithLog(t, RegistryOptions{Dir: dir})
	wantLogLines(t, log)
	if n := len(r.scanner.warned); n != 0 {
		t.Errorf("%d remembered", n)
	}
}
