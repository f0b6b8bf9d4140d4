package models

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

const (
	tempPrefix   = ".part-"
	unpackedDir  = "unpacked"
	spareBytes   = 64 << 20  // stays free on the cache's disk
	maxUnpacked  = 512 << 30 // bytes of one unpacked file
	staleTemp    = time.Hour // an older temporary file belongs to nobody
	cacheDirMode = 0o700
)

// files makes an artefact readable for the native library: checks it, unpacks it, remembers checksums.
type files struct {
	dir  string // CACHE_DIR; empty: not writable
	sums *checksums
	log  *slog.Logger

	mu     sync.Mutex
	memory map[string]*os.File // guarded by mu; embedded files that had no disk, by sha256
	bad    map[string]error    // guarded by mu; artefacts that turned out to be broken, by badKey
}

// openFiles prepares the cache directory. One that can't be written only means that nothing is kept there.
func openFiles(dir string, log *slog.Logger) *files {
	f := &files{log: log, memory: map[string]*os.File{}, bad: map[string]error{}}
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
	sub := filepath.Join(dir, unpackedDir)
	if err := os.MkdirAll(sub, cacheDirMode); err != nil {
		return err
	}
	probe, err := os.CreateTemp(sub, tempPrefix)
	if err != nil {
		return err
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return err
	}
	for _, d := range []string{dir, sub} {
		clearTemps(d)
	}
	return nil
}

// clearTemps removes what a killed process left.
func clearTemps(dir string) {
	left, _ := filepath.Glob(filepath.Join(globEscape(dir), tempPrefix+"*"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > staleTemp {
			os.Remove(path) // best effort: it costs only space
		}
	}
}

// prune removes unpacked files that nobody asked for lately and that aren't in keep.
func (f *files) prune(keep map[string]bool) {
	if f.dir == "" {
		return
	}
	list, _ := filepath.Glob(filepath.Join(globEscape(f.dir), unpackedDir, "*"+ggufSuffix))
	for _, path := range list {
		info, err := os.Stat(path)
		if err != nil || keep[filepath.Base(path)] || time.Since(info.ModTime()) < staleTemp {
			continue
		}
		f.log.Info("unpacked file of a model that is gone is removed", "file", filepath.Base(path), "err", os.Remove(path))
	}
}

// close frees what is held in memory.
func (f *files) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.memory {
		m.Close()
	}
	clear(f.memory)
}

// ready gives the path of the artefact's (first) file for loading. Errors are *LoadError.
func (f *files) ready(ctx context.Context, a *artefact, what string, tell func(Progress)) (string, error) {
	if a.problem != "" {
		return "", &LoadError{Reason: ReasonBadFormat, What: what, Err: errors.New(a.problem)}
	}
	if err := f.known(a); err != nil {
		return "", loadError(err, what)
	}
	path, err := f.open(ctx, a, tell)
	if err != nil {
		f.learn(a, err)
		return "", loadError(err, what)
	}
	return path, nil
}

// known gives the error that the same state of the files had before, so that a broken file isn't unpacked for every request.
func (f *files) known(a *artefact) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.bad) == 0 {
		return nil
	}
	return f.bad[a.badKey()]
}

func (f *files) learn(a *artefact, err error) {
	if _, broken := errors.AsType[formatError](err); !broken {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.bad) >= maxModels {
		clear(f.bad)
	}
	f.bad[a.badKey()] = err
}

func (f *files) open(ctx context.Context, a *artefact, tell func(Progress)) (string, error) {
	if a.embedded != nil {
		return f.embedded(ctx, a, tell)
	}
	if err := a.unchanged(); err != nil {
		return "", err
	}
	if err := f.verify(ctx, a, tell); err != nil {
		return "", err
	}
	if a.packed {
		return f.unpacked(ctx, a, tell)
	}
	return a.parts[0].open, nil
}

