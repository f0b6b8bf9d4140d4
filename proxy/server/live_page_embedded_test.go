//go:build !noui

package server

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The page needs no build tag: if it was built, every program has it.
func TestPageIsWhatWasBuilt(t *testing.T) {
	built, err := os.ReadFile(filepath.Join("page", "dist", "index.html"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if !bytes.Equal(pageContent("index.html"), built) {
		t.Errorf("%d bytes were built, the program has %d", len(built), len(pageContent("index.html")))
	}
}
