package main

import (
	"log/slog"
	"path/filepath"
	"testing"

	"tandem/engine/models"
	"tandem/engine/supervise"
)

func TestHeartbeatSaysAtOnceWhetherALoadIsUnderWay(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var h heartbeat
	if err := h.open(filepath.Join(t.TempDir(), "engine.sock"), func() []supervise.Activity { return nil }, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	first, second := models.LoadHeartbeat{Model: "m", Version: "v1"}, models.LoadHeartbeat{Model: "m", Version: "v2"}
	for _, step := range []struct {
		load    models.LoadHeartbeat
		loading bool
		want    string // versions of the loads in hand
	}{{first, true, "v1"}, {second, true, "v1v2"}, {first, false, "v2"}, {second, false, ""}} {
		h.load(step.load, step.loading)
		b, _, err := supervise.ReadHeartbeat(h.path)
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
	h.end()
	h.write()
	if _, _, err := supervise.ReadHeartbeat(h.path); err == nil {
		t.Error("a heartbeat was written after the end")
	}
}
