//go:build llama

package llama

import (
	"os"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// A load measures what the first steps of requests are divided by: a part of a prompt, a token of all sequences, and
// one token.
func TestALoadMeasuresSteps(t *testing.T) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		t.Skip("SMOLLM2 names no model")
	}
	backend, _ := newBackend(t, nil)
	steps := loadFile(t, backend, path, func(s *models.BaseSpec) { s.Parallel = 8 }).MeasuredSteps()
	kinds := make(map[batch.MeasuredStep]float64)
	for _, s := range steps {
		took := s.Took
		s.Took = 0
		kinds[s] = took.Seconds()
	}
	t.Logf("measured %v", steps)
	for _, kind := range []batch.MeasuredStep{{Prompts: cpuDryRun}, {Decodes: 8}, {Decodes: 2}, {Decodes: 1}} {
		if kinds[kind] <= 0 {
			t.Errorf("measured %v, not %+v", steps, kind)
		}
	}
}
