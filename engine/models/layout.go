package models

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// restOfDir is how long a directory without a model must have been left alone before that is told: it may be about to get one.
const restOfDir = 10 * time.Second

// group is the GGUF files of one directory that make one model: one file, or the parts of a split one.
type group struct {
	name  string   // without ending and part numbers
	files []string // in ascending order
}

// groups lists the GGUF files of a directory by what they make together.
func (v *visit) groups(dir string, entries []fs.DirEntry) []group {
	byName := map[string]*group{}
	for _, e := range entries {
		name, _, ok := stem(e.Name())
		if !ok || strings.HasPrefix(name, ".") || isDir(dir, e) {
			continue
		}
		if whole, _, _, split := splitName(name); split {
			name = whole
		}
		g := byName[name]
		if g == nil {
			g = &group{name: name}
			byName[name] = g
		}
		g.files = append(g.files, e.Name())
	}
	var list []group
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, *byName[name])
	}
	return list
}

// isDir tells whether an entry is a directory or a link to one.
func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// kind of a group's files by their header: model, adapter, mmproj …; model while nobody knows better.
func (v *visit) kind(dir string, g group) string {
	path, err := v.resolve(dir, g.files[0])
	if err != nil || strings.HasSuffix(g.files[0], packedSuffix) {
		return "model"
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return "model"
	}
	c := v.check(path, identityOf(info), false)
	switch {
	case c.problem != "":
		return "model"
	case c.header.Architecture == "clip": // of older files that give no type
		return "mmproj"
	case c.header.Type != "":
		return c.header.Type
	}
	return "model"
}

// only finds the weights of a directory that has no model.gguf: its only GGUF file that may be some.
func (v *visit) only(m *found, dir string, groups []group) (*artefact, bool) {
	named := map[string]bool{} // by model.yaml, as versions
	for _, f := range m.file.Versions {
		named[filepath.Base(f.File)] = true
	}
	var may []group
	for _, g := range groups {
		if !named[g.files[0]] && v.kind(dir, g) == "model" {
			may = append(may, g)
		}
	}
	switch len(may) {
	case 0:
		return nil, false
	case 1:
		return v.artefact(m, dir, "", may[0].name)
	}
	a := &artefact{}
	var names []string
	for _, g := range may {
		names, a.files = append(names, g.files[0]), append(a.files, g.files...)
	}
	a.problem = fmt.Sprintf("which GGUF file is meant is ambiguous: %s; rename one to model.gguf, or name it in model.yaml (file: %s)", short100(names), names[0])
	return a, true
}

