package models

import (
	"crypto/sha256"
)

// Revision identifies the weights of a version: 32 bytes for the files' state on this machine, followed, once it is
// known, by the 32 bytes of a sha256 over the content of base and adapter. Compare with SameRevision.
type Revision []byte

// fullRevision is the length of a revision with a checksum.
const fullRevision = 2 * sha256.Size

// SameRevision reports whether two revisions are of the same content. Unless both have a checksum, the files' state
// decides.
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

// revision is the Revision as far as it is known now.
func (c *Cache) revision(s *source) Revision {
	rev := append(Revision(nil), s.filesHash[:]...)
	if sum := s.contentHash(c.fileCache.knownContentHash); sum != nil {
		rev = append(rev, sum...)
	}
	return rev
}
