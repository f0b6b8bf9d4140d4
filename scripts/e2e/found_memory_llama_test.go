//go:build llama

package e2e

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
)

// kvCells is how many cells the loaded model has, by /status.
func (s *testServer) kvCells() int {
	s.t.Helper()
	_, body, err := s.get("/status")
	var status struct {
		Memory []struct {
			Cells int `json:"kv_cells"`
		} `json:"model_memory"`
	}
	if err != nil || json.Unmarshal([]byte(body), &status) != nil || len(status.Memory) != 1 {
		s.t.Fatalf("/status: %v, %s", err, body)
	}
	return status.Memory[0].Cells
}

// The memory of an engine that was killed comes back a while after the next one began. It has the same cache all the
// same, and goes on with the answer.
func TestTheCacheIsAsBeforeWhenMemoryComesLate(t *testing.T) {
	gpu, settings := newTestGPU(t)
	gpu.set("slow 10")
	s := startServer(t, append(settings, "DEVICE=testgpu", "TESTGPU_MEMORY=64", "PARALLEL=64")...)
	tell := func(atTenth func()) string {
		text, tokens := "", 0
		status, err := s.stream(t.Context(), `{"prompt":"Tell me a story.","base_model":"demo","max_new_tokens":60,"seed":7,"stream":true}`, func(e event) bool {
			text += textOf(e)
			if tokens++; tokens == 10 {
				atTenth()
			}
			return true
		})
		if err != nil || status != 200 {
			t.Errorf("the story: %d, %v", status, err)
		}
		return text
	}
	whole, before := tell(func() {}), s.kvCells()
	again := tell(func() {
		gpu.set("slow 10 taken 40")
		s.signalEngine(syscall.SIGKILL)
		s.waitFor(failureLimit, "a load that waits", func() bool { return strings.Contains(s.engine.log.String(), "a load waits for memory") })
		gpu.set("slow 10")
	})
	if again != whole || whole == "" {
		t.Errorf("before\n%q, over the restart\n%q", whole, again)
	}
	if after := s.kvCells(); after != before {
		t.Errorf("%d cells, before %d", after, before)
	}
}
