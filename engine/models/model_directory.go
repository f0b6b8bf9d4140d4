package models

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// foundModel is a model's directory as one scan saw it.
type foundModel struct {
	name         string
	dir          string // real path
	file         modelYAML
	problem      string // of model.yaml
	base         *weightsFile
	adapters     map[string]*weightsFile
	full         map[string]*weightsFile
	withChecksum map[string]bool // existing files that have a checksum in model.yaml
	settled      bool            // none of its files changed within settleTime
}

// modelDirectory reads a directory that may be a model; false: it isn't one. anyName: one GGUF file of any name makes
// it one, too.
func (p *scanPass) modelDirectory(name, dir string, anyName bool) (foundModel, bool) {
	m := foundModel{name: name, dir: dir, settled: true, adapters: map[string]*weightsFile{}, full: map[string]*weightsFile{}, withChecksum: map[string]bool{}}
	hasFile := p.readModelYAML(&m, dir)
	base, hasBase := p.findWeights(&m, dir, "", cmp.Or(weightsStem(m.file.File), "model"))
	hasVersions := p.readAdapters(&m, dir)
	if !hasFile && !hasBase && !hasVersions && !anyName {
		return foundModel{}, false
	}
	entries, _ := p.readDir(dir)
	groups := p.groupFiles(dir, entries)
	if !hasBase && m.file.File == "" {
		base, hasBase = p.onlyWeights(&m, dir, groups)
	}
	if !hasFile && !hasBase && !hasVersions {
		return foundModel{}, false
	}
	if m.base = base; !hasBase {
		m.base = &weightsFile{problem: cmp.Or(m.file.File, "model.gguf") + " is missing"}
	}
	p.fullVersions(&m, dir)
	for file := range m.file.Checksums {
		if !m.withChecksum[file] {
			p.warnOnce("checksum "+name+" "+file, "model.yaml has the checksum of a file that isn't there", "model", name, "file", fmt.Sprintf("%.100q", file))
		}
	}
	p.warnUnused(&m, dir, entries, groups)
	return m, true
}

// fullVersions finds the full models that model.yaml names as versions.
func (p *scanPass) fullVersions(m *foundModel, dir string) {
	for version, f := range m.file.Versions {
		a, ok := p.findWeights(m, dir, "", weightsStem(f.File))
		if !ok {
			a = &weightsFile{problem: fmt.Sprintf("%s is missing", f.File)}
		}
		m.full[version] = a
	}
}

// weightsStem is the name by which findWeights finds a file that model.yaml names: without its ending and part numbers.
func weightsStem(file string) string {
	s, _, _ := ggufStem(file)
	if n, _, _, ok := parseSplitName(filepath.Base(s)); ok {
		s = filepath.Join(filepath.Dir(s), n)
	}
	return s
}

// readModelYAML reads model.yaml into m; false: there is none.
func (p *scanPass) readModelYAML(m *foundModel, dir string) bool {
	path, err := p.resolveLinks(dir, "model.yaml")
	if _, link := errors.AsType[*symlinkError](err); !link && errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		m.problem = publicProblem("model.yaml", err)
		return true
	}
	// Errors of YAML quote the file, so clients could read any other file by a link.
	if path != filepath.Join(dir, "model.yaml") && !pathContains(p.root, path) && !pathContains(dir, path) {
		m.problem = "model.yaml is a link that leaves the models directory, which only GGUF files may"
		return true
	}
	info, err := p.stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxModelYAMLBytes {
		m.problem = fmt.Sprintf("model.yaml must be a file of at most %d bytes", maxModelYAMLBytes)
		return true
	}
	p.noteFileState(m, path, info)
	text, err := os.ReadFile(path)
	p.noteFault(err)
	if err == nil {
		m.file, err = parseModelYAML(text)
	}
	if err != nil {
		m.problem = err.Error()
	}
	return true
}

// readAdapters reads the adapters in versions/ into m; false: there are none.
func (p *scanPass) readAdapters(m *foundModel, dir string) bool {
	sub, ok := "", false
	if p.isThere(filepath.Join(dir, "versions")) {
		sub, ok = p.resolveDirectory(dir, "versions")
	}
	if !ok {
		return false
	}
	entries, err := p.readDir(sub)
	if err != nil {
		return false
	}
	any := false
	for _, e := range entries {
		version, _, ok := ggufStem(e.Name())
		if !ok {
			p.warnOtherFile(sub, e, "an adapter is expected as VERSION.gguf (scripts/convert-model.sh adapter makes one)")
			continue
		}
		if m.adapters[version] != nil {
			p.warnIgnored(sub, []string{e.Name()}, version+".gguf is used")
			continue
		}
		if err := checkVersion(version); err != nil || len(m.adapters) >= maxVersions {
			p.warnOnce(sub+"/"+version, "version ignored", "model", m.name, "err", err)
			continue
		}
		if a, ok := p.findWeights(m, sub, "versions/", version); ok {
			any = true
			switch {
			case a.problem != "" || !a.headerRead:
			case a.header.Type == "adapter" && a.header.Tensors == 0:
				a.problem = e.Name() + ": the adapter has no tensors"
			case a.header.Type != "adapter":
				a.problem = "not a LoRA adapter (a full model becomes a version by an entry in model.yaml)"
			}
			m.adapters[version] = a
		}
	}
	return any
}
