//go:build llama

package llama

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// singleThreadBytes is the model size below which a second thread costs more time in waiting than it saves.
const singleThreadBytes = 64 << 20

// threadCount is the number of CPU threads for a model's steps: what affinity and cgroup quota allow, at least one.
func threadCount(wanted int, modelBytes int64) int {
	if wanted > 0 {
		return wanted
	}
	if modelBytes < singleThreadBytes {
		return 1
	}
	threads := affinityCPUs()
	if quota := cgroupQuota("/sys/fs/cgroup", "/proc/self/cgroup"); quota > 0 {
		threads = min(threads, quota)
	}
	return max(threads, 1)
}

func affinityCPUs() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 1
	}
	return set.Count()
}

// cgroupQuota is the number of whole CPUs that the tightest cgroup above this process grants; 0: no limit found.
func cgroupQuota(root, self string) int {
	path := ""
	if text, err := os.ReadFile(self); err == nil {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				path = rest
			}
		}
	}
	tightest := 0
	for dir := filepath.Join(root, path); strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
		if cpus := parseCPUMax(filepath.Join(dir, "cpu.max")); cpus > 0 && (tightest == 0 || cpus < tightest) {
			tightest = cpus
		}
	}
	return tightest
}

// parseCPUMax reads "quota period"; 0: no limit, otherwise at least 1.
func parseCPUMax(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0
	}
	quota, errQuota := strconv.Atoi(fields[0])
	period, errPeriod := strconv.Atoi(fields[1])
	if errQuota != nil || errPeriod != nil || quota <= 0 || period <= 0 {
		return 0
	}
	return max(quota/period, 1)
}