// verify compares the files with the checksums in model.yaml, if any.
func (f *files) verify(ctx context.Context, a *artefact, tell func(Progress)) error {
	for _, p := range a.parts {
		want, asked := a.sums[p.path]
		if !asked {
			continue
		}
		sum, err := f.sum(ctx, p, func(done int64) { tell(Progress{Phase: "checksum", Ratio: ratio(done, p.id.Size)}) })
		if err != nil {
			return err
		}
		if sum != want {
			return badFile(fmt.Errorf("%s: sha256 is %s, model.yaml says %s", filepath.Base(p.open), sum, want))
		}
	}
	return nil
}

// sum gives a file's sha256, from memory when its state is known.
func (f *files) sum(ctx context.Context, p part, tell func(int64)) (string, error) {
	key := sumKey(p, sumOfFile)
	if sum, ok := f.sums.get(key); ok {
		return sum, nil
	}
	sum, err := hashFile(ctx, p.path, tell)
	if err != nil {
		return "", err
	}
	f.remember(key, sum)
	return sum, nil
}

func (f *files) remember(key, sum string) {
	if err := f.sums.put(key, sum); err != nil {
		f.log.Warn("checksum isn't kept", "err", err)
	}
}

// unpacked gives the unpacked form of an installed .xz, unpacking it when it isn't there yet.
func (f *files) unpacked(ctx context.Context, a *artefact, tell func(Progress)) (string, error) {
	p := a.parts[0]
	if f.dir == "" {
		return "", fmt.Errorf("%s is packed and needs a writable CACHE_DIR", a.name())
	}
	path := filepath.Join(f.dir, unpackedDir, a.unpackedName())
	key := sumKey(p, sumOfContent)
	sum, known := f.sums.get(key)
	if info, err := os.Stat(path); err != nil || info.Size() != a.bytes || !known {
		src, err := os.Open(p.path)
		if err != nil {
			return "", err
		}
		defer src.Close()
		if sum, err = f.unpackTo(ctx, path, src, a.bytes, tell); err != nil {
			return "", fmt.Errorf("%s: %w", a.name(), err)
		}
		f.remember(key, sum)
	}
	if want, asked := a.sums[""]; asked && want != sum {
		return "", badFile(fmt.Errorf("%s: sha256 of the unpacked file is %s, model.yaml says %s", a.name(), sum, want))
	}
	if err := checkUnpacked(path, a.name()); err != nil {
		return "", errors.Join(err, remove(path))
	}
	return path, nil
}

func checkUnpacked(path, name string) error {
	c, ok := checkFile(path, false)
	if ok && c.problem != "" {
		return badFile(fmt.Errorf("%s: %s", name, c.problem))
	}
	return nil
}

// embedded gives a built-in file on disk, or in memory where the cache directory can't be written.
func (f *files) embedded(ctx context.Context, a *artefact, tell func(Progress)) (string, error) {
	e := a.embedded
	if f.dir != "" {
		path := filepath.Join(f.dir, unpackedDir, a.unpackedName())
		if sum, err := hashFile(ctx, path, func(int64) {}); err == nil && sum == e.SHA256 {
			return path, nil
		}
		sum, err := f.unpackTo(ctx, path, bytes.NewReader(e.Packed), e.Bytes, tell)
		if err == nil && sum != e.SHA256 {
			err = fmt.Errorf("the built-in file is damaged: sha256 %s", sum)
		}
		if err == nil || ctx.Err() != nil {
			return path, err
		}
		f.log.Warn("built-in model is kept in memory", "err", err)
	}
	return f.inMemory(ctx, e, tell)
}

