package pod

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// TestTwoPodsShareALimit runs two pods and a real Redis, which they reach by name: together they admit exactly the
// limit. When Redis is gone each counts by itself, from the requests that it had admitted, and its metrics show that.
func TestTwoPodsShareALimit(t *testing.T) {
	overlayManifests(t) // skips
	const redis, limit = "tandem-redis", 8
	t.Cleanup(func() { _, _ = podman(context.Background(), "rm", "-f", "-t", "0", redis) })
	mustPodman(t, "run", "-d", "--name", redis, "--network", os.Getenv("POD_NETWORK"), "--read-only", os.Getenv("POD_REDIS_IMAGE"))
	settings := map[string]string{"RATE_LIMIT": fmt.Sprintf("%d/hour", limit), "RATE_LIMIT_STORE": "redis://" + redis + ":6379"}
	keys := writeKeyFolder(t)
	pods := []*pod{startPod(t, podConfig{name: "tandem-a", keys: keys, settings: settings}), startPod(t, podConfig{name: "tandem-b", keys: keys, settings: settings})}
	for _, p := range pods {
		p.eventually(t, "the store is up", 20*time.Second, func() error { return p.checkMetricAtLeast("llm_rate_limit_store_up", 1) })
	}
	if n := countAdmitted(t, pods, 2*limit); n != limit {
		t.Errorf("two pods with a store admit %d requests, want %d", n, limit)
	}
	mustPodman(t, "kill", "-s", "KILL", redis)
	if n := countAdmitted(t, pods, 2*limit); n != limit {
		t.Errorf("without the store they admit %d more, want %d: each its whole limit in all", n, limit)
	}
	for _, p := range pods {
		if err := p.checkMetricAtLeast("llm_rate_limit_store_up", 1); err == nil {
			t.Errorf("%s doesn't say that the store is away", p.config.name)
		}
		if err := p.checkMetricAtLeast("llm_rate_limit_store_up", 0); err != nil {
			t.Errorf("%s: %v", p.config.name, err)
		}
	}
}

// countAdmitted sends requests to all pods at once, the same number to each, and counts those that the limit admits.
func countAdmitted(t *testing.T, pods []*pod, each int) (n int) {
	t.Helper()
	var sent sync.WaitGroup
	statuses := make(chan int, each*len(pods))
	for _, p := range pods {
		for range each {
			sent.Go(func() {
				status, raw, err := p.request(t.Context(), http.MethodPost, "/infer", `{"prompt":"Hi","max_new_tokens":1}`)
				if err != nil || status != http.StatusOK && status != http.StatusTooManyRequests {
					t.Errorf("%s: status %d: %s, %v", p.config.name, status, raw, err)
				}
				statuses <- status
			})
		}
	}
	sent.Wait()
	close(statuses)
	for status := range statuses {
		if status == http.StatusOK {
			n++
		}
	}
	return n
}
