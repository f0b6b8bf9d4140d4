package pod

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/scripts/await"
	"tandem/scripts/launch"
)

const (
	proxyName      = "inference-server"
	engineName     = "engine"
	userID         = 10001
	commandTimeout = time.Minute // of one podman command
)

// podman runs a podman command and returns its output.
func podman(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
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

// pod is a running pod.
type pod struct {
	t          *testing.T
	config     podConfig
	url        string
	containers map[string]object // of the manifest, by name
}

// startPod starts a pod and waits until its startup and readiness probes pass.
func startPod(t *testing.T, config podConfig) *pod {
	t.Helper()
	config.port = launch.FreePort(t)
	containers, manifest, err := podManifest(overlayManifests(t), config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), config.name+".yaml")
	if err := os.WriteFile(file, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &pod{t: t, config: config, url: "http://127.0.0.1:" + strconv.Itoa(config.port), containers: map[string]object{}}
	for _, c := range containers {
		p.containers[c["name"].(string)] = c
	}
	t.Cleanup(p.removePod)
	mustPodman(t, "kube", "play", "--network", os.Getenv("POD_NETWORK"), file)
	for name := range p.containers {
		p.eventually(t, "startup probe of "+name, time.Minute, func() error { return p.probe(name, "startupProbe") })
	}
	p.eventually(t, "readiness probe", time.Minute, func() error { return p.probe(proxyName, "readinessProbe") })
	return p
}

// removePod removes the pod, which may be gone already. After a failure it shows the logs first.
func (p *pod) removePod() {
	ctx := context.Background()
	for name := range p.containers {
		if p.t.Failed() {
			out, err := exec.Command("podman", "logs", "--tail", "60", p.containerName(name)).CombinedOutput()
			p.t.Logf("log of %s: %v\n%s", p.containerName(name), err, out)
		}
	}
	if _, err := podman(ctx, "pod", "rm", "-f", "-t", "0", p.config.name); err != nil {
		p.t.Error(err)
	}
	for _, v := range []string{"socket", "tmp", "models"} {
		_, _ = podman(ctx, "volume", "rm", "-f", p.config.name+"-"+v) // the overlay may have others
	}
}

// containerName is podman's name for a container of the pod.
func (p *pod) containerName(name string) string { return p.config.name + "-" + name }

// probe runs a probe of the manifest once, as the kubelet does again and again. A missing probe is an error.
func (p *pod) probe(container, kind string) error {
	probe := field(p.containers[container], kind)
	if command, ok := field(probe, "exec")["command"].([]any); ok {
		_, err := p.exec(container, command)
		return err
	}
	path, ok := field(probe, "httpGet")["path"].(string)
	if !ok {
		return fmt.Errorf("container %s has no %s that can be run", container, kind)
	}
	res, err := http.Get(p.url + path)
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
func (p *pod) exec(container string, command []any) (string, error) {
	args := []string{"exec", p.containerName(container)}
	for _, a := range command {
		args = append(args, fmt.Sprint(a))
	}
	return podman(context.Background(), args...)
}

// preStop runs the preStop hook of a container that has one.
func (p *pod) preStop(container string) error {
	command, ok := field(p.containers[container], "lifecycle", "preStop", "exec")["command"].([]any)
	if !ok {
		return nil
	}
	_, err := p.exec(container, command)
	return err
}

// exitCode waits until a container has ended and returns its exit code.
func (p *pod) exitCode(t *testing.T, container string) int {
	t.Helper()
	code, err := strconv.Atoi(mustPodman(t, "wait", p.containerName(container)))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// eventually polls until try returns nil and fails the test with its last error when it doesn't in time.
func (p *pod) eventually(t *testing.T, what string, within time.Duration, try func() error) {
	t.Helper()
	var err error
	if !await.Every(50*time.Millisecond, within, func() bool { err = try(); return err == nil }) {
		t.Fatalf("%s, for %v: %v", what, within, err)
	}
}

// writeKeyFolder makes a folder with a key file, as the kubelet mounts a Secret for fsGroup: readable by the group
// only.
func writeKeyFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "keys.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "keys: [{name: demo, sha256: %x}]\n", sha256.Sum256([]byte(apiKey))), 0o440); err != nil {
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
