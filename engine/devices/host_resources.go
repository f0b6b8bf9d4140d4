// Package devices measures what this process may use of the machine: processors and host memory, as limited by its
// control group, and the sensors of accelerators, as their driver reports them. It decides whether a model fits the
// memory of the devices that it would go to. It only reads; the memory of accelerators isn't measured here but by the
// native library.
package devices

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

// Facts of the machine as this process may use it.
type Facts struct {
	CPUs int // processors to compute on, at least 1
	Host Memory
}

// Memory in bytes.
type Memory struct {
	Total   uint64 // the control group's limit, or the machine's memory
	Used    uint64 // without file cache that can be dropped
	Limited bool   // Total is a control group's limit
}

// Read returns the facts now.
func Read() (Facts, error) {
	root := os.DirFS("/")
	host, err := hostMemory(root)
	if err != nil {
		return Facts{}, err
	}
	return Facts{CPUs: cpus(root, runtime.NumCPU()), Host: host}, nil
}

// Host returns the memory now; cheap enough for once a second.
func Host() (Memory, error) { return hostMemory(os.DirFS("/")) }

// Free is what isn't used.
func (m Memory) Free() uint64 { return m.Total - min(m.Used, m.Total) }

// hostMemory takes the tightest control group's limit, else the machine's memory.
func hostMemory(root fs.FS) (Memory, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return Memory{}, fmt.Errorf("read memory size: %w", err)
	}
	machine, err := parseMeminfo(text)
	if err != nil {
		return Memory{}, fmt.Errorf("read memory size: %w", err)
	}
	best := machine
	for _, group := range processCgroups(root) {
		if m, ok := group.memory(root); ok && m.Total < best.Total {
			best = m
		}
	}
	return best, nil
}

// cpus is the number of processors that the process may run on, or of whole ones in its quota, whichever is smaller.
func cpus(root fs.FS, affinity int) int {
	n := max(1, affinity)
	for _, group := range processCgroups(root) {
		if q, ok := group.cpuQuota(root); ok {
			n = min(n, max(1, int(q)))
		}
	}
	return n
}
