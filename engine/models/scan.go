package models

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds of what is looked at in MODELS_DIR.
const (
	maxModels   = 1000
	maxVersions = 1000
	maxEntries  = 20000 // of one directory
)

// tellAgain is how long what didn't fit into the memory of the log is kept back.
const tellAgain = time.Hour

// settleTime is how long size and mtime of a file must stay the same before it counts.
const settleTime = 2 * time.Second

// scanner turns a directory tree into models. It belongs to one goroutine.
type scanner struct {
	dir    string // as configured; empty: none
	inside bool   // links may not lead out of dir
	root   string // its real path, anew in every scan
	seen   map[string]sighting
	first  bool                     // nothing was seen yet
	checks map[identity]checkedFile // headers that were read
	log    *slog.Logger
	warned map[string]bool
	forgot time.Time // when warned was cleared last
}

// sighting is since when a path has had this identity.
type sighting struct {
	id    identity
	since time.Time
}

// checkedFile is what reading the header of a file once gave.
type checkedFile struct {
	header  header
	bytes   int64 // unpacked
	problem string
}

func newScanner(dir string, inside bool, log *slog.Logger) *scanner {
	return &scanner{
		dir: dir, inside: inside, first: true, seen: map[string]sighting{}, checks: map[identity]checkedFile{}, log: log, warned: map[string]bool{},
	}
}

// found is a model's directory as one scan saw it.
type found struct {
	name     string
	dir      string // real path
	file     modelFile
	problem  string // of model.yaml
	base     *artefact
	adapters map[string]*artefact
	full     map[string]*artefact
	summed   map[string]bool // files with a checksum in model.yaml that are there
	settled  bool            // no file of it changed lately
}

// scan reads the whole tree once. A directory that doesn't exist holds no models.
func (s *scanner) scan(now time.Time) ([]found, error) {
	root, err := filepath.Abs(s.dir)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if s.dir == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find models directory: %w", err)
	}
	s.root = root
	entries, err := readDir(root)
	if err != nil {
		return nil, fmt.Errorf("read models directory: %w", err)
	}
	present := map[string]sighting{}
	checks := map[identity]checkedFile{}
	v := visit{scanner: s, now: now, present: present, checks: checks}
	var list []found
	for _, e := range entries {
		if len(list) >= maxModels {
			s.warnOnce("too many models", "only the first models are listed", "limit", maxModels)
			break
		}
		list = append(list, v.top(e)...)
	}
	taken := map[string]bool{}
	for _, m := range list {
		taken[m.name] = true
	}
	list = append(list, v.topFiles(entries, taken)...)
	if len(list) > maxModels {
		s.warnOnce("too many models", "only the first models are listed", "limit", maxModels)
		list = list[:maxModels]
	}
	s.seen, s.checks, s.first = present, checks, false
	return list, nil
}

func (s *scanner) warnOnce(key, msg string, args ...any) {
	s.once(key, func() { s.log.Warn(msg, args...) })
}

// once forgets everything when it knows too much, but not so often that a directory full of oddities fills the log.
func (s *scanner) once(key string, tell func()) {
	if s.warned[key] {
		return
	}
	if len(s.warned) >= maxEntries {
		if time.Since(s.forgot) < tellAgain {
			return
		}
		clear(s.warned)
		s.forgot = time.Now()
	}
	s.warned[key] = true
	tell()
}

