package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tempPrefix        = ".part-"
	unpackedSubdir    = "unpacked"
	reservedDiskBytes = 64 << 20  // stays free on the cache's disk
	maxUnpackedBytes  = 512 << 30 // bytes of one unpacked file
	staleAfter        = time.Hour // older files in CACHE_DIR are in use no more
	cacheDirMode      = 0o700
)

// fileCache makes a weightsFile readable for the native library: it verifies and unpacks the file, and keeps unpacked
// files and checksums in CACHE_DIR.
type fileCache struct {
	dir  string // CACHE_DIR; empty: not writable
	sums *checksums
	log  *slog.Logger

	mu          sync.Mutex
	memoryFiles map[string]*os.File // guarded by mu; embedded files for which there was no disk, by sha256
	brokenFiles map[string]error    // guarded by mu; errors of broken files, by weightsFile.brokenKey
	unpacked    map[string]bool     // guarded by mu; names of the installed files that this process unpacked
}

// openFileCache prepares the cache directory. If it can't be written, nothing is kept there.
func openFileCache(dir string, log *slog.Logger) *fileCache {
	f := &fileCache{log: log, memoryFiles: map[string]*os.File{}, brokenFiles: map[string]error{}, unpacked: map[string]bool{}}
	if err := prepareDir(dir); err != nil {
		log.Warn("cache directory can't be used; unpacked models and checksums aren't kept", "dir", dir, "err", err)
		dir = ""
	}
	f.dir = dir
	sumFile := ""
	if dir != "" {
		sumFile = filepath.Join(dir, "checksums.json")
	}
	f.sums = openChecksums(sumFile)
	return f
}

func prepareDir(dir string) error {
	if dir == "" {
		return errors.New("no directory is set")
	}
	sub := filepath.Join(dir, unpackedSubdir)
	if err := os.MkdirAll(sub, cacheDirMode); err != nil {
		return err
	}
	probe, err := createTemp(sub)
	if err != nil {
		return err
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return err
	}
	for _, d := range []string{dir, sub} {
		removeStaleTemps(d)
	}
	return nil
}

// createTemp makes a temporary file with a lock until it is closed, which tells others that its process lives.
func createTemp(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return nil, err
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // where files can't be locked their age decides
	return f, nil
}

// removeStaleTemps removes the temporary files that killed processes left behind.
func removeStaleTemps(dir string) {
	left, _ := filepath.Glob(filepath.Join(globEscape(dir), tempPrefix+"*"))
	for _, path := range left {
		if isStaleTemp(path) {
			os.Remove(path) // best effort: it costs only space
		}
	}
}

// isStaleTemp reports whether a file of createTemp is no process's any more.
func isStaleTemp(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return true
	case errors.Is(err, unix.EWOULDBLOCK):
		return false
	}
	info, err := f.Stat()
	return err == nil && time.Since(info.ModTime()) > staleAfter
}

// prune removes unpacked files that are older than staleAfter and aren't in keep.
func (f *fileCache) prune(keep map[string]bool) {
	if f.dir == "" {
		return
	}
	list, _ := filepath.Glob(filepath.Join(globEscape(f.dir), unpackedSubdir, "*"+ggufSuffix))
	for _, path := range list {
		info, err := os.Stat(path)
		if err != nil || keep[filepath.Base(path)] || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		f.log.Info("unpacked file of a model that is gone is removed", "file", filepath.Base(path), "err", os.Remove(path))
	}
}

// unpackedHere returns the names of the files that this process unpacked and hasn't removed.
func (f *fileCache) unpackedHere() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.unpacked))
}

func (f *fileCache) rememberUnpacked(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unpacked[name] = true
}

// removeUnpacked removes a file of unpackedHere. Who has loaded it keeps what it has.
func (f *fileCache) removeUnpacked(name string) {
	f.mu.Lock()
	delete(f.unpacked, name)
	f.mu.Unlock()
	err := removeIfExists(filepath.Join(f.dir, unpackedSubdir, name))
	f.log.Info("unpacked file of a model that is gone is removed", "file", name, "err", err)
}

// close frees the files in memory.
func (f *fileCache) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.memoryFiles {
		m.Close()
	}
	clear(f.memoryFiles)
}