// inMemory unpacks into an anonymous file that lives as long as the process.
func (f *files) inMemory(ctx context.Context, e *Embedded, tell func(Progress)) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, ok := f.memory[e.SHA256]
	if !ok {
		fd, err := unix.MemfdCreate("tandem-"+e.SHA256[:16], unix.MFD_CLOEXEC)
		if err != nil {
			return "", fmt.Errorf("make a file in memory: %w", err)
		}
		file = os.NewFile(uintptr(fd), "memfd")
		sum, err := unpack(ctx, file, bytes.NewReader(e.Packed), e.Bytes, tell)
		if err == nil && sum != e.SHA256 {
			err = fmt.Errorf("the built-in file is damaged: sha256 %s", sum)
		}
		if err != nil {
			return "", errors.Join(err, file.Close())
		}
		f.memory[e.SHA256] = file
	}
	return fmt.Sprintf("/proc/self/fd/%d", file.Fd()), nil
}

// unpackTo writes the content of src to path, whole or not at all, and gives its sha256.
func (f *files) unpackTo(ctx context.Context, path string, src io.Reader, size int64, tell func(Progress)) (sum string, err error) {
	if err := roomFor(filepath.Dir(path), size); err != nil {
		return "", err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(tmp.Name()))
		}
	}()
	sum, err = unpack(ctx, tmp, src, size, tell)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return "", err
	}
	return sum, syncDir(filepath.Dir(path))
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// roomFor tells whether size bytes more fit on the disk of dir.
func roomFor(dir string, size int64) error {
	if size > maxUnpacked {
		return badFile(fmt.Errorf("unpacks to %d bytes, at most %d are allowed", size, int64(maxUnpacked)))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("measure free space of %s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); uint64(size)+spareBytes > free {
		return fmt.Errorf("unpacking needs %d bytes and %d to spare, CACHE_DIR has %d: %w", size, spareBytes, free, unix.ENOSPC)
	}
	return nil
}

// unpack writes exactly size bytes of unpacked content to w; more or less is an error.
func unpack(ctx context.Context, w io.Writer, src io.Reader, size int64, tell func(Progress)) (string, error) {
	h := sha256.New()
	r, err := xz.NewReader(buffered(src))
	if err != nil {
		return "", badFile(fmt.Errorf("%w: %w", errXZ, err))
	}
	from := &unpackReader{r: io.LimitReader(r, size+1)}
	done, err := copyContext(ctx, io.MultiWriter(w, h), from, func(done int64) {
		tell(Progress{Phase: "unpack", Ratio: ratio(done, size)})
	})
	if from.err != nil {
		return "", badFile(fmt.Errorf("%w: %w", errXZ, from.err))
	}
	if err != nil {
		return "", err
	}
	if done != size {
		return "", badFile(fmt.Errorf("%w: unpacks to another size than its index says", errXZ))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// unpackReader keeps the decoder's error apart from those of the disk. The decoder may panic on damaged input.
type unpackReader struct {
	r   io.Reader
	err error
}

func (u *unpackReader) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("decoder: %v", v)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			u.err = err
		}
	}()
	return u.r.Read(p)
}

func ratio(done, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return min(1, float64(done)/float64(all))
}

// content gives the sha256 of an artefact's content, computing what isn't known yet. Several parts give a hash over their hashes.
func (f *files) content(ctx context.Context, a *artefact) ([]byte, error) {
	if a.embedded != nil {
		return hex.DecodeString(a.embedded.SHA256)
	}
	var sums []string
	for _, p := range a.parts {
		sum, err := f.contentOf(ctx, a, p)
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

func (f *files) contentOf(ctx context.Context, a *artefact, p part) (string, error) {
	if !a.packed {
		return f.sum(ctx, p, func(int64) {})
	}
	if sum, ok := f.sums.get(sumKey(p, sumOfContent)); ok {
		return sum, nil
	}
	return "", fmt.Errorf("%s was never unpacked", a.name())
}

// knownContent gives the content's sha256 when nothing has to be computed for it.
func (f *files) knownContent(a *artefact) []byte {
	for _, p := range a.parts {
		what := sumOfFile
		if a.packed {
			what = sumOfContent
		}
		if _, ok := f.sums.get(sumKey(p, what)); !ok {
			return nil
		}
	}
	sum, err := f.content(context.Background(), a)
	if err != nil {
		return nil
	}
	return sum
}
