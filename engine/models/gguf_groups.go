package models

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// ggufGroup is the GGUF files of a directory that make one model: one file, or the parts of a split one.
type ggufGroup struct {
	name  string   // without ending and part numbers
	files []string // in ascending order
}

// groupFiles lists the GGUF files of a directory, the parts of a split model together.
func (p *scanPass) groupFiles(dir string, entries []fs.DirEntry) []ggufGroup {
	byName := map[string]*ggufGroup{}
	for _, e := range entries {
		name, _, ok := ggufStem(e.Name())
		if !ok || strings.HasPrefix(name, ".") || isDir(dir, e) {
			continue
		}
		if whole, _, _, split := parseSplitName(name); split {
			name = whole
		}
		g := byName[name]
		if g == nil {
			g = &ggufGroup{name: name}
			byName[name] = g
		}
		g.files = append(g.files, e.Name())
	}
	var list []ggufGroup
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, *byName[name])
	}
	return list
}

// fileType is the type of a group's files by their header: model, adapter, mmproj …; model when that isn't known.
func (p *scanPass) fileType(dir string, g ggufGroup) string {
	path, err := p.resolveLinks(dir, g.files[0])
	if err != nil || strings.HasSuffix(g.files[0], packedSuffix) {
		return "model"
	}
	info, err := p.stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return "model"
	}
	c := p.checkOnce(path, fileIdentityOf(info), false)
	switch {
	case c.problem != "":
		return "model"
	case c.header.Architecture == "clip": // of older files without a type
		return "mmproj"
	case c.header.Type != "":
		return c.header.Type
	}
	return "model"
}

// onlyWeights finds the weights of a directory that has no model.gguf: its only GGUF file that may be weights.
func (p *scanPass) onlyWeights(m *foundModel, dir string, groups []ggufGroup) (*weightsFile, bool) {
	named := map[string]bool{} // by model.yaml, as versions
	for _, f := range m.file.Versions {
		named[filepath.Base(f.File)] = true
	}
	var candidates []ggufGroup
	for _, g := range groups {
		if !named[g.files[0]] && p.fileType(dir, g) == "model" {
			candidates = append(candidates, g)
		}
	}
	switch len(candidates) {
	case 0:
		return nil, false
	case 1:
		return p.findWeights(m, dir, "", candidates[0].name)
	}
	a := &weightsFile{}
	var names []string
	for _, g := range candidates {
		names, a.fileNames = append(names, g.files[0]), append(a.fileNames, g.files...)
	}
	a.problem = fmt.Sprintf("which GGUF file is meant is ambiguous: %s; rename one to model.gguf, or name it in model.yaml (file: %s)", joinNames(names), names[0])
	return a, true
}

// joinNames joins names to a text of bounded length.
func joinNames(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
