//go:build llama

package e2e

import (
	"os"
	"strings"
	"sync"
	"testing"
)

// TestCapitalsAreRightAtConcurrency32 asks for all 194 capitals in all three versions, mixed, 32 at a time.
func TestCapitalsAreRightAtConcurrency32(t *testing.T) {
	raw, err := os.ReadFile("testdata/capitals.tsv")
	if err != nil {
		t.Fatal(err)
	}
	versions := []string{"v1.0", "v1.1", "v2.0"}
	type job struct{ prompt, version, want string }
	var jobs []job
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSpace(line), "\t")
		for i, v := range versions {
			jobs = append(jobs, job{fields[0], v, fields[1+i]})
		}
	}
	if len(jobs) != 3*194 {
		t.Fatalf("%d questions", len(jobs))
	}
	s := startServer(t)
	queue := make(chan job)
	var mu sync.Mutex
	right, wrong := map[string]int{}, map[string][]string{}
	var clients sync.WaitGroup
	for range 32 {
		clients.Go(func() {
			for j := range queue {
				a, err := s.infer(t.Context(), question(j.prompt, j.version))
				mu.Lock()
				switch {
				case err != nil || a.Status != 200:
					t.Errorf("%s in %s: %v %+v", j.prompt, j.version, err, a)
				case a.Result == j.want:
					right[j.version]++
				default:
					wrong[j.version] = append(wrong[j.version], j.prompt+" → "+a.Result)
				}
				mu.Unlock()
			}
		})
	}
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	clients.Wait()
	for v, atLeast := range map[string]int{"v1.0": 194, "v1.1": 194, "v2.0": 192} {
		t.Logf("%s: %d of 194 right; wrong: %q", v, right[v], wrong[v])
		if right[v] < atLeast {
			t.Errorf("%s: %d right, want at least %d", v, right[v], atLeast)
		}
	}
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	if n := scraped.sum("successful_inferences_total", "model", "demo"); n != float64(len(jobs)) {
		t.Errorf("%v successful inferences counted for %d answers", n, len(jobs))
	}
}
