package models

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// findWeights finds dir/name as name.gguf, name.gguf.xz or the parts of a split GGUF, and checks what can be checked
// without unpacking. prefix is the path from the model's directory to dir, as in model.yaml. False: there is no such
// file.
func (p *scanPass) findWeights(m *foundModel, dir, prefix, name string) (*weightsFile, bool) {
	for _, form := range []struct {
		file   string
		packed bool
	}{{name + ggufSuffix, false}, {name + packedSuffix, true}} {
		if !p.isThere(filepath.Join(dir, form.file)) {
			continue
		}
		a := &weightsFile{isPacked: form.packed}
		p.addPart(m, a, dir, form.file)
		p.addChecksums(m, a, prefix+form.file)
		return a, true
	}
	return p.findSplit(m, dir, prefix, name)
}

// addChecksums copies the checksums that model.yaml has for the file: under its own name, and for a packed one also
// under the name without .xz.
func (p *scanPass) addChecksums(m *foundModel, a *weightsFile, file string) {
	add := func(key, name string) {
		if sum, ok := m.file.Checksums[name]; ok {
			m.withChecksum[name] = true
			if a.wantChecksums == nil {
				a.wantChecksums = map[string]string{}
			}
			a.wantChecksums[key] = sum
		}
	}
	if len(a.parts) == 0 {
		return
	}
	add(a.parts[len(a.parts)-1].realPath, file)
	if a.isPacked {
		add("", strings.TrimSuffix(file, ".xz"))
	}
}

// addPart adds one file to the weightsFile and checks it.
func (p *scanPass) addPart(m *foundModel, a *weightsFile, dir, file string) {
	a.fileNames = append(a.fileNames, file)
	path, err := p.resolveLinks(dir, file)
	if err != nil {
		a.problem, a.problemDetail = publicProblem(file, err), linkDetail(err)
		return
	}
	info, err := p.stat(path)
	if err != nil {
		a.problem, a.problemDetail = fmt.Sprintf("%s can't be read", file), err.Error()
		return
	}
	if !info.Mode().IsRegular() {
		a.problem = file + " is not a file"
		return
	}
	p.noteFileState(m, path, info)
	id := fileIdentityOf(info)
	a.parts = append(a.parts, weightsPart{realPath: path, openPath: filepath.Join(dir, file), id: id})
	if p.now.Sub(p.present[path].since) < settleTime {
		return // it may still be growing
	}
	c := p.checkOnce(path, id, a.isPacked)
	a.bytes += c.bytes
	if c.problem != "" && a.problem == "" {
		a.problem = file + ": " + c.problem
	}
	if len(a.parts) == 1 {
		a.header, a.headerRead = c.header, !a.isPacked
	}
}

// checkOnce calls checkFile once for each state of a file.
func (p *scanPass) checkOnce(path string, id fileIdentity, packed bool) headerCheck {
	c, ok := p.scanner.checks[id]
	if !ok {
		var err error
		if c, err = checkFile(path, packed); err != nil {
			p.noteFault(err)
			return c
		}
	}
	p.checks[id] = c
	return c
}

// checkFile reads a file's header, or the index of a packed one. An error says that the file couldn't be read, which
// may be temporary.
func checkFile(path string, packed bool) (headerCheck, error) {
	f, err := os.Open(path)
	if err != nil {
		return headerCheck{problem: fmt.Sprint("can't be opened: ", withoutPath(err))}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return headerCheck{problem: fmt.Sprint("can't be read: ", withoutPath(err))}, err
	}
	c := headerCheck{bytes: info.Size()}
	if packed {
		c.bytes, err = unpackedSize(f, info.Size())
	} else {
		c.header, err = readHeader(f, info.Size())
	}
	if err != nil {
		c.problem = withoutPath(err).Error()
	}
	if mayPass(err) {
		return c, err
	}
	return c, nil
}

// findSplit finds name-00001-of-0000N.gguf and the other parts.
func (p *scanPass) findSplit(m *foundModel, dir, prefix, name string) (*weightsFile, bool) {
	first, err := filepath.Glob(filepath.Join(globEscape(dir), globEscape(name)+"-00001-of-?????"+ggufSuffix))
	if err != nil || len(first) == 0 {
		return nil, false
	}
	a := &weightsFile{}
	if len(first) > 1 {
		a.problem = "parts of more than one split model"
		return a, true
	}
	s, _, _ := ggufStem(filepath.Base(first[0]))
	_, _, parts, ok := parseSplitName(s)
	if !ok {
		return nil, false
	}
	for i := 1; i <= parts; i++ {
		file := splitPartName(name, i, parts)
		if !p.isThere(filepath.Join(dir, file)) {
			a.problem = file + " is missing"
			return a, true
		}
		p.addPart(m, a, dir, file)
		p.addChecksums(m, a, prefix+file)
		if a.problem != "" {
			return a, true
		}
	}
	return a, true
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func globEscape(s string) string { return globEscaper.Replace(s) }
