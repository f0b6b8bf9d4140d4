package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tandem/scripts/await"
)

// commandTimeout is for one command that doesn't wait for pods.
const commandTimeout = time.Minute

// onCluster skips a test where there is no cluster.
func onCluster(t *testing.T) {
	t.Helper()
	if os.Getenv("CLUSTER") == "" {
		t.Skip("needs a cluster: scripts/test-cluster.sh")
	}
}

// kubectl runs a command of it, with input on its standard input unless that is empty.
func kubectl(ctx context.Context, input string, args ...string) (string, error) {
	var out, problems bytes.Buffer
	c := exec.CommandContext(ctx, "kubectl", args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &out, &problems
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, problems.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// mustKubectl runs a command that doesn't wait for pods, or says itself how long it waits.
func mustKubectl(t *testing.T, args ...string) string {
	t.Helper()
	return mustKubectlWith(t, "", args...)
}

func mustKubectlWith(t *testing.T, input string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout+commandTimeout)
	defer cancel()
	out, err := kubectl(ctx, input, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pod is what the tests read of a pod.
type pod struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp string
	}
	Status struct {
		Phase                 string
		PodIP                 string
		Conditions            []struct{ Type, Status string }
		ContainerStatuses     []container
		InitContainerStatuses []container
	}
}

type container struct {
	Name         string
	Ready        bool
	RestartCount int
	State        struct {
		Terminated *struct {
			ExitCode int
			Reason   string
		}
	}
}

func (p pod) ready() bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True"
		}
	}
	return false
}

// container is the state of a container of the pod, a sidecar's too.
func (p pod) container(name string) container {
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if c.Name == name {
			return c
		}
	}
	return container{}
}

// listPods returns the deployment's pods that aren't on their way out, in the order of their names.
func (d *deployment) listPods() (alive []pod, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	var list struct{ Items []pod }
	out, err := kubectl(ctx, "", "-n", d.namespace, "get", "pods", "-l", "app=llm-inference", "-o", "json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			alive = append(alive, p)
		}
	}
	return alive, nil
}

func (d *deployment) pods(t *testing.T) []pod {
	t.Helper()
	all, err := d.listPods()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// onlyPod is the pod of a deployment with one replica.
func (d *deployment) onlyPod(t *testing.T) pod {
	t.Helper()
	all := d.pods(t)
	if len(all) != 1 {
		t.Fatalf("%s has %d pods, want one", d.namespace, len(all))
	}
	return all[0]
}

// kubectl runs a command in the deployment's namespace.
func (d *deployment) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return mustKubectl(t, append([]string{"-n", d.namespace}, args...)...)
}

// eventually polls until try returns nil, and fails the test with its last error when it doesn't in time. It returns
// how long that took.
func eventually(t *testing.T, what string, within time.Duration, try func() error) time.Duration {
	t.Helper()
	began := time.Now()
	var err error
	if !await.Every(200*time.Millisecond, within, func() bool { err = try(); return err == nil }) {
		t.Fatalf("%s, for %v: %v", what, within, err)
	}
	return time.Since(began)
}
