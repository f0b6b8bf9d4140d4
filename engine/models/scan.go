package models

import (
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

// Bounds on what is read in MODELS_DIR.
const (
	maxModels   = 1000
	maxVersions = 1000
	maxEntries  = 20000 // of one directory
)

// logAgainAfter is how long new messages are dropped when scanner.warned is full.
const logAgainAfter = time.Hour

// settleTime is how long a file must stay unchanged before it is used.
const settleTime = 2 * time.Second

// scanner turns a directory tree into models. It belongs to one goroutine.
type scanner struct {
	dir           string // as configured; empty: none
	linksInside   bool   // links may not lead out of dir
	root          string // its real path, anew in every scan
	seen          map[string]fileSeen
	first         bool                         // this is the first scan
	checks        map[fileIdentity]headerCheck // headers that were read
	entries       map[string]entryState        // by the key of readEntry
	log           *slog.Logger
	warned        map[string]bool
	warnedCleared time.Time // when warned was cleared last
}

// fileSeen is since when the scans have seen a path with this identity.
type fileSeen struct {
	id    fileIdentity
	since time.Time
}

// headerCheck is the result of reading a file's header.
type headerCheck struct {
	header  ggufHeader
	bytes   int64 // unpacked
	problem string
}

func newScanner(dir string, linksInside bool, log *slog.Logger) *scanner {
	return &scanner{
		dir: dir, linksInside: linksInside, first: true, seen: map[string]fileSeen{}, checks: map[fileIdentity]headerCheck{}, entries: map[string]entryState{},
		log: log, warned: map[string]bool{},
	}
}

// scan reads the whole tree once. A directory that doesn't exist holds no models.
func (s *scanner) scan(now time.Time) ([]foundModel, error) {
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
	present := map[string]fileSeen{}
	checks := map[fileIdentity]headerCheck{}
	p := scanPass{scanner: s, now: now, present: present, checks: checks, entries: map[string]entryState{}}
	var list []foundModel
	for _, e := range entries {
		if len(list) >= maxModels {
			s.warnOnce("too many models", "only the first models are listed", "limit", maxModels)
			break
		}
		list = append(list, p.readEntry("directory "+e.Name(), func() []foundModel { return p.topLevelDirectory(e) })...)
	}
	taken := map[string]bool{}
	for _, m := range list {
		taken[m.name] = true
	}
	list = append(list, p.topLevelFiles(entries, taken)...)
	if len(list) > maxModels {
		s.warnOnce("too many models", "only the first models are listed", "limit", maxModels)
		list = list[:maxModels]
	}
	s.seen, s.checks, s.entries, s.first = present, checks, p.entries, false
	return list, nil
}

func (s *scanner) warnOnce(key, msg string, args ...any) {
	s.logOnce(key, func() { s.log.Warn(msg, args...) })
}

// logOnce calls log once for each key. When it knows too many keys it forgets them all, but at most once in
// logAgainAfter, so that a directory full of oddities doesn't fill the log.
func (s *scanner) logOnce(key string, log func()) {
	if s.warned[key] {
		return
	}
	if len(s.warned) >= maxEntries {
		if time.Since(s.warnedCleared) < logAgainAfter {
			return
		}
		clear(s.warned)
		s.warnedCleared = time.Now()
	}
	s.warned[key] = true
	log()
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

// scanPass is one scan of the tree.
type scanPass struct {
	*scanner
	now     time.Time
	present map[string]fileSeen
	checks  map[fileIdentity]headerCheck
	entries map[string]entryState
	fault   error // the first one that readEntry's entry met
}

// noteFileState records the file's state, and clears the model's settled flag while that is newer than settleTime.
func (p *scanPass) noteFileState(m *foundModel, path string, info fs.FileInfo) {
	id := fileIdentityOf(info)
	s, known := p.seen[path]
	if !known || s.id != id {
		s = fileSeen{id: id, since: p.now}
		if p.first { // an old file needn't settle again at every start
			s.since = earlierOf(info.ModTime(), p.now)
		}
	}
	p.present[path] = s
	if p.now.Sub(s.since) < settleTime {
		m.settled = false
	}
}

func earlierOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
