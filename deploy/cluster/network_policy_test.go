package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// listenOn is the environment variable that makes this program listen on an address instead of testing: in the network
// of a pod, which has no program that could.
const listenOn = "CLUSTER_LISTEN"

func listen(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// peer is a process whose network is that of a pod.
type peer struct {
	pid     int
	address string
}

// startPeer makes a pod that does nothing.
func startPeer(t *testing.T, namespace, name, app string) peer {
	t.Helper()
	manifest, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name, "namespace": namespace, "labels": map[string]any{"app": app}},
		"spec": map[string]any{
			"automountServiceAccountToken": false,
			"securityContext":              map[string]any{"runAsNonRoot": true, "runAsUser": 65535, "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
			"containers": []any{map[string]any{"name": "pause", "image": "localhost/pause:1", "securityContext": map[string]any{
				"allowPrivilegeEscalation": false, "capabilities": map[string]any{"drop": []string{"ALL"}},
			}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	// A new namespace gets its service account late.
	eventually(t, "pod "+name+" is admitted", commandTimeout, func() error {
		_, err := kubectl(t.Context(), string(manifest), "apply", "-f", "-")
		return err
	})
	mustKubectl(t, "-n", namespace, "wait", "--for", "condition=Ready", "pod/"+name, "--timeout", startTimeout.String())
	var p pod
	if err := json.Unmarshal([]byte(mustKubectl(t, "-n", namespace, "get", "pod", name, "-o", "json")), &p); err != nil {
		t.Fatal(err)
	}
	return peer{p.process(t, "/pause"), p.Status.PodIP}
}

// inside is a command in the peer's network.
func (p peer) inside(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(p.pid), "-n", name}, args...)...)
}

func (p peer) listen(t *testing.T, port int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	listener := p.inside(self)
	listener.Env = append(os.Environ(), fmt.Sprintf("%s=:%d", listenOn, port))
	if err := listener.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = listener.Process.Kill()
		_ = listener.Wait()
	})
	eventually(t, "a pod listens", 10*time.Second, func() error { return p.connect("127.0.0.1", port) })
}

func (p peer) connect(address string, port int) error {
	if out, err := p.inside("timeout", "2", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", address, port)).CombinedOutput(); err != nil {
		return fmt.Errorf("%s:%d: %w: %s", address, port, err, out)
	}
	return nil
}

// TestNetworkPolicy connects from and to the pods as the policy allows and forbids it. What is forbidden is allowed
// between the same peers without the policy's pods.
func TestNetworkPolicy(t *testing.T) {
	onCluster(t)
	for _, namespace := range []string{"monitoring", "elsewhere"} {
		mustKubectl(t, "create", "namespace", namespace)
		t.Cleanup(func() { mustKubectl(t, "delete", "namespace", namespace, "--wait=false") })
	}
	d := deploy(t, "policy", variant{replicas: 1, components: []string{"network-policy"}})
	own := d.onlyPod(t)
	ours := peer{own.process(t, supervisorCommand...), own.Status.PodIP}
	neighbour := startPeer(t, d.namespace, "neighbour", "neighbour")
	redis := startPeer(t, d.namespace, "redis", "redis")
	monitoring := startPeer(t, "monitoring", "collector", "collector")
	elsewhere := startPeer(t, "elsewhere", "elsewhere", "redis")
	for listener, ports := range map[peer][]int{neighbour: {6379}, redis: {6379, 6380}, monitoring: {4318, 4319}, elsewhere: {6379, 4318}} {
		for _, port := range ports {
			listener.listen(t, port)
		}
	}
	cases := []struct {
		what     string
		from, to peer
		port     int
		allowed  bool
	}{
		{"from elsewhere to the proxy", elsewhere, ours, 8000, false}, // first, since it shows that the rules are there
		{"from the namespace to the proxy", neighbour, ours, 8000, true},
		{"from monitoring to the proxy", monitoring, ours, 8000, true},
		{"to Redis", ours, redis, 6379, true},
		{"to another port of Redis", ours, redis, 6380, false},
		{"to another pod of the namespace", ours, neighbour, 6379, false},
		{"to a Redis elsewhere", ours, elsewhere, 6379, false},
		{"to the collector of traces", ours, monitoring, 4318, true},
		{"to another port of monitoring", ours, monitoring, 4319, false},
		{"to a collector elsewhere", ours, elsewhere, 4318, false},
		{"between others", neighbour, elsewhere, 6379, true},
		{"between others, another port", elsewhere, redis, 6380, true},
		{"between others, from monitoring", elsewhere, monitoring, 4319, true},
	}
	for _, c := range cases {
		eventually(t, fmt.Sprintf("%s: allowed is %v", c.what, c.allowed), 30*time.Second, func() error {
			if err := c.from.connect(c.to.address, c.port); (err == nil) != c.allowed {
				return fmt.Errorf("connected: %v", err)
			}
			return nil
		})
	}
	record("the NetworkPolicy, in and out", fmt.Sprintf("%d connections as it says", len(cases)), "all")
}
