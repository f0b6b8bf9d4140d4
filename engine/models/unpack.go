package models

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// unpackInstalled returns the path of an installed .xz file's unpacked form, unpacking it when it isn't there yet.
func (f *fileCache) unpackInstalled(ctx context.Context, a *weightsFile, report func(Progress)) (string, error) {
	p := a.parts[0]
	if f.dir == "" {
		return "", fmt.Errorf("%s is packed and needs a writable CACHE_DIR", a.name())
	}
	path := filepath.Join(f.dir, unpackedSubdir, a.unpackedName())
	key := checksumKey(p, checksumOfContent)
	sum, known := f.sums.get(key)
	if info, err := os.Stat(path); err != nil || info.Size() != a.bytes || !known {
		src, err := os.Open(p.realPath)
		if err != nil {
			return "", err
		}
		defer src.Close()
		if sum, err = f.unpackToDisk(ctx, path, src, a.bytes, report); err != nil {
			return "", fmt.Errorf("%s: %w", a.name(), err)
		}
		f.rememberUnpacked(filepath.Base(path))
		f.rememberChecksum(key, sum)
	}
	if want, ok := a.wantChecksums[""]; ok && want != sum {
		return "", badFile(fmt.Errorf("%s: sha256 of the unpacked file is %s, model.yaml says %s", a.name(), sum, want))
	}
	if err := checkUnpacked(path, a.name()); err != nil {
		return "", errors.Join(err, removeIfExists(path))
	}
	return path, nil
}

func checkUnpacked(path, name string) error {
	c, err := checkFile(path, false)
	if err == nil && c.problem != "" {
		return badFile(fmt.Errorf("%s: %s", name, c.problem))
	}
	return nil
}

// unpackEmbedded returns the path of an unpacked built-in file: on disk, or in memory where CACHE_DIR can't be written.
func (f *fileCache) unpackEmbedded(ctx context.Context, a *weightsFile, report func(Progress)) (string, error) {
	e := a.embedded
	if f.dir != "" {
		path := filepath.Join(f.dir, unpackedSubdir, a.unpackedName())
		if sum, err := hashFile(ctx, path, func(int64) {}); err == nil && sum == e.SHA256 {
			return path, nil
		}
		sum, err := f.unpackToDisk(ctx, path, bytes.NewReader(e.Packed), e.Bytes, report)
		if err == nil && sum != e.SHA256 {
			err = fmt.Errorf("the built-in file is damaged: sha256 %s", sum)
		}
		if err == nil || ctx.Err() != nil {
			return path, err
		}
		f.log.Warn("built-in model is kept in memory", "err", err)
	}
	return f.unpackToMemory(ctx, e, report)
}

// unpackToMemory unpacks into an anonymous file, which exists as long as the process.
func (f *fileCache) unpackToMemory(ctx context.Context, e *EmbeddedFile, report func(Progress)) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, ok := f.memoryFiles[e.SHA256]
	if !ok {
		fd, err := unix.MemfdCreate("tandem-"+e.SHA256[:16], unix.MFD_CLOEXEC)
		if err != nil {
			return "", fmt.Errorf("make a file in memory: %w", err)
		}
		file = os.NewFile(uintptr(fd), "memfd")
		sum, err := unpack(ctx, file, bytes.NewReader(e.Packed), e.Bytes, report)
		if err == nil && sum != e.SHA256 {
			err = fmt.Errorf("the built-in file is damaged: sha256 %s", sum)
		}
		if err != nil {
			return "", errors.Join(err, file.Close())
		}
		f.memoryFiles[e.SHA256] = file
	}
	return fmt.Sprintf("/proc/self/fd/%d", file.Fd()), nil
}

// unpackToDisk writes the content of src to path, completely or not at all, and returns its sha256.
func (f *fileCache) unpackToDisk(ctx context.Context, path string, src io.Reader, size int64, report func(Progress)) (string, error) {
	sum, err := unpackToFile(ctx, path, src, size, report)
	if errors.Is(err, fs.ErrNotExist) { // not wrapped: it is not the model that isn't there
		err = fmt.Errorf("CACHE_DIR was removed meanwhile: %v", err)
	}
	return sum, err
}

func unpackToFile(ctx context.Context, path string, src io.Reader, size int64, report func(Progress)) (sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), cacheDirMode); err != nil { // it may have been removed
		return "", err
	}
	if err := checkDiskSpace(filepath.Dir(path), size); err != nil {
		return "", err
	}
	tmp, err := createTemp(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer func() { // the lock is held until the file has its name
		if err = errors.Join(err, tmp.Close()); err != nil {
			err = errors.Join(err, removeIfExists(tmp.Name()))
		}
	}()
	if sum, err = unpack(ctx, tmp, src, size, report); err != nil {
		return "", err
	}
	if err := tmp.Sync(); err != nil {
		return "", err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return "", err
	}
	return sum, syncDir(filepath.Dir(path))
}

// syncDir makes a rename survive a crash of the machine.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkDiskSpace returns an error when size more bytes don't fit on the disk of dir.
func checkDiskSpace(dir string, size int64) error {
	if size > maxUnpackedBytes {
		return badFile(fmt.Errorf("unpacks to %d bytes, at most %d are allowed", size, int64(maxUnpackedBytes)))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("measure free space of %s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); uint64(size)+reservedDiskBytes > free {
		return fmt.Errorf("unpacking needs %d bytes and %d to spare, CACHE_DIR has %d: %w", size, reservedDiskBytes, free, unix.ENOSPC)
	}
	return nil
}

// unpack writes exactly size bytes of unpacked content to w and returns their sha256; more or less content is an error.
func unpack(ctx context.Context, w io.Writer, src io.Reader, size int64, report func(Progress)) (string, error) {
	h := sha256.New()
	r, err := xz.NewReader(bufferedReader(src))
	if err != nil {
		return "", badFile(fmt.Errorf("%w: %w", errXZ, err))
	}
	from := &unpackReader{r: io.LimitReader(r, size+1)}
	done, err := copyContext(ctx, io.MultiWriter(w, h), from, func(done int64) {
		report(Progress{Phase: "unpack", Ratio: progressRatio(done, size)})
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

func progressRatio(done, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return min(1, float64(done)/float64(all))
}
