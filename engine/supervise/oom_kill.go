package supervise

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomKills returns how many processes of this control group the kernel has killed for memory; 0 where that can't be
// read.
func oomKills() uint64 {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	for _, file := range oomCounterFiles(string(groups)) {
		if text, err := os.ReadFile(file); err == nil {
			return parseOOMCount(text)
		}
	}
	return 0
}

// oomCounterFiles returns the files to look in, from /proc/self/cgroup: version 2 first. In a container the path that
// is named there may be the host's, and the group is mounted at the root.
func oomCounterFiles(groups string) []string {
	var files []string
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			files = append(files, filepath.Join("/sys/fs/cgroup", parts[2], "memory.events"), "/sys/fs/cgroup/memory.events")
		case strings.Contains(","+parts[1]+",", ",memory,"):
			files = append(files, filepath.Join("/sys/fs/cgroup/memory", parts[2], "memory.oom_control"), "/sys/fs/cgroup/memory/memory.oom_control")
		}
	}
	return files
}

func parseOOMCount(text []byte) uint64 {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && name == "oom_kill" {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64) // what isn't a number counts as 0
			return n
		}
	}
	return 0
}
