//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	nodeName    = "node1"
	nodeAddress = "10.250.0.1"
	podRange    = "10.244.0.0/24"
	cgroupName  = "tandem-cluster"
	cgroupRoot  = "/sys/fs/cgroup"
)

// wantedSysctls are those that a kubelet would set on the whole machine, in its own values. It reads files that are
// mounted in their place, finds everything as it wants it, and leaves the machine alone.
var wantedSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// ownMounts gives the node a /proc of its PID namespace, and memory wherever the components write outside the state
// folder. Nothing of it reaches the machine; what containers mount is shared inside, as kubelets need it.
func ownMounts(state string) error {
	mount := func(source, target, kind string, flags uintptr, data string) error {
		if err := syscall.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, target, err)
		}
		return nil
	}
	err := errors.Join(
		mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		mount("none", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""),
		mount("proc", "/proc", "proc", 0, ""),
		mount("tmpfs", "/run", "tmpfs", 0, "size=2g,mode=755"),
		mount("tmpfs", "/var/log", "tmpfs", 0, "size=256m,mode=755"),
		mount("tmpfs", "/var/lib", "tmpfs", 0, "size=256m,mode=755"),
	)
	if err != nil {
		return err
	}
	for _, folder := range []string{"/run/lock", "/run/netns"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	for name := range wantedSysctls {
		if err := mount(filepath.Join(state, "sysctl", name), filepath.Join("/proc/sys", name), "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	return syscall.Sethostname([]byte(nodeName))
}

// ownNetwork makes the interface that has the node's address. Nothing leads out of it, so no packet does.
func ownNetwork() error {
	for _, command := range []string{
		"ip link set lo up",
		"ip link add node0 type bridge",
		"ip address add " + nodeAddress + "/24 dev node0",
		"ip link set node0 up",
		"ip route add default dev node0", // kubelet and apiserver look for the interface that has it
	} {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// makeCgroups makes the node's group in every hierarchy and returns their folders.
func makeCgroups() (folders []string, err error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return nil, errors.New("this machine has cgroups of version 2 only, with which the node was never tried")
	}
	hierarchies, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for _, file := range hierarchies {
		hierarchy := filepath.Dir(file)
		folder := filepath.Join(hierarchy, cgroupName)
		folders = append(folders, folder)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return folders, fmt.Errorf("make a cgroup: %w", err)
		}
		if filepath.Base(hierarchy) == "unified" {
			continue // it has no controllers beside those of version 1
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} { // a new group has none
			value, err := os.ReadFile(filepath.Join(hierarchy, name))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err := errors.Join(err, os.WriteFile(filepath.Join(folder, name), value, 0)); err != nil {
				return folders, fmt.Errorf("give a cgroup its processors: %w", err)
			}
		}
	}
	return folders, nil
}

// removeCgroups removes the node's groups once the last of their processes, which was killed, is gone.
func removeCgroups(folders []string) error {
	var err error
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		err = nil
		for _, folder := range folders {
			err = errors.Join(err, removeCgroup(folder))
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func removeCgroup(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(folder, entry.Name())))
		}
	}
	if err != nil {
		return err
	}
	return os.Remove(folder) // the files in it are the kernel's
}
