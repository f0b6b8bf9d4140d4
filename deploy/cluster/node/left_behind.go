//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// machineSysctls are the settings of the machine that components would change, if they could.
func machineSysctls() map[string]string {
	values := map[string]string{}
	names := []string{"net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max", "net/bridge/bridge-nf-call-iptables"}
	for name := range maps.Keys(wantedSysctls) {
		names = append(names, name)
	}
	for _, name := range names {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", name)); err == nil { // not every kernel has all
			values[name] = strings.TrimSpace(string(value))
		}
	}
	return values
}

// leftBehind is what a node that has ended changed on its machine: nothing, unless the node has a fault.
func leftBehind(state string, before map[string]string) (left error) {
	for name, value := range machineSysctls() {
		if old, ok := before[name]; ok && old != value {
			left = errors.Join(left, fmt.Errorf("the node has changed %s from %s to %s", name, old, value))
		}
	}
	for _, name := range []string{"node0", "cni0"} {
		if _, err := os.Stat(filepath.Join("/sys/class/net", name)); err == nil {
			left = errors.Join(left, fmt.Errorf("the node has left its interface %s", name))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if left = errors.Join(left, err); strings.Contains(string(mounts), state) {
		left = errors.Join(left, fmt.Errorf("the node has left mounts in %s", state))
	}
	rules, err := exec.Command("iptables-save").Output()
	if left = errors.Join(left, err); strings.Contains(string(rules), "KUBE-") {
		left = errors.Join(left, errors.New("the node has left rules of iptables"))
	}
	return left
}
