package models

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// identity tells one state of a file from another without reading it.
type identity struct {
	Dev, Inode  uint64
	Size        int64
	ModTimeNano int64
}

func identityOf(info os.FileInfo) identity {
	id := identity{Size: info.Size(), ModTimeNano: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Inode = uint64(st.Dev), st.Ino
	}
	return id
}

// part is one file of an artefact.
type part struct {
	path string // real path, symbolic links resolved
	open string // how it is opened: under the name that it has in the models directory, by which parts of a split model find each other
	id   identity
}

// Embedded is one file inside the program, packed with xz.
type Embedded struct {
	Version string // empty for the weights
	Packed  []byte
	SHA256  string // of the unpacked file, hexadecimal
	Bytes   int64  // of the unpacked file
}

// artefact is what one load reads: a GGUF file, its parts, or a packed or embedded form of it.
type artefact struct {
	parts    []part // more than one: split GGUF; none: embedded
	packed   bool
	embedded *Embedded
	bytes    int64 // unpacked
	header   header
	checked  bool              // header was read (not for packed files)
	sums     map[string]string // path → sha256 that model.yaml asks for; of the unpacked content under the key ""
	problem  string            // why it can't be loaded, in words for clients; empty when it can
	detail   string            // of the problem, for the log: where a link leads
	files    []string          // that belong to it, by their names in its directory
}

func (a *artefact) name() string {
	if a.embedded != nil {
		return "embedded " + strings.TrimSpace("demo "+a.embedded.Version)
	}
	return filepath.Base(a.parts[0].open)
}

// hash is equal for equal states of the files on one machine. For an embedded file it depends on the content alone.
func (a *artefact) hash() [sha256.Size]byte {
	h := sha256.New()
	if a.embedded != nil {
		h.Write([]byte("embedded " + a.embedded.SHA256))
	}
	for _, p := range a.parts {
		h.Write([]byte(p.path))
		h.Write([]byte{0})
		for _, v := range []uint64{p.id.Dev, p.id.Inode, uint64(p.id.Size), uint64(p.id.ModTimeNano)} {
			h.Write(binary.LittleEndian.AppendUint64(nil, v))
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (a *artefact) id() string {
	h := a.hash()
	return hex.EncodeToString(h[:16])
}

// unpackedName is the file in the cache directory that holds the content of a packed artefact.
func (a *artefact) unpackedName() string {
	if a.embedded != nil {
		return "embedded-" + a.embedded.SHA256[:32] + ggufSuffix
	}
	return a.id() + ggufSuffix
}

var errChanged = errors.New("file changed while it was being loaded; try again")

// unchanged tells whether the files are still those that were found.
func (a *artefact) unchanged() error {
	for _, p := range a.parts {
		info, err := os.Stat(p.open)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(p.open), err)
		}
		if identityOf(info) != p.id {
			return fmt.Errorf("%s: %w", filepath.Base(p.open), errChanged)
		}
	}
	return nil
}

// Revision names what a version computes with: 32 bytes that identify the files' state on this machine, followed, once it is known, by
// the 32 bytes of a sha256 over the content of base and adapter. Compare with SameRevision.
type Revision []byte

// fullRevision is the length of a revision with a checksum.
const fullRevision = 2 * sha256.Size

// SameRevision tells whether two revisions are of the same content. Without both checksums it is the files' state that counts.
func SameRevision(a, b Revision) bool {
	const n = sha256.Size
	if len(a) < n || len(b) < n {
		return false
	}
	if string(a[:n]) == string(b[:n]) {
		return true
	}
	return len(a) == fullRevision && len(b) == fullRevision && string(a[n:]) == string(b[n:])
}

// badKey changes with the files and with the checksums that are asked for.
func (a *artefact) badKey() string { return a.id() + fmt.Sprint(a.sums) }
