package models

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// topLevelFiles makes a model of each GGUF file in the models directory itself: NAME.gguf is the model NAME.
func (p *scanPass) topLevelFiles(entries []fs.DirEntry, taken map[string]bool) []foundModel {
	var list []foundModel
	for _, g := range p.groupFiles(p.root, entries) {
		list = append(list, p.readEntry("file "+g.name, func() []foundModel { return p.topLevelFile(g, taken) })...)
	}
	for _, e := range entries {
		p.warnOtherFile(p.root, e, "NAME.gguf or a directory with a GGUF file is expected")
	}
	return list
}

// topLevelFile returns the model that a file in the models directory makes, if any.
func (p *scanPass) topLevelFile(g ggufGroup, taken map[string]bool) []foundModel {
	kind := p.fileType(p.root, g)
	switch {
	case kind == "adapter":
		p.warnIgnored(p.root, g.files, "an adapter is expected as MODEL/versions/VERSION.gguf")
		return nil
	case kind != "model":
		p.warnIgnored(p.root, g.files, fmt.Sprintf("weights are expected, this is a file of type %.20s", kind))
		return nil
	case CheckName(g.name) != nil:
		p.warnIgnored(p.root, g.files, fmt.Sprintf("NAME.gguf is expected; %.100q is not a valid model name", g.name))
		return nil
	case taken[g.name]:
		p.warnIgnored(p.root, g.files, "the directory of the same name is that model")
		return nil
	}
	m := foundModel{name: g.name, dir: p.root, settled: true, adapters: map[string]*weightsFile{}, full: map[string]*weightsFile{}, withChecksum: map[string]bool{}}
	a, ok := p.findWeights(&m, p.root, "", g.name)
	if !ok {
		return nil
	}
	m.base = a
	p.warnUnusedGGUF(&m, p.root, []ggufGroup{g}, g.name+".gguf is used")
	return []foundModel{m}
}

// topLevelDirectory scans a directory in the models directory: a model, or an organisation with models.
func (p *scanPass) topLevelDirectory(e fs.DirEntry) []foundModel {
	name := e.Name()
	if strings.HasPrefix(name, ".") || name == "lost+found" {
		return nil
	}
	dir, ok := p.resolveDirectory(p.root, name)
	if !ok {
		return nil
	}
	if CheckName(name) != nil && !validNamePart(name) {
		p.warnOnce("name "+name, "directory ignored: not a valid model name", "directory", fmt.Sprintf("%.100q", name))
		return nil
	}
	if m, ok := p.modelDirectory(name, dir, false); ok {
		return p.withValidName(m)
	}
	if list := p.organisation(name, dir); len(list) > 0 {
		return list
	}
	if m, ok := p.modelDirectory(name, dir, true); ok {
		return p.withValidName(m)
	}
	p.warnEmpty(dir, false)
	return nil
}

// withValidName leaves out a model whose name is reserved or not valid.
func (p *scanPass) withValidName(m foundModel) []foundModel {
	if err := CheckName(m.name); err != nil {
		p.warnOnce("name "+m.name, "directory ignored", "err", err)
		return nil
	}
	return []foundModel{m}
}

// organisation returns the models in the subdirectories of a directory.
func (p *scanPass) organisation(name, dir string) []foundModel {
	entries, err := p.readDir(dir)
	if err != nil {
		return nil
	}
	var list []foundModel
	var without []string
	for _, sub := range entries {
		full := name + "/" + sub.Name()
		subdir, ok := p.resolveDirectory(dir, sub.Name())
		if !ok || len(list) >= maxModels || strings.HasPrefix(sub.Name(), ".") {
			continue
		}
		if err := CheckName(full); err != nil {
			p.warnOnce("name "+full, "directory ignored", "err", err)
		} else if m, ok := p.modelDirectory(full, subdir, true); ok {
			list = append(list, m)
		} else {
			without = append(without, subdir)
		}
	}
	if len(list) == 0 {
		return nil
	}
	for _, d := range without {
		p.warnEmpty(d, true)
	}
	for _, g := range p.groupFiles(dir, entries) {
		p.warnIgnored(dir, g.files, "a directory of its own is expected here: "+name+"/NAME/model.gguf")
	}
	for _, e := range entries {
		p.warnOtherFile(dir, e, "NAME/model.gguf is expected here")
	}
	return list
}

// resolveDirectory returns the real path of a directory. A link that leads back to a directory that it is in is logged
// and not followed.
func (p *scanPass) resolveDirectory(parent, name string) (string, bool) {
	path := filepath.Join(parent, name)
	real, err := p.resolveLinks(parent, name)
	if err != nil {
		if _, _, file := ggufStem(name); !file { // those are logged with the model that they make
			p.warnOnce("link "+path, "ignored", "link", path, "err", err, "detail", linkDetail(err))
		}
		return "", false
	}
	info, err := p.stat(real)
	if err != nil || !info.IsDir() {
		return "", false
	}
	if real != path && pathContains(real, parent) {
		p.warnOnce("link "+path, "ignored", "link", path, "err", "it leads back to a directory that it lies in", "detail", "link to "+real)
		return "", false
	}
	return real, true
}

// isDir reports whether an entry is a directory or a link to one.
func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}
