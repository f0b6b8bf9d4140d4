package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"testing"

	"github.com/ulikunitz/xz"
)

func TestFilesUnpackToWhatTheyClaim(t *testing.T) {
	for _, f := range Files() {
		t.Run("version "+f.Version, func(t *testing.T) {
			r, err := xz.NewReader(bytes.NewReader(f.Packed))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(raw)) != f.Bytes {
				t.Errorf("unpacked to %d bytes, table says %d", len(raw), f.Bytes)
			}
			if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != f.SHA256 {
				t.Errorf("sha256 %x, table says %s", sum, f.SHA256)
			}
			if !bytes.HasPrefix(raw, []byte("GGUF")) {
				t.Errorf("not a GGUF file: begins with %q", raw[:4])
			}
		})
	}
}

// DEFAULT_VERSION is v1.0 when nobody sets it.
func TestTheDocumentedDefaultVersionIsAmongTheFiles(t *testing.T) {
	const documented = "v1.0"
	list := Files()
	if list[0].Version != "" {
		t.Errorf("first file is version %q, want the weights", list[0].Version)
	}
	for _, f := range list {
		if f.Version == documented {
			return
		}
	}
	t.Errorf("no file for version %s", documented)
}
