package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// noProcessIsRoot checks every process of both containers. The container that holds the pod's network is podman's own.
func (p *pod) noProcessIsRoot(t *testing.T) {
	user := fmt.Sprint(userID)
	for name := range p.containers {
		for _, pid := range processIDs(t, p.containerName(name)) {
			status := procStatus(t, pid)
			for _, field := range []string{"Uid", "Gid"} {
				for id := range strings.FieldsSeq(status[field]) {
					if id != user {
						t.Errorf("%s: process %s (%s) has %s %s", name, pid, status["Name"], field, status[field])
					}
				}
			}
			if status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" || strings.Trim(status["CapBnd"], "0") != "" {
				t.Errorf("%s: process %s (%s) may gain privileges: NoNewPrivs %s, Seccomp %s, CapBnd %s",
					name, pid, status["Name"], status["NoNewPrivs"], status["Seccomp"], status["CapBnd"])
			}
		}
	}
}

// processIDs returns the processes of a container as the host sees them: those in its PID namespace.
func processIDs(t *testing.T, container string) (pids []string) {
	t.Helper()
	first := mustPodman(t, "inspect", "-f", "{{.State.Pid}}", container)
	namespace, err := os.Readlink("/proc/" + first + "/ns/pid")
	if err != nil {
		t.Fatalf("container %s: %v", container, err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == namespace {
			pids = append(pids, strings.Split(link, "/")[2])
		}
	}
	if len(pids) == 0 {
		t.Fatalf("container %s has no process", container)
	}
	return pids
}

func procStatus(t *testing.T, pid string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	return status
}

// rootsAreReadOnly tries to write where a program's own files are. Root on the host may write anywhere unless the mount
// forbids it.
func (p *pod) rootsAreReadOnly(t *testing.T) {
	for name := range p.containers {
		pids := processIDs(t, p.containerName(name))
		for _, dir := range []string{"/", "/etc", "/usr/local/bin"} {
			path := filepath.Join("/proc", pids[0], "root", dir, "written-by-a-test")
			f, err := os.Create(path)
			if err == nil {
				f.Close()
				os.Remove(path)
			}
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s: writing to %s: %v", name, dir, err)
			}
		}
	}
}
