package models

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// maxChecksums bounds how many checksums are kept.
const maxChecksums = 100_000

// checksums keeps the sha256 of files by the files' state, in CACHE_DIR across restarts.
type checksums struct {
	file string // empty: they are kept only in memory

	writeMu sync.Mutex // one writer of file at a time; taken before mu

	mu   sync.Mutex
	sums map[string]string // guarded by mu; checksumKey → hexadecimal sha256
}

// openChecksums reads what was kept; a missing or broken file only costs the work of computing again.
func openChecksums(file string) *checksums {
	c := &checksums{file: file, sums: map[string]string{}}
	if file == "" {
		return c
	}
	f, err := os.Open(file)
	if err != nil {
		return c
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 32<<20)).Decode(&c.sums); err != nil || c.sums == nil {
		c.sums = map[string]string{}
	}
	return c
}

// checksumKey identifies a file's state; what is checksumOfFile or, for what it unpacks to, checksumOfContent.
func checksumKey(p weightsPart, what string) string {
	return fmt.Sprintf("%s %d %d %d %d %s", what, p.id.Dev, p.id.Inode, p.id.Size, p.id.ModTimeNano, p.realPath)
}

const (
	checksumOfFile    = "file"
	checksumOfContent = "content"
)

func (c *checksums) get(key string) (sum string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum, ok = c.sums[key]
	return sum, ok
}

// put keeps a checksum and rewrites the file. The error is about the file; the checksum is kept in memory anyway.
func (c *checksums) put(key, sum string) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.mu.Lock()
	if len(c.sums) >= maxChecksums {
		clear(c.sums)
	}
	c.sums[key] = sum
	all := maps.Clone(c.sums)
	c.mu.Unlock()
	if c.file == "" {
		return nil
	}
	text, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("encode checksums: %w", err)
	}
	return replaceFile(c.file, text)
}

// replaceFile replaces a small file so that a reader sees the old or the new one.
func replaceFile(path string, text []byte) error {
	tmp, err := createTemp(filepath.Dir(path))
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, removeIfExists(tmp.Name()))
	}
	return nil
}

func removeIfExists(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// hashFile computes a file's sha256; report is called with the number of bytes done.
func hashFile(ctx context.Context, path string, report func(done int64)) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := copyContext(ctx, h, f, report); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// copyContext copies until the end, an error or the end of ctx.
func copyContext(ctx context.Context, w io.Writer, r io.Reader, report func(done int64)) (int64, error) {
	buf := make([]byte, 1<<20)
	var done int64
	for {
		if err := context.Cause(ctx); err != nil {
			return done, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return done, werr
			}
			done += int64(n)
			report(done)
		}
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return done, err
		}
	}
}

// bufferedReader buffers for the decoder, which reads single bytes.
func bufferedReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 256<<10) }
