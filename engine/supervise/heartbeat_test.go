package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On a full disk there is no second file.
func TestHeartbeatNeedsNoRoomForASecondFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.json")
	long := Heartbeat{Sequence: 1, Activities: []Activity{{Name: strings.Repeat("x", 100)}}}
	if err := WriteHeartbeat(path, long); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil { // no file can be made under that name now
		t.Fatal(err)
	}
	for sequence := uint64(2); sequence < 5; sequence++ {
		if err := WriteHeartbeat(path, Heartbeat{Sequence: sequence}); err != nil {
			t.Fatal(err)
		}
		if h, _, err := ReadHeartbeat(path); err != nil || h.Sequence != sequence || len(h.Activities) != 0 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if err := WriteHeartbeat(filepath.Join(t.TempDir(), "none", "h.json"), long); err == nil {
		t.Error("nothing could be written, and nobody hears of it")
	}
}

func TestHeartbeatDirectoryMustBePrivate(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	name := heartbeatDirs(filepath.Join(dir, "sub", "s"))[0]
	if err := os.Mkdir(name, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o777); err != nil {
		t.Fatal(err)
	}
	if path, err := HeartbeatFile(filepath.Join(dir, "sub", "s")); err == nil {
		t.Errorf("writes to %s, where everybody may", path)
	}
}
