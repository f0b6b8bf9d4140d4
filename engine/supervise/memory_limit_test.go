package supervise

import (
	"os"
	"path/filepath"
	"testing"
)

// memoryFolder makes the files of a control group that has its limit of 100 bytes, so many of which are no files in the
// cache.
func memoryFolder(t *testing.T, taken string) string {
	t.Helper()
	return writeFiles(t, map[string]string{"memory.max": "100\n", "memory.current": "100\n", "memory.stat": memoryStat[taken]})
}

// memoryStat are contents of memory.stat by what can't be taken back of 100 bytes.
var memoryStat = map[string]string{
	"95": "anon 90\nactive_file 2\ninactive_file 2\nslab_reclaimable 1\nslab_unreclaimable 4\n",
	"50": "anon 40\nactive_file 20\ninactive_file 20\nslab_reclaimable 10\n",
}

func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMemoryLimit(t *testing.T) {
	const inContainer = "0::/\n"
	for name, test := range map[string]struct {
		groups string
		files  map[string]string
		limit  uint64
		full   bool
	}{
		"a container":             {inContainer, map[string]string{"memory.max": "100\n", "memory.current": "91\n", "memory.stat": "anon 91\n"}, 100, true},
		"room is left":            {inContainer, map[string]string{"memory.max": "100\n", "memory.current": "89\n", "memory.stat": "anon 89\n"}, 100, false},
		"files in the cache":      {inContainer, map[string]string{"memory.max": "100\n", "memory.current": "99\n", "memory.stat": memoryStat["50"]}, 100, false},
		"more files than all":     {inContainer, map[string]string{"memory.max": "100\n", "memory.current": "95\n", "memory.stat": "active_file 1000\n"}, 100, false},
		"no limit":                {inContainer, map[string]string{"memory.max": "max\n", "memory.current": "91\n", "memory.stat": ""}, 0, false},
		"a service of systemd":    {"0::/system.slice/tandem-engine.service\n", map[string]string{"system.slice/tandem-engine.service/memory.max": "200\n", "memory.max": "100\n"}, 200, false},
		"the path is the host's":  {"0::/kubepods/pod1/2\n", map[string]string{"memory.max": "100\n"}, 100, false},
		"version 1":               {"4:memory:/kubepods/pod1/2\n", map[string]string{"memory.max": "100\n"}, 0, false},
		"both, memory is in 1":    {"4:memory:/a\n0::/\n", map[string]string{"memory/a/memory.limit_in_bytes": "100\n"}, 0, false},
		"the files can't be read": {inContainer, map[string]string{"memory.max": "100\n"}, 100, false},
	} {
		l := findMemoryLimit(writeFiles(t, test.files), test.groups)
		if l.bytes != test.limit || l.full() != test.full {
			t.Errorf("%s: limit %d, full %v, want %d, %v", name, l.bytes, l.full(), test.limit, test.full)
		}
	}
}
