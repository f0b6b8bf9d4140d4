package supervise

import (
	"slices"
	"testing"
)

func TestOOMCounterFiles(t *testing.T) {
	for name, test := range map[string]struct {
		groups string
		want   []string
	}{
		"version 2": {"0::/pod/engine\n", []string{"/sys/fs/cgroup/pod/engine/memory.events", "/sys/fs/cgroup/memory.events"}},
		"version 1": {"5:cpu:/x\n4:memory:/y\n", []string{"/sys/fs/cgroup/memory/y/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"}},
		"none":      {"garbage\n\n", nil},
	} {
		if got := oomCounterFiles(test.groups); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for text, want := range map[string]uint64{
		"low 0\noom 3\noom_kill 2\noom_group_kill 0\n": 2, "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n": 5, "": 0, "oom_kill x\n": 0,
	} {
		if got := parseOOMCount([]byte(text)); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}
