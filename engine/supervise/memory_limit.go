package supervise

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryLimit is a control group of version 2 with a memory limit. There the kernel may kill all processes of the group
// at once (memory.oom.group), the supervisor included, and the count of kills goes with the container; so the
// supervisor looks how much is left before. A group of version 1 isn't looked at: its supervisor stays, and counts.
type memoryLimit struct {
	dir   string // of the group's files; empty: no limit
	bytes uint64
}

// groupMemoryLimit returns the limit of this process's group.
func groupMemoryLimit() *memoryLimit {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return &memoryLimit{}
	}
	return findMemoryLimit("/sys/fs/cgroup", string(groups))
}

// findMemoryLimit looks in the group that is named and, as in a container, at the root of what is mounted.
func findMemoryLimit(root, groups string) *memoryLimit {
	for line := range strings.Lines(groups) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for _, dir := range []string{filepath.Join(root, path), root} {
			limit, err := readNumber(filepath.Join(dir, "memory.max"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil || limit == 0 { // an error is the word "max"
				return &memoryLimit{}
			}
			return &memoryLimit{dir, limit}
		}
	}
	return &memoryLimit{}
}

// full reports whether nine tenths of the limit are taken by what the kernel can't take back. Files in its cache, such
// as a mapped model, it can.
func (l *memoryLimit) full() bool {
	if l.dir == "" {
		return false
	}
	used, err := readNumber(filepath.Join(l.dir, "memory.current"))
	if err != nil || used < l.most() {
		return false // mostly, and without the larger file
	}
	stat, err := os.ReadFile(filepath.Join(l.dir, "memory.stat"))
	return err == nil && used-min(used, reclaimable(stat)) >= l.most()
}

func (l *memoryLimit) most() uint64 { return l.bytes / 10 * 9 }

// reclaimable sums the parts of memory.stat that the kernel can take back.
func reclaimable(stat []byte) (sum uint64) {
	lines := bufio.NewScanner(bytes.NewReader(stat))
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), " "); name {
		case "active_file", "inactive_file", "slab_reclaimable":
			n, _ := strconv.ParseUint(value, 10, 64) // what isn't a number counts as 0
			sum += n
		}
	}
	return sum
}

func readNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}
