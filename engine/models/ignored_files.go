package models

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// emptyDirDelay is how long a directory without a model must be unchanged before that is logged: it may be about to get
// one.
const emptyDirDelay = 10 * time.Second

// warnUnusedGGUF logs the GGUF files of a model's directory that nothing uses.
func (p *scanPass) warnUnusedGGUF(m *foundModel, dir string, groups []ggufGroup, expected string) {
	used := map[string]bool{}
	for _, f := range m.base.fileNames {
		used[f] = true
	}
	for _, a := range m.full {
		for _, f := range a.fileNames {
			used[f] = true
		}
	}
	for _, g := range groups {
		for _, f := range g.files {
			if !used[f] {
				p.warnIgnored(dir, []string{f}, expected)
			}
		}
	}
}

// warnUnused logs everything in a model's directory that isn't used.
func (p *scanPass) warnUnused(m *foundModel, dir string, entries []fs.DirEntry, groups []ggufGroup) {
	expected := "one base model in a directory; an adapter belongs into versions/, another full model becomes a version by an entry in model.yaml"
	if m.base != nil && len(m.base.fileNames) > 0 {
		expected = m.base.fileNames[0] + " is the base model here; " + expected[len("one base model in a directory; "):]
	}
	p.warnUnusedGGUF(m, dir, groups, expected)
	for _, e := range entries {
		if e.Name() != "model.yaml" {
			p.warnOtherFile(dir, e, "model.gguf, or one .gguf under any name, is expected (scripts/convert-model.sh makes GGUF of other formats)")
		}
	}
}

// otherFormats are the endings of models in other formats, and of GGUF files that are packed or named in another way.
var otherFormats = []string{".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf.gz", ".gguf.zst", ".gguf.zip", ".ggml", ".mlx"}

// warnOtherFile logs a file that looks like a model or a model.yaml and isn't one.
func (p *scanPass) warnOtherFile(dir string, e fs.DirEntry, expected string) {
	name := strings.ToLower(e.Name())
	_, _, ours := ggufStem(e.Name())
	switch {
	case strings.HasPrefix(name, ".") || ours || isDir(dir, e):
	case name == "model.yml", name == "model.yaml":
		p.warnIgnored(dir, []string{e.Name()}, "the file is expected as model.yaml beside the weights")
	case strings.HasSuffix(name, ggufSuffix), strings.HasSuffix(name, packedSuffix):
		p.warnIgnored(dir, []string{e.Name()}, "a name is expected before an ending .gguf or .gguf.xz in small letters")
	case slices.ContainsFunc(otherFormats, func(end string) bool { return strings.HasSuffix(name, end) }):
		p.warnIgnored(dir, []string{e.Name()}, expected)
	case p.log.Enabled(context.Background(), slog.LevelDebug):
		p.logOnce("other "+filepath.Join(dir, e.Name()), func() { p.log.Debug("file is of no use here", "file", filepath.Join(dir, e.Name())) })
	}
}

// warnIgnored logs once that files aren't used and what was expected instead.
func (p *scanPass) warnIgnored(dir string, files []string, expected string) {
	for _, f := range files {
		path := filepath.Join(dir, f)
		p.warnOnce("ignored "+path+" "+expected, "file ignored", "file", path, "expected", expected)
	}
}

// warnEmpty logs once that there is no model in a directory, when it has been so for a while.
func (p *scanPass) warnEmpty(dir string, deepest bool) {
	info, err := os.Stat(dir)
	if err != nil || !p.first && p.now.Sub(info.ModTime()) < emptyDirDelay {
		return
	}
	expected := "model.gguf, one .gguf under any name, or directories with such"
	if deepest {
		expected = "model.gguf, or one .gguf under any name; models lie at most two levels deep"
	}
	p.warnOnce("empty "+dir, "directory ignored: there is no model in it", "directory", dir, "expected", expected)
	entries, err := readDir(dir)
	if err != nil {
		return
	}
	for _, g := range p.groupFiles(dir, entries) {
		p.warnIgnored(dir, g.files, fmt.Sprintf("weights are expected, this is a file of type %.20s", p.fileType(dir, g)))
	}
	for _, e := range entries {
		p.warnOtherFile(dir, e, "GGUF is expected (scripts/convert-model.sh makes it of other formats)")
	}
}
