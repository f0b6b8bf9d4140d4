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

// fileIdentity distinguishes the states of a file without reading it.
type fileIdentity struct {
	Dev, Inode  uint64
	Size        int64
	ModTimeNano int64
}

func fileIdentityOf(info os.FileInfo) fileIdentity {
	id := fileIdentity{Size: info.Size(), ModTimeNano: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Inode = uint64(st.Dev), st.Ino
	}
	return id
}

// weightsPart is one file on disk of a weightsFile.
type weightsPart struct {
	realPath string // symbolic links resolved
	// openPath is how it is opened: under its name in the models directory, by which the parts of a split model find
	// each other.
	openPath string
	id       fileIdentity
}

// EmbeddedFile is one file inside the program, packed with xz.
type EmbeddedFile struct {
	Version string // empty for the weights
	Packed  []byte
	SHA256  string // of the unpacked file, hexadecimal
	Bytes   int64  // of the unpacked file
}

// weightsFile is what one load reads, of a base model or of an adapter: a GGUF file, the parts of a split one, or a
// packed or embedded form of it.
type weightsFile struct {
	parts      []weightsPart // more than one: split GGUF; none: embedded
	isPacked   bool
	embedded   *EmbeddedFile
	bytes      int64 // unpacked
	header     ggufHeader
	headerRead bool // not for packed files
	// wantChecksums are the sha256 that model.yaml gives, by path; of the unpacked content under the key "".
	wantChecksums map[string]string
	problem       string   // why it can't be loaded, in words for clients; empty when it can
	problemDetail string   // for the log: where a link leads
	fileNames     []string // of its files in their directory
}

// slotBytes is what an adapter takes in a place beside others; of a packed or embedded one its size.
func (a *weightsFile) slotBytes() int64 { return max(a.header.SlotBytes, a.bytes) }

func (a *weightsFile) name() string {
	if a.embedded != nil {
		return "embedded " + strings.TrimSpace("demo "+a.embedded.Version)
	}
	return filepath.Base(a.parts[0].openPath)
}

// stateHash is equal for equal states of the files on one machine. For an embedded file it depends on the content
// alone.
func (a *weightsFile) stateHash() [sha256.Size]byte {
	h := sha256.New()
	if a.embedded != nil {
		h.Write([]byte("embedded " + a.embedded.SHA256))
	}
	for _, p := range a.parts {
		h.Write([]byte(p.realPath))
		h.Write([]byte{0})
		for _, v := range []uint64{p.id.Dev, p.id.Inode, uint64(p.id.Size), uint64(p.id.ModTimeNano)} {
			h.Write(binary.LittleEndian.AppendUint64(nil, v))
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (a *weightsFile) stateID() string {
	h := a.stateHash()
	return hex.EncodeToString(h[:16])
}

// unpackedName is the file in the cache directory that holds the content of a packed weightsFile.
func (a *weightsFile) unpackedName() string {
	if a.embedded != nil {
		return "embedded-" + a.embedded.SHA256[:32] + ggufSuffix
	}
	return a.stateID() + ggufSuffix
}

var errChanged = errors.New("file changed while it was being loaded; try again")

// checkUnchanged returns an error when the files aren't those any more that the scan found.
func (a *weightsFile) checkUnchanged() error {
	for _, p := range a.parts {
		info, err := os.Stat(p.openPath)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(p.openPath), err)
		}
		if fileIdentityOf(info) != p.id {
			return fmt.Errorf("%s: %w", filepath.Base(p.openPath), errChanged)
		}
	}
	return nil
}

// brokenKey identifies the files' state and the checksums that they must have.
func (a *weightsFile) brokenKey() string { return a.stateID() + fmt.Sprint(a.wantChecksums) }
