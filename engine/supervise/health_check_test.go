package supervise

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	socket := filepath.Join(dir, "s")
	if err := Check(socket, Live, time.Minute); err == nil {
		t.Error("alive without a heartbeat")
	}
	path, err := HeartbeatFile(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := blankHeartbeat(path); err != nil {
		t.Fatal(err)
	}
	if err := Check(socket, Live, time.Minute); err == nil {
		t.Error("alive without a heartbeat in the file")
	}
	if err := WriteHeartbeat(path, Heartbeat{Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	if err := Check(socket, Live, time.Minute); err != nil {
		t.Errorf("live: %v", err)
	}
	if err := Check(socket, Started, time.Minute); err == nil {
		t.Error("started while it loads")
	}
	if err := WriteHeartbeat(path, Heartbeat{Sequence: 2, Started: true}); err != nil {
		t.Fatal(err)
	}
	if err := Check(socket, Started, time.Minute); err != nil {
		t.Errorf("started: %v", err)
	}
	if err := Check(filepath.Join(dir, "other"), Live, time.Minute); err == nil {
		t.Error("the heartbeat of another socket counts")
	}
	old := time.Now().Add(-2 * time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if err := Check(socket, Live, time.Minute); err == nil {
		t.Error("alive with an old heartbeat")
	}
}
