package models

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// artefact finds dir/name as name.gguf, name.gguf.xz or the parts of a split GGUF, and checks what can be checked without unpacking.
// prefix is the way from the model's directory to dir, as model.yaml says it. False: there is no such file.
func (v *visit) artefact(m *found, dir, prefix, name string) (*artefact, bool) {
	for _, form := range []struct {
		file   string
		packed bool
	}{{name + ggufSuffix, false}, {name + packedSuffix, true}} {
		if _, err := os.Lstat(filepath.Join(dir, form.file)); err != nil {
			continue
		}
		a := &artefact{packed: form.packed}
		v.part(m, a, dir, form.file)
		v.sums(m, a, prefix+form.file)
		return a, true
	}
	return v.split(m, dir, prefix, name)
}

// sums copies what model.yaml says about the file: under its own name, and for a packed one also under the name without .xz.
func (v *visit) sums(m *found, a *artefact, file string) {
	add := func(key, name string) {
		if sum, ok := m.file.Checksums[name]; ok {
			m.summed[name] = true
			if a.sums == nil {
				a.sums = map[string]string{}
			}
			a.sums[key] = sum
		}
	}
	if len(a.parts) == 0 {
		return
	}
	add(a.parts[len(a.parts)-1].path, file)
	if a.packed {
		add("", strings.TrimSuffix(file, ".xz"))
	}
}

// part adds one file to the artefact and checks it.
func (v *visit) part(m *found, a *artefact, dir, file string) {
	a.files = append(a.files, file)
	path, err := v.resolve(dir, file)
	if err != nil {
		a.problem, a.detail = problemOf(file, err), detailOf(err)
		return
	}
	info, err := os.Stat(path)
	if err != nil {
		a.problem, a.detail = fmt.Sprintf("%s can't be read", file), err.Error()
		return
	}
	if !info.Mode().IsRegular() {
		a.problem = file + " is not a file"
		return
	}
	v.settled(m, path, info)
	id := identityOf(info)
	a.parts = append(a.parts, part{path: path, open: filepath.Join(dir, file), id: id})
	if v.now.Sub(v.present[path].since) < settleTime {
		return // it may still be growing
	}
	c := v.check(path, id, a.packed)
	a.bytes += c.bytes
	if c.problem != "" && a.problem == "" {
		a.problem = file + ": " + c.problem
	}
	if len(a.parts) == 1 {
		a.header, a.checked = c.header, !a.packed
	}
}

// check is checkFile for each state of a file once.
func (v *visit) check(path string, id identity, packed bool) checkedFile {
	c, ok := v.scanner.checks[id]
	if !ok {
		c, ok = checkFile(path, packed)
	}
	if ok {
		v.checks[id] = c
	}
	return c
}

// checkFile reads a file's header, or the index of a packed one. False: the file couldn't be read, which may pass.
func checkFile(path string, packed bool) (checkedFile, bool) {
	f, err := os.Open(path)
	if err != nil {
		return checkedFile{problem: fmt.Sprint("can't be opened: ", withoutPath(err))}, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return checkedFile{problem: fmt.Sprint("can't be read: ", withoutPath(err))}, false
	}
	c := checkedFile{bytes: info.Size()}
	if packed {
		c.bytes, err = packedSize(f, info.Size())
	} else {
		c.header, err = readHeader(f, info.Size())
	}
	if err != nil {
		c.problem = withoutPath(err).Error()
	}
	return c, true
}

// split finds name-00001-of-0000N.gguf and its sisters.
func (v *visit) split(m *found, dir, prefix, name string) (*artefact, bool) {
	first, err := filepath.Glob(filepath.Join(globEscape(dir), globEscape(name)+"-00001-of-?????"+ggufSuffix))
	if err != nil || len(first) == 0 {
		return nil, false
	}
	a := &artefact{}
	if len(first) > 1 {
		a.problem = "parts of more than one split model"
		return a, true
	}
	s, _, _ := stem(filepath.Base(first[0]))
	_, _, parts, ok := splitName(s)
	if !ok {
		return nil, false
	}
	for i := 1; i <= parts; i++ {
		file := partName(name, i, parts)
		if _, err := os.Lstat(filepath.Join(dir, file)); err != nil {
			a.problem = file + " is missing"
			return a, true
		}
		v.part(m, a, dir, file)
		v.sums(m, a, prefix+file)
		if a.problem != "" {
			return a, true
		}
	}
	return a, true
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func globEscape(s string) string { return globEscaper.Replace(s) }
