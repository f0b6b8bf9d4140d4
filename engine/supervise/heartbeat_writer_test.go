package supervise

import (
	"log/slog"
	"path/filepath"
	"testing"
)

func TestHeartbeatSaysAtOnceWhetherALoadIsUnderWay(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	h, err := NewHeartbeatWriter(filepath.Join(t.TempDir(), "engine.sock"), func() []Activity { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, second := Loading{Model: "m", Version: "v1"}, Loading{Model: "m", Version: "v2"}
	for _, step := range []struct {
		load    Loading
		loading bool
		want    string // versions of the loads in progress
	}{{first, true, "v1"}, {second, true, "v1v2"}, {first, false, "v2"}, {second, false, ""}} {
		h.SetLoading(step.load, step.loading)
		b, _, err := ReadHeartbeat(h.path)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, l := range b.Loads {
			got += l.Version
		}
		if got != step.want {
			t.Errorf("after %s loading=%v the file says %q, want %q", step.load.Version, step.loading, got, step.want)
		}
	}
	h.stop()
	h.write()
	if _, _, err := ReadHeartbeat(h.path); err == nil {
		t.Error("a heartbeat was written after the end")
	}
}

// The next engine of the supervisor may find no room for another one.
func TestTheSupervisorsFileStaysAtTheEnd(t *testing.T) {
	t.Setenv(heartbeatEnv, filepath.Join(t.TempDir(), "h.json"))
	h, err := NewHeartbeatWriter("unused", func() []Activity { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.write()
	h.stop()
	if _, _, err := ReadHeartbeat(h.path); err != nil {
		t.Error(err)
	}
}
