package devices

import (
	"slices"
	"testing"
	"testing/fstest"
)

const gib = 1 << 30

// tree makes a file system of paths and contents.
func tree(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

// 16 and 12 GiB
const meminfo = "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:   12582912 kB\n"

func TestHostMemory(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  Memory
	}{
		{"no control group", map[string]string{}, Memory{Total: 16 * gib, Used: 4 * gib}},
		{"version 2 without a limit", map[string]string{
			"proc/self/cgroup":                    "0::/user.slice\n",
			"sys/fs/cgroup/user.slice/memory.max": "max\n",
		}, Memory{Total: 16 * gib, Used: 4 * gib}},
		{"version 2 in a container", map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "4294967296\n",
			"sys/fs/cgroup/memory.current": "3221225472\n",
			"sys/fs/cgroup/memory.stat":    "anon 1610612736\ninactive_file 1073741824\nactive_file 536870000\nslab_reclaimable 912\nslab 7\n",
		}, Memory{Total: 4 * gib, Used: 3 * gib / 2, Limited: true}},
		{"the parent's limit is tighter", map[string]string{
			"proc/self/cgroup":                     "0::/pod/box\n",
			"sys/fs/cgroup/pod/box/memory.max":     "8589934592\n",
			"sys/fs/cgroup/pod/box/memory.current": "0\n",
			"sys/fs/cgroup/pod/box/memory.stat":    "inactive_file 0\n",
			"sys/fs/cgroup/pod/memory.max":         "2147483648\n",
			"sys/fs/cgroup/pod/memory.current":     "1073741824\n",
			"sys/fs/cgroup/pod/memory.stat":        "inactive_file 0\n",
		}, Memory{Total: 2 * gib, Used: 1 * gib, Limited: true}},
		{"a limit above the machine's memory is none", map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "99999999999999\n",
			"sys/fs/cgroup/memory.current": "0\n",
			"sys/fs/cgroup/memory.stat":    "\n",
		}, Memory{Total: 16 * gib, Used: 4 * gib}},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": "600\n",
			"sys/fs/cgroup/memory/docker/x/memory.stat":           "inactive_file 1\nactive_file 2\ntotal_inactive_file 100\ntotal_active_file 30\n",
		}, Memory{Total: gib, Used: 470, Limited: true}},
		{"version 1 without a limit", map[string]string{
			"proc/self/cgroup":                           "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "600\n",
			"sys/fs/cgroup/memory/memory.stat":           "\n",
		}, Memory{Total: 16 * gib, Used: 4 * gib}},
		{"more cache than use", map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "1073741824\n",
			"sys/fs/cgroup/memory.current": "10\n",
			"sys/fs/cgroup/memory.stat":    "inactive_file 6\nactive_file 6\n",
		}, Memory{Total: gib, Limited: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.files["proc/meminfo"] = meminfo
			got, err := hostMemory(tree(tt.files))
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
	for name, text := range map[string]string{"empty": "", "no total": "MemAvailable: 5 kB\n", "impossible": "MemTotal: 1 kB\nMemAvailable: 2 kB\n"} {
		if _, err := hostMemory(tree(map[string]string{"proc/meminfo": text})); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCPUs(t *testing.T) {
	v2 := func(max string) map[string]string {
		return map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": max}
	}
	v1 := func(quota string) map[string]string {
		return map[string]string{
			"proc/self/cgroup":                      "3:cpu,cpuacct:/x\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us":  quota,
			"sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
		}
	}
	tests := []struct {
		name     string
		files    map[string]string
		affinity int
		want     int
	}{
		{"no quota", v2("max 100000\n"), 8, 8},
		{"no control group", nil, 8, 8},
		{"two and a half", v2("250000 100000\n"), 8, 2},
		{"half of one", v2("50000 100000\n"), 8, 1},
		{"affinity is tighter", v2("400000 100000\n"), 3, 3},
		{"broken", v2("lots\n"), 4, 4},
		{"zero period", v2("1000 0\n"), 4, 4},
		{"version 1", v1("300000\n"), 8, 3},
		{"version 1 without quota", v1("-1\n"), 8, 8},
		{"nothing is known", nil, 0, 1},
	}
	for _, tt := range tests {
		if got := cpus(tree(tt.files), tt.affinity); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestPathAndParents(t *testing.T) {
	for in, want := range map[string][]string{
		"/":        {""},
		"/a/b":     {"a/b", "a", ""},
		"/../../x": {"x", ""},
		"":         {""},
	} {
		if got := pathAndParents(in); !slices.Equal(got, want) {
			t.Errorf("pathAndParents(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFree(t *testing.T) {
	if m := (Memory{Total: 1000, Used: 600}); m.Free() != 400 {
		t.Errorf("free %d", m.Free())
	}
}

func TestReadHere(t *testing.T) {
	f, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if f.CPUs < 1 || f.Host.Total == 0 || f.Host.Used == 0 || f.Host.Used > f.Host.Total {
		t.Errorf("facts %+v", f)
	}
	t.Logf("%+v", f)
}