// prepare returns the path of the (first) file for loading. Errors are *LoadError.
func (f *fileCache) prepare(ctx context.Context, a *weightsFile, what string, report func(Progress)) (string, error) {
	if a.problem != "" {
		return "", &LoadError{Reason: ReasonBadFormat, What: what, Err: errors.New(a.problem)}
	}
	if err := f.knownError(a); err != nil {
		return "", asLoadError(err, what)
	}
	path, err := f.open(ctx, a, report)
	if err != nil {
		f.rememberError(a, err)
		return "", asLoadError(err, what)
	}
	return path, nil
}

// knownError returns the error that the files had before in this state, so that a broken file isn't unpacked for every
// request.
func (f *fileCache) knownError(a *weightsFile) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.brokenFiles) == 0 {
		return nil
	}
	return f.brokenFiles[a.brokenKey()]
}

func (f *fileCache) rememberError(a *weightsFile, err error) {
	if _, broken := errors.AsType[badFileError](err); !broken {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.brokenFiles) >= maxModels {
		clear(f.brokenFiles)
	}
	f.brokenFiles[a.brokenKey()] = err
}

func (f *fileCache) open(ctx context.Context, a *weightsFile, report func(Progress)) (string, error) {
	if a.embedded != nil {
		return f.unpackEmbedded(ctx, a, report)
	}
	if err := a.checkUnchanged(); err != nil {
		return "", err
	}
	if err := f.verifyChecksums(ctx, a, report); err != nil {
		return "", err
	}
	if a.isPacked {
		return f.unpackInstalled(ctx, a, report)
	}
	return a.parts[0].openPath, nil
}

// verifyChecksums compares the files with the checksums in model.yaml, if any.
func (f *fileCache) verifyChecksums(ctx context.Context, a *weightsFile, report func(Progress)) error {
	for _, p := range a.parts {
		want, ok := a.wantChecksums[p.realPath]
		if !ok {
			continue
		}
		sum, err := f.checksum(ctx, p, func(done int64) { report(Progress{Phase: "checksum", Ratio: progressRatio(done, p.id.Size)}) })
		if err != nil {
			return err
		}
		if sum != want {
			return badFile(fmt.Errorf("%s: sha256 is %s, model.yaml says %s", filepath.Base(p.openPath), sum, want))
		}
	}
	return nil
}

// checksum returns a file's sha256; it is computed once for each state of the file.
func (f *fileCache) checksum(ctx context.Context, p weightsPart, report func(int64)) (string, error) {
	key := checksumKey(p, checksumOfFile)
	if sum, ok := f.sums.get(key); ok {
		return sum, nil
	}
	sum, err := hashFile(ctx, p.realPath, report)
	if err != nil {
		return "", err
	}
	f.rememberChecksum(key, sum)
	return sum, nil
}

func (f *fileCache) rememberChecksum(key, sum string) {
	if err := f.sums.put(key, sum); err != nil {
		f.log.Warn("checksum isn't kept", "err", err)
	}
}

// contentHash returns the sha256 of the unpacked content, computing what isn't known yet. For several parts it is a
// hash over their hashes.
func (f *fileCache) contentHash(ctx context.Context, a *weightsFile) ([]byte, error) {
	if a.embedded != nil {
		return hex.DecodeString(a.embedded.SHA256)
	}
	var sums []string
	for _, p := range a.parts {
		sum, err := f.partContentHash(ctx, a, p)
		if err != nil {
			return nil, err
		}
		sums = append(sums, sum)
	}
	if len(sums) == 1 {
		return hex.DecodeString(sums[0])
	}
	all := sha256.Sum256([]byte(strings.Join(sums, " ")))
	return all[:], nil
}

func (f *fileCache) partContentHash(ctx context.Context, a *weightsFile, p weightsPart) (string, error) {
	if !a.isPacked {
		return f.checksum(ctx, p, func(int64) {})
	}
	if sum, ok := f.sums.get(checksumKey(p, checksumOfContent)); ok {
		return sum, nil
	}
	return "", fmt.Errorf("%s was never unpacked", a.name())
}

// knownContentHash is contentHash when no file has to be read for it, else nil.
func (f *fileCache) knownContentHash(a *weightsFile) []byte {
	for _, p := range a.parts {
		what := checksumOfFile
		if a.isPacked {
			what = checksumOfContent
		}
		if _, ok := f.sums.get(checksumKey(p, what)); !ok {
			return nil
		}
	}
	sum, err := f.contentHash(context.Background(), a)
	if err != nil {
		return nil
	}
	return sum
}
