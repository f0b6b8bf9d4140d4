package main

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ulikunitz/xz"
)

func writeArchive(t *testing.T, entries ...tar.Header) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "programs.tar.xz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := xz.NewWriter(file)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(packed)
	for _, entry := range entries {
		if entry.Typeflag == tar.TypeReg {
			entry.Size = int64(len(entry.Name))
		}
		if err := archive.WriteHeader(&entry); err != nil {
			t.Fatal(err)
		}
		if entry.Typeflag == tar.TypeReg {
			if _, err := archive.Write([]byte(entry.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, end := range []func() error{archive.Close, packed.Close, file.Close} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestUnpack(t *testing.T) {
	to := filepath.Join(t.TempDir(), "programs")
	archive := writeArchive(t, tar.Header{Typeflag: tar.TypeReg, Name: "./tandem-engine", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "lib/libllama.so.1", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "lib/libllama.so", Linkname: "libllama.so.1"})
	for range 2 { // the second time there is nothing to do
		if err := unpack(archive, to); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.Stat(filepath.Join(to, "tandem-engine"))
	if err != nil || program.Mode().Perm()&0o100 == 0 {
		t.Errorf("the program can't be run: %v", err)
	}
	if content, err := os.ReadFile(filepath.Join(to, "lib/libllama.so")); err != nil || string(content) != "lib/libllama.so.1" {
		t.Errorf("the link leads to %q, %v", content, err)
	}
}

// A newer pack over an earlier one runs its own programs, and those of the same pack aren't unpacked again.
func TestUnpackOverAnEarlierPack(t *testing.T) {
	to := filepath.Join(t.TempDir(), "programs")
	first := writeArchive(t, tar.Header{Typeflag: tar.TypeReg, Name: "lib/old.so", Mode: 0o644})
	second := writeArchive(t, tar.Header{Typeflag: tar.TypeReg, Name: "lib/new.so", Mode: 0o644})
	if err := errors.Join(unpack(first, to), os.WriteFile(filepath.Join(to, "mine"), nil, 0o644), unpack(first, to)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "mine")); err != nil {
		t.Errorf("unpacked again: %v", err)
	}
	if err := unpack(second, to); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "lib/new.so")); err != nil {
		t.Errorf("the newer pack's: %v", err)
	}
	if _, err := os.Stat(filepath.Join(to, "lib/old.so")); err == nil {
		t.Error("something of the earlier pack is left")
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, entry := range map[string]tar.Header{
		"another directory": {Typeflag: tar.TypeReg, Name: "../x"},
		"a link elsewhere":  {Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/etc/passwd"},
		"a device":          {Typeflag: tar.TypeFifo, Name: "x"},
	} {
		to := filepath.Join(t.TempDir(), "programs")
		if err := unpack(writeArchive(t, entry), to); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(to); err == nil {
			t.Errorf("%s: something is there", name)
		}
	}
	if err := unpack(filepath.Join(t.TempDir(), "none"), "programs"); err == nil {
		t.Error("no error without an archive")
	}
}
