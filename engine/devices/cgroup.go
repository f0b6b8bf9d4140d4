package devices

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

const (
	unifiedMount = "sys/fs/cgroup"        // version 2
	memoryMount  = "sys/fs/cgroup/memory" // version 1
	cpuMount     = "sys/fs/cgroup/cpu"
	maxDepth     = 32 // of nested groups
)

// cgroup is a control group that this process is in, directly or through a parent.
type cgroup struct {
	dir     string
	unified bool // version 2
}

// processCgroups lists the process's control groups from the innermost out. In a container its own path is often
// hidden; the mount's root is the group then.
func processCgroups(root fs.FS) []cgroup {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var list []cgroup
	for _, m := range parseMembership(text) {
		mounts := map[string]bool{unifiedMount: m.unified, memoryMount: m.memory, cpuMount: m.cpu}
		for _, mount := range []string{unifiedMount, memoryMount, cpuMount} {
			if !mounts[mount] {
				continue
			}
			for _, dir := range pathAndParents(m.path) {
				list = append(list, cgroup{dir: path.Join(mount, dir), unified: m.unified})
			}
		}
	}
	return list
}

// pathAndParents returns a path and its parents: a/b, a, and the root.
func pathAndParents(p string) []string {
	var list []string
	for p = strings.Trim(path.Clean("/"+p), "/"); p != "" && len(list) < maxDepth; p = strings.TrimPrefix(path.Dir("/"+p), "/") {
		list = append(list, p)
	}
	return append(list, "")
}

type cgroupMembership struct {
	path                 string
	unified, memory, cpu bool
}

// parseMembership reads /proc/self/cgroup: lines of id:controllers:path, without controllers for version 2.
func parseMembership(text []byte) []cgroupMembership {
	var list []cgroupMembership
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		m := cgroupMembership{path: f[2], unified: f[0] == "0" && f[1] == ""}
		for c := range strings.SplitSeq(f[1], ",") {
			m.memory = m.memory || c == "memory"
			m.cpu = m.cpu || c == "cpu"
		}
		list = append(list, m)
	}
	return list
}

// memory is the group's limit and use; false: no limit can be read.
func (g cgroup) memory(root fs.FS) (Memory, bool) {
	limit, used, droppable := "memory.limit_in_bytes", "memory.usage_in_bytes", []string{"total_inactive_file", "total_active_file"}
	if g.unified {
		limit, used, droppable = "memory.max", "memory.current", []string{"inactive_file", "active_file", "slab_reclaimable"}
	}
	total, err := readNumber(root, path.Join(g.dir, limit))
	if err != nil {
		return Memory{}, false
	}
	current, err := readNumber(root, path.Join(g.dir, used))
	if err != nil {
		return Memory{}, false
	}
	stat, err := fs.ReadFile(root, path.Join(g.dir, "memory.stat"))
	if err != nil {
		return Memory{}, false
	}
	for _, name := range droppable { // a file that was read twice is active, and is dropped all the same
		current -= min(fieldValue(stat, name), current)
	}
	return Memory{Total: total, Used: current, Limited: true}, true
}

// cpuQuota is how many processors' time the group may use.
func (g cgroup) cpuQuota(root fs.FS) (float64, bool) {
	if g.unified {
		text, err := fs.ReadFile(root, path.Join(g.dir, "cpu.max"))
		if err != nil {
			return 0, false
		}
		f := strings.Fields(string(text))
		if len(f) != 2 {
			return 0, false
		}
		return quotaCPUs(f[0], f[1])
	}
	quota, err1 := fs.ReadFile(root, path.Join(g.dir, "cpu.cfs_quota_us"))
	period, err2 := fs.ReadFile(root, path.Join(g.dir, "cpu.cfs_period_us"))
	if err1 != nil || err2 != nil {
		return 0, false
	}
	return quotaCPUs(strings.TrimSpace(string(quota)), strings.TrimSpace(string(period)))
}

// quotaCPUs divides quota by period, both in microseconds; "max" and -1 mean no limit.
func quotaCPUs(quota, period string) (float64, bool) {
	q, err1 := strconv.ParseInt(quota, 10, 64)
	p, err2 := strconv.ParseInt(period, 10, 64)
	if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0, false
	}
	return float64(q) / float64(p), true
}

// readNumber reads a file that holds one number; "max" is an error.
func readNumber(root fs.FS, name string) (uint64, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
}

// fieldValue finds "name value" in a list of lines; 0 when it isn't there.
func fieldValue(text []byte, name string) uint64 {
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// parseMeminfo reads /proc/meminfo, which counts in KiB.
func parseMeminfo(text []byte) (Memory, error) {
	total, available := fieldValue(text, "MemTotal:")<<10, fieldValue(text, "MemAvailable:")<<10
	if total == 0 || available > total {
		return Memory{}, errors.New("MemTotal or MemAvailable is missing in /proc/meminfo")
	}
	return Memory{Total: total, Used: total - available}, nil
}