// short100 joins names to a list of bounded length.
func short100(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// topFiles makes a model of each GGUF file that lies in the models directory itself: NAME.gguf is the model NAME.
func (v *visit) topFiles(entries []fs.DirEntry, taken map[string]bool) []found {
	var list []found
	for _, g := range v.groups(v.root, entries) {
		kind := v.kind(v.root, g)
		switch {
		case kind == "adapter":
			v.ignored(v.root, g.files, "an adapter is expected as MODEL/versions/VERSION.gguf")
			continue
		case kind != "model":
			v.ignored(v.root, g.files, fmt.Sprintf("weights are expected, this is a file of type %.20s", kind))
			continue
		case CheckName(g.name) != nil:
			v.ignored(v.root, g.files, fmt.Sprintf("NAME.gguf is expected; %.100q is not a valid model name", g.name))
			continue
		case taken[g.name]:
			v.ignored(v.root, g.files, "the directory of the same name is that model")
			continue
		}
		m := found{name: g.name, dir: v.root, settled: true, adapters: map[string]*artefact{}, full: map[string]*artefact{}, summed: map[string]bool{}}
		a, ok := v.artefact(&m, v.root, "", g.name)
		if !ok {
			continue
		}
		m.base = a
		v.unused(&m, v.root, []group{g}, g.name+".gguf is used")
		list = append(list, m)
	}
	for _, e := range entries {
		v.other(v.root, e, "NAME.gguf or a directory with a GGUF file is expected")
	}
	return list
}

// unused tells of the GGUF files of a model's directory that nothing uses.
func (v *visit) unused(m *found, dir string, groups []group, expected string) {
	used := map[string]bool{}
	for _, f := range m.base.files {
		used[f] = true
	}
	for _, a := range m.full {
		for _, f := range a.files {
			used[f] = true
		}
	}
	for _, g := range groups {
		for _, f := range g.files {
			if !used[f] {
				v.ignored(dir, []string{f}, expected)
			}
		}
	}
}

// told tells of everything in a model's directory that isn't used.
func (v *visit) told(m *found, dir string, entries []fs.DirEntry, groups []group) {
	expected := "one base model in a directory; an adapter belongs into versions/, another full model becomes a version by an entry in model.yaml"
	if m.base != nil && len(m.base.files) > 0 {
		expected = m.base.files[0] + " is the base model here; " + expected[len("one base model in a directory; "):]
	}
	v.unused(m, dir, groups, expected)
	for _, e := range entries {
		if e.Name() != "model.yaml" {
			v.other(dir, e, "model.gguf, or one .gguf under any name, is expected (scripts/convert-model.sh makes GGUF of other formats)")
		}
	}
}

// foreign are endings of models in other formats, and of GGUF files that were packed or named in another way.
var foreign = []string{".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf.gz", ".gguf.zst", ".gguf.zip", ".ggml", ".mlx"}

// other tells of a file that looks as if it were meant for us and isn't.
func (v *visit) other(dir string, e fs.DirEntry, expected string) {
	name := strings.ToLower(e.Name())
	_, _, ours := stem(e.Name())
	switch {
	case strings.HasPrefix(name, ".") || ours || isDir(dir, e):
	case name == "model.yml", name == "model.yaml":
		v.ignored(dir, []string{e.Name()}, "the file is expected as model.yaml beside the weights")
	case strings.HasSuffix(name, ggufSuffix), strings.HasSuffix(name, packedSuffix):
		v.ignored(dir, []string{e.Name()}, "a name is expected before an ending .gguf or .gguf.xz in small letters")
	case slices.ContainsFunc(foreign, func(end string) bool { return strings.HasSuffix(name, end) }):
		v.ignored(dir, []string{e.Name()}, expected)
	case v.log.Enabled(context.Background(), slog.LevelDebug):
		v.once("other "+filepath.Join(dir, e.Name()), func() { v.log.Debug("file is of no use here", "file", filepath.Join(dir, e.Name())) })
	}
}

// ignored tells once of files that aren't used and what was expected instead.
func (v *visit) ignored(dir string, files []string, expected string) {
	for _, f := range files {
		path := filepath.Join(dir, f)
		v.warnOnce("ignored "+path+" "+expected, "file ignored", "file", path, "expected", expected)
	}
}

// empty tells once of a directory in which no model is, when it has been so for a while.
func (v *visit) empty(dir string, deepest bool) {
	info, err := os.Stat(dir)
	if err != nil || !v.first && v.now.Sub(info.ModTime()) < restOfDir {
		return
	}
	expected := "model.gguf, one .gguf under any name, or directories with such"
	if deepest {
		expected = "model.gguf, or one .gguf under any name; models lie at most two levels deep"
	}
	v.warnOnce("empty "+dir, "directory ignored: there is no model in it", "directory", dir, "expected", expected)
	entries, err := readDir(dir)
	if err != nil {
		return
	}
	for _, g := range v.groups(dir, entries) {
		v.ignored(dir, g.files, fmt.Sprintf("weights are expected, this is a file of type %.20s", v.kind(dir, g)))
	}
	for _, e := range entries {
		v.other(dir, e, "GGUF is expected (scripts/convert-model.sh makes it of other formats)")
	}
}
