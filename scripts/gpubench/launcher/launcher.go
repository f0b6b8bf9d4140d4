// Command bench-gpu of a pack: unpacks the programs beside it and goes on as the real one among them. It is small, so
// that nearly all of a pack is compressed, and needs neither tar nor xz.
package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ulikunitz/xz"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench-gpu:", launch())
	os.Exit(1)
}

// launch becomes the other program. It returns only when it can't.
func launch() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	here := filepath.Dir(self)
	programs := filepath.Join(here, "programs")
	if err := unpack(filepath.Join(here, "programs.tar.xz"), programs); err != nil {
		return err
	}
	program := filepath.Join(programs, "bench-gpu")
	err = syscall.Exec(program, append([]string{program}, os.Args[1:]...), os.Environ())
	return fmt.Errorf("start %s: %w", program, err)
}

// stampName is the file among the programs that says of which archive they are.
const stampName = ".of"

// unpack unpacks the programs into a directory, unless those of this archive are there already.
func unpack(archive, to string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("read %s: %w", archive, err)
	}
	stamp := fmt.Sprintf("%x\n", sum.Sum(nil))
	if there, err := os.ReadFile(filepath.Join(to, stampName)); err == nil && string(there) == stamp {
		return nil
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read %s: %w", archive, err)
	}
	fmt.Printf("unpacking %s ...\n", archive)
	aside := to + ".part"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := unpackAll(file, aside); err != nil {
		return fmt.Errorf("unpack %s: %w", archive, err)
	}
	if err := os.WriteFile(filepath.Join(aside, stampName), []byte(stamp), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(to); err != nil { // those of an earlier pack
		return err
	}
	return os.Rename(aside, to)
}

func unpackAll(archive io.Reader, dir string) error {
	unpacked, err := xz.NewReader(bufio.NewReaderSize(archive, 1<<20))
	if err != nil {
		return err
	}
	for entries := tar.NewReader(unpacked); ; {
		entry, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = writeEntry(dir, entry, entries)
		}
		if err != nil {
			return err
		}
	}
}

func writeEntry(dir string, entry *tar.Header, content io.Reader) error {
	if !filepath.IsLocal(entry.Name) {
		return fmt.Errorf("%q would lie elsewhere", entry.Name)
	}
	path := filepath.Join(dir, entry.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch entry.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, 0o755)
	case tar.TypeSymlink:
		if strings.ContainsRune(entry.Linkname, '/') {
			return fmt.Errorf("%q leads to %q", entry.Name, entry.Linkname)
		}
		return os.Symlink(entry.Linkname, path)
	case tar.TypeReg:
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, os.FileMode(entry.Mode)&0o777)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Close())
	}
	return fmt.Errorf("%q is of type %q", entry.Name, entry.Typeflag)
}