// readDir lists a directory by name, at most maxEntries of it.
func readDir(dir string) ([]fs.DirEntry, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// visit is one scan in hand.
type visit struct {
	*scanner
	now     time.Time
	present map[string]sighting
	checks  map[identity]checkedFile
}

// top looks at an entry of the models directory: a model, or an organisation with models.
func (v *visit) top(e fs.DirEntry) []found {
	name := e.Name()
	if strings.HasPrefix(name, ".") || name == "lost+found" {
		return nil
	}
	dir, ok := v.directory(v.root, name)
	if !ok {
		return nil
	}
	if CheckName(name) != nil && !validPart(name) {
		v.warnOnce("name "+name, "directory ignored: not a valid model name", "directory", fmt.Sprintf("%.100q", name))
		return nil
	}
	if m, ok := v.model(name, dir, false); ok {
		return v.checked(m)
	}
	if list := v.organisation(name, dir); len(list) > 0 {
		return list
	}
	if m, ok := v.model(name, dir, true); ok {
		return v.checked(m)
	}
	v.empty(dir, false)
	return nil
}

// checked leaves out a model of the first level whose name means something else.
func (v *visit) checked(m found) []found {
	if err := CheckName(m.name); err != nil {
		v.warnOnce("name "+m.name, "directory ignored", "err", err)
		return nil
	}
	return []found{m}
}

// organisation gives the models in the directories of a directory.
func (v *visit) organisation(name, dir string) []found {
	entries, err := readDir(dir)
	if err != nil {
		v.warnOnce("dir "+dir, "directory can't be read", "err", err)
		return nil
	}
	var list []found
	var without []string
	for _, sub := range entries {
		full := name + "/" + sub.Name()
		subdir, ok := v.directory(dir, sub.Name())
		if !ok || len(list) >= maxModels || strings.HasPrefix(sub.Name(), ".") {
			continue
		}
		if err := CheckName(full); err != nil {
			v.warnOnce("name "+full, "directory ignored", "err", err)
		} else if m, ok := v.model(full, subdir, true); ok {
			list = append(list, m)
		} else {
			without = append(without, subdir)
		}
	}
	if len(list) == 0 {
		return nil
	}
	for _, d := range without {
		v.empty(d, true)
	}
	for _, g := range v.groups(dir, entries) {
		v.ignored(dir, g.files, "a directory of its own is expected here: "+name+"/NAME/model.gguf")
	}
	for _, e := range entries {
		v.other(dir, e, "NAME/model.gguf is expected here")
	}
	return list
}

// directory gives the real path of a directory. A link that leads back to where it was found is told and left alone.
func (v *visit) directory(parent, name string) (string, bool) {
	path := filepath.Join(parent, name)
	real, err := v.resolve(parent, name)
	if err != nil {
		if _, _, file := stem(name); !file { // those are told with the model that they make
			v.warnOnce("link "+path, "ignored", "link", path, "err", err, "detail", detailOf(err))
		}
		return "", false
	}
	info, err := os.Stat(real)
	if err != nil || !info.IsDir() {
		return "", false
	}
	if real != path && holds(real, parent) {
		v.warnOnce("link "+path, "ignored", "link", path, "err", "it leads back to a directory that it lies in", "detail", "link to "+real)
		return "", false
	}
	return real, true
}

// model reads a directory that may be a model; false when nothing in it says so. loose: one GGUF file of any name says so, too.
func (v *visit) model(name, dir string, loose bool) (found, bool) {
	m := found{name: name, dir: dir, settled: true, adapters: map[string]*artefact{}, full: map[string]*artefact{}, summed: map[string]bool{}}
	hasFile := v.modelFile(&m, dir)
	base, hasBase := v.artefact(&m, dir, "", cmp.Or(fileStem(m.file.File), "model"))
	hasVersions := v.adapters(&m, dir)
	if !hasFile && !hasBase && !hasVersions && !loose {
		return found{}, false
	}
	entries, err := readDir(dir)
	if err != nil {
		v.warnOnce("dir "+dir, "directory can't be read", "err", err)
	}
	groups := v.groups(dir, entries)
	if !hasBase && m.file.File == "" {
		base, hasBase = v.only(&m, dir, groups)
	}
	if !hasFile && !hasBase && !hasVersions {
		return found{}, false
	}
	if m.base = base; !hasBase {
		m.base = &artefact{problem: cmp.Or(m.file.File, "model.gguf") + " is missing"}
	}
	v.fullVersions(&m, dir)
	for file := range m.file.Checksums {
		if !m.summed[file] {
			v.warnOnce("checksum "+name+" "+file, "model.yaml has the checksum of a file that isn't there", "model", name, "file", fmt.Sprintf("%.100q", file))
		}
	}
	v.told(&m, dir, entries, groups)
	return m, true
}

// fullVersions finds the full models that model.yaml makes versions.
func (v *visit) fullVersions(m *found, dir string) {
	for version, f := range m.file.Versions {
		a, ok := v.artefact(m, dir, "", fileStem(f.File))
		if !ok {
			a = &artefact{problem: fmt.Sprintf("%s is missing", f.File)}
		}
		m.full[version] = a
	}
}

// fileStem is how artefact finds a file that model.yaml names: without its ending and the numbers of a part.
func fileStem(file string) string {
	s, _, _ := stem(file)
	if n, _, _, ok := splitName(filepath.Base(s)); ok {
		s = filepath.Join(filepath.Dir(s), n)
	}
	return s
}

func (v *visit) modelFile(m *found, dir string) bool {
	path, err := v.resolve(dir, "model.yaml")
	if _, link := errors.AsType[*linkError](err); !link && errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		m.problem = problemOf("model.yaml", err)
		return true
	}
	if path != filepath.Join(dir, "model.yaml") && !holds(v.root, path) && !holds(dir, path) { // errors of YAML quote the file
		m.problem = "model.yaml is a link that leaves the models directory, which only GGUF files may"
		return true
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxModelFile {
		m.problem = fmt.Sprintf("model.yaml must be a file of at most %d bytes", maxModelFile)
		return true
	}
	v.settled(m, path, info)
	text, err := os.ReadFile(path)
	if err == nil {
		m.file, err = parseModelFile(text)
	}
	if err != nil {
		m.problem = err.Error()
	}
	return true
}

// settled notes the file's state and clears the model's settled flag while it is too fresh.
func (v *visit) settled(m *found, path string, info fs.FileInfo) {
	id := identityOf(info)
	s, known := v.seen[path]
	if !known || s.id != id {
		s = sighting{id: id, since: v.now}
		if v.first { // a file that rests since long needn't rest again at every start
			s.since = earlier(info.ModTime(), v.now)
		}
	}
	v.present[path] = s
	if v.now.Sub(s.since) < settleTime {
		m.settled = false
	}
}

// adapters reads versions/.
func (v *visit) adapters(m *found, dir string) bool {
	sub, ok := "", false
	if _, err := os.Lstat(filepath.Join(dir, "versions")); err == nil {
		sub, ok = v.directory(dir, "versions")
	}
	if !ok {
		return false
	}
	entries, err := readDir(sub)
	if err != nil {
		v.warnOnce("dir "+sub, "directory can't be read", "err", err)
		return false
	}
	any := false
	for _, e := range entries {
		version, _, ok := stem(e.Name())
		if !ok {
			v.other(sub, e, "an adapter is expected as VERSION.gguf (scripts/convert-model.sh adapter makes one)")
			continue
		}
		if m.adapters[version] != nil {
			v.ignored(sub, []string{e.Name()}, version+".gguf is used")
			continue
		}
		if err := checkVersion(version); err != nil || len(m.adapters) >= maxVersions {
			v.warnOnce(sub+"/"+version, "version ignored", "model", m.name, "err", err)
			continue
		}
		if a, ok := v.artefact(m, sub, "versions/", version); ok {
			any = true
			switch {
			case a.problem != "" || !a.checked:
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

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
