package pod

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	proxyName  = "inference-server"
	engineName = "engine"
	userID     = 10001
	commandEnd = time.Minute // bounds one command of podman
)

// podman runs one command of it.
func podman(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandEnd)
	defer cancel()
	var out, problems bytes.Buffer
	c := exec.CommandContext(ctx, "podman", args...)
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("podman %s: %w: %s", strings.Join(args, " "), err, problems.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func mustPodman(t *testing.T, args ...string) string {
	t.Helper()
	out, err := podman(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pod is one that runs.
type pod struct {
	t          *testing.T
	plan       plan
	url        string
	containers map[string]object // of the manifest, by name
}

// play starts a pod and waits until its startup and readiness probes pass.
func play(t *testing.T, p plan) *pod {
	t.Helper()
	p.port = freePort(t)
	containers, manifest, err := podOf(overlay(t), p)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), p.name+".yaml")
	if err := os.WriteFile(file, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &pod{t: t, plan: p, url: "http://127.0.0.1:" + strconv.Itoa(p.port), containers: map[string]object{}}
	for _, c := range containers {
		r.containers[c["name"].(string)] = c
	}
	t.Cleanup(r.remove)
	mustPodman(t, "kube", "play", "--network", os.Getenv("POD_NETWORK"), file)
	for name := range r.containers {
		r.await(t, "startup probe of "+name, time.Minute, func() error { return r.probe(name, "startupProbe") })
	}
	r.await(t, "readiness probe", time.Minute, func() error { return r.probe(proxyName, "readinessProbe") })
	return r
}

// remove shows the logs after a failure; the pod may be gone already.
func (r *pod) remove() {
	ctx := context.Background()
	for name := range r.containers {
		if r.t.Failed() {
			out, err := exec.Command("podman", "logs", "--tail", "60", r.container(name)).CombinedOutput()
			r.t.Logf("log of %s: %v\n%s", r.container(name), err, out)
		}
	}
	if _, err := podman(ctx, "pod", "rm", "-f", "-t", "0", r.plan.name); err != nil {
		r.t.Error(err)
	}
	for _, v := range []string{"socket", "tmp", "models"} {
		_, _ = podman(ctx, "volume", "rm", "-f", r.plan.name+"-"+v) // the overlay may have others
	}
}

// container is podman's name of a container.
func (r *pod) container(name string) string { return r.plan.name + "-" + name }

// probe does once what the kubelet does again and again. A probe that the manifest lacks is a failure.
func (r *pod) probe(container, kind string) error {
	p := at(r.containers[container], kind)
	if command, ok := at(p, "exec")["command"].([]any); ok {
		_, err := r.exec(container, command)
		return err
	}
	path, ok := at(p, "httpGet")["path"].(string)
	if !ok {
		return fmt.Errorf("container %s has no %s that can be run", container, kind)
	}
	res, err := http.Get(r.url + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("%s of %s: status %d", kind, container, res.StatusCode)
	}
	return nil
}

// exec runs a command of the manifest in a container.
func (r *pod) exec(container string, command []any) (string, error) {
	args := []string{"exec", r.container(container)}
	for _, a := range command {
		args = append(args, fmt.Sprint(a))
	}
	return podman(context.Background(), args...)
}

// preStop runs the hook of a container, when it has one.
func (r *pod) preStop(container string) error {
	command, ok := at(r.containers[container], "lifecycle", "preStop", "exec")["command"].([]any)
	if !ok {
		return nil
	}
	_, err := r.exec(container, command)
	return err
}

// exitCode waits until a container has ended.
func (r *pod) exitCode(t *testing.T, container string) int {
	t.Helper()
	code, err := strconv.Atoi(mustPodman(t, "wait", r.container(container)))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func (r *pod) await(t *testing.T, what string, within time.Duration, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s, for %v: %v", what, within, err)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// writeKeys makes a folder with one key, as the kubelet mounts a Secret for fsGroup: readable by the group only.
func writeKeys(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "keys.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "keys: [{name: demo, sha256: %x}]\n", sha256.Sum256([]byte(secret))), 0o440); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file} {
		if err := os.Chown(path, 0, userID); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	return dir
}
