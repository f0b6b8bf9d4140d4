package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// drainDelay is that of the base's configuration file.
const drainDelay = 5 * time.Second

// TestDeletionWithAStream deletes a pod while a stream runs, in both forms: the stream ends whole, later than the
// moment from which nothing new is served, what comes before that is served and told to take another connection, and
// the pod doesn't stay longer than the stream makes it.
func TestDeletionWithAStream(t *testing.T) {
	onCluster(t)
	for name, twoContainers := range map[string]bool{"sidecar": false, "two containers": true} {
		t.Run(name, func(t *testing.T) {
			d := deploy(t, "deletion-"+strings.ReplaceAll(name, " ", "-"), variant{
				replicas: 1, twoContainers: twoContainers, engine: map[string]string{"STEP_DELAY": "100ms"},
			})
			d.deleteWithAStream(t, name)
		})
	}
}

func (d *deployment) deleteWithAStream(t *testing.T, form string) {
	const goneWithin = 15 * time.Second // after the end of the stream
	old := d.onlyPod(t)
	url := "http://" + old.Status.PodIP + ":8000"
	want := d.mustAsk(t, storyRequest)
	client := newClient(true)
	if _, err := ask(t.Context(), client, url, apiKey, capitalRequest); err != nil {
		t.Fatal(err)
	}
	var deleted time.Time
	got, err := stream(t.Context(), url, storyRequest, 3, func() {
		d.kubectl(t, "delete", "pod", old.Metadata.Name, "--wait=false")
		deleted = time.Now()
		eventually(t, "a pod that was deleted isn't ready", drainDelay, func() error { return wantStatus(url+"/readyz", 503) })
		if err := servedForTheLastTime(t.Context(), client, url); err != nil {
			t.Errorf("a kept connection within DRAIN_DELAY: %v", err)
		}
	})
	ended := time.Now()
	if err != nil || got != want {
		t.Errorf("the stream of a pod that was deleted: %q, %v; want %q", got, err, want)
	}
	if lasted := ended.Sub(deleted); lasted < drainDelay {
		t.Errorf("the stream ended %v after the deletion: too soon to show anything", lasted)
	}
	statuses := d.lastStatuses(t, old.Metadata.Name, goneWithin)
	for _, name := range []string{proxyName, engineName} {
		if end := statuses.container(name).State.Terminated; end != nil && end.ExitCode != 0 {
			t.Errorf("%s ended with status %d, %s", name, end.ExitCode, end.Reason)
		}
	}
	record("a pod is deleted while a stream runs, "+form, fmt.Sprintf("whole; gone %v after it", goneWithin),
		"whole, %.1f s after the deletion; gone %.1f s after it", ended.Sub(deleted).Seconds(), time.Since(ended).Seconds())
}

// servedForTheLastTime asks on a kept connection, which the reply must end.
func servedForTheLastTime(ctx context.Context, client *http.Client, url string) error {
	response, err := post(ctx, client, url, apiKey, capitalRequest)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || !response.Close {
		return fmt.Errorf("status %d, Connection: close %v; want 200 and true", response.StatusCode, response.Close)
	}
	return nil
}

func wantStatus(url string, want int) error {
	client := newClient(false)
	client.Timeout = 5 * time.Second
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != want {
		return fmt.Errorf("%s: status %d, want %d", url, response.StatusCode, want)
	}
	return nil
}

// lastStatuses waits until a pod is gone and returns what was last seen of it.
func (d *deployment) lastStatuses(t *testing.T, name string, within time.Duration) (last pod) {
	t.Helper()
	eventually(t, "pod "+name+" is gone", within, func() error {
		out, err := kubectl(t.Context(), "", "-n", d.namespace, "get", "pod", name, "--ignore-not-found", "-o", "json")
		if err != nil || out == "" {
			return err
		}
		if err := json.Unmarshal([]byte(out), &last); err != nil {
			return err
		}
		return fmt.Errorf("it is in phase %s", last.Status.Phase)
	})
	return last
}

// TestRollOut replaces all pods under load. Nobody meets an error, on a kept connection or on a new one.
func TestRollOut(t *testing.T) {
	d := deploy(t, "roll-out", variant{replicas: 2, engine: map[string]string{"STEP_DELAY": "20ms"}})
	load := d.startLoad(t, capitalRequest, 4, 4)
	before := d.pods(t)
	began := time.Now()
	d.kubectl(t, "rollout", "restart", "deployment/llm-inference")
	d.rolledOut(t)
	took := time.Since(began)
	s := load.end()
	if s.failures() > 0 || s.answered == 0 {
		t.Errorf("clients of a Deployment that is rolled out: %v", s)
	}
	for _, old := range before {
		for _, p := range d.pods(t) {
			if p.Metadata.UID == old.Metadata.UID {
				t.Errorf("pod %s was never replaced", p.Metadata.Name)
			}
		}
	}
	record("a roll-out of two pods under load, kept and new connections", "no failed request", "%v; rolled out in %.1f s", s, took.Seconds())
}

// TestNodeDrain drains the node under load: the budget lets one pod go at a time, and the next only when there is
// another, for which the node must be opened again, since it is the only one. Nobody meets an error.
func TestNodeDrain(t *testing.T) {
	d := deploy(t, "node-drain", variant{replicas: 2, engine: map[string]string{"STEP_DELAY": "20ms"}})
	t.Cleanup(func() { mustKubectl(t, "uncordon", "node1") })
	load := d.startLoad(t, capitalRequest, 4, 4)
	before := d.pods(t)
	ctx, stop := context.WithTimeout(context.Background(), startTimeout)
	defer stop()
	drained := make(chan error, 1)
	go func() { // the test waits for its answer below, at the latest when its time is over
		_, err := kubectl(ctx, "", "drain", "node1", "--pod-selector", "app=llm-inference", "--delete-emptydir-data", "--force")
		drained <- err
	}()
	oneIsLeft := func() error {
		n := 0
		all, err := d.listPods()
		for _, p := range all {
			for _, old := range before {
				if p.Metadata.UID == old.Metadata.UID && p.ready() {
					n++
				}
			}
		}
		if err == nil && n != 1 {
			err = fmt.Errorf("%d of the old pods serve, want one", n)
		}
		return err
	}
	eventually(t, "the drain evicts a pod", startTimeout, oneIsLeft)
	// The budget is what keeps the other: the drain tries again every five seconds.
	select {
	case err := <-drained:
		t.Fatalf("the drain has ended with a pod left: %v", err)
	case <-time.After(3 * drainDelay):
	}
	if err := oneIsLeft(); err != nil {
		t.Errorf("while no other pod can start: %v", err)
	}
	mustKubectl(t, "uncordon", "node1")
	if err := <-drained; err != nil {
		t.Error(err)
	}
	d.rolledOut(t)
	s := load.end()
	if s.failures() > 0 || s.answered == 0 {
		t.Errorf("clients while the node is drained: %v", s)
	}
	record("the node is drained under load: two pods, a budget of one", "one at a time, no failed request", "%v", s)
}
