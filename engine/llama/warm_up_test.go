//go:build llama

package llama

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/scripts/models/tinybert"
)

// phaseWatch looks at an executor's heartbeat all the time and notes its phases, and whether it counted as hung in
// them.
type phaseWatch struct {
	mu   sync.Mutex
	hung map[batch.Phase]bool // guarded by mu
}

func watchPhases(t *testing.T, e *batch.Executor) *phaseWatch {
	t.Helper()
	w := &phaseWatch{hung: make(map[batch.Phase]bool)}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTicker(2 * time.Millisecond)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				b := e.Heartbeat()
				w.mu.Lock()
				w.hung[b.Phase] = w.hung[b.Phase] || b.Age > b.Budget
				w.mu.Unlock()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
	return w
}

// take returns the phases seen since the last take.
func (w *phaseWatch) take() map[batch.Phase]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.hung
	w.hung = make(map[batch.Phase]bool)
	return seen
}

// loadOnSlowGPU loads a model while each computation takes longer than a step may, and checks that this is no hang.
func loadOnSlowGPU(t *testing.T, path string) (*batch.Executor, *Base, *phaseWatch) {
	t.Helper()
	gpuBackend(t, DeviceCPU, nil) // skips without a test GPU
	executor := batch.NewExecutor(batch.Options{StallFloor: time.Second})
	t.Cleanup(func() { executor.Close(context.Background()) })
	b, err := New(Options{
		BackendDir: backendDir(t), OnDevice: executor.Do, OnTurn: executor.TakeTurn, Logger: slog.New(slog.DiscardHandler),
		CacheBytes: 64 << 20, Device: "TestGPU0", GPULayers: -1, DeviceSampling: DeviceSamplingOff,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	watch := watchPhases(t, executor)

	setFaults(t, "slow 1100")
	var phases []string
	base, err := b.LoadBase(t.Context(), models.BaseSpec{Name: "demo", Path: path, Parallel: 8}, func(p models.Progress) {
		phases = append(phases, p.Phase)
	})
	if err != nil {
		t.Fatal(err)
	}
	setFaults(t, "")
	t.Cleanup(func() { base.Close() })
	if hung, there := watch.take()[batch.PhaseCall]; hung || !there {
		t.Errorf("a load whose steps take longer than a step may: hung %v, seen %v", hung, there)
	}
	if want := "warm-up"; !slices.Contains(phases, want) {
		t.Errorf("phases of the load: %v, without %s", phases, want)
	}
	return executor, base.(*Base), watch
}

// Kernels that a device compiles make a load slow, and the first steps of a kind that the load couldn't try. Both have
// the time of a call; steps like those before don't.
func TestSlowFirstStepsOnAGPU(t *testing.T) {
	executor, base, watch := loadOnSlowGPU(t, demoFile(t, "demo-q8_0.gguf"))
	s := &servedBase{t: t, executor: executor, base: base}
	s.attach()
	version := loadVersion(t, s.base, "v1.0")
	answer := func(adapter batch.Adapter) (first, others bool) {
		s.forgetPrompts()
		watch.take()
		setFaults(t, "slow 300") // so that the watch sees each step, on a busy machine too
		defer setFaults(t, "")
		s.start(render(t, s.base, france), 3, greedy, func(r *batch.Request) { r.Adapter = adapter }).wait(t)
		seen := watch.take()
		_, first = seen[batch.PhaseFirstStep]
		_, others = seen[batch.PhaseStep]
		return first, others
	}
	answer(nil)
	if first, others := answer(nil); first || !others {
		t.Errorf("an answer like the one before: first of a kind %v, others %v", first, others)
	}
	if first, _ := answer(version); !first {
		t.Error("the first answer of a version has no step that is the first of its kind")
	}
	if first, others := answer(version); first || !others {
		t.Errorf("an answer like the first one of a version: first of a kind %v, others %v", first, others)
	}
}

// So it is with texts: an encoder's load computes a full pass, a decoder's first text makes its context and has that
// computed, and passes of other sizes have the time of a call when they come first.
func TestSlowFirstTextsOnAGPU(t *testing.T) {
	encoder := filepath.Join(t.TempDir(), "bert.gguf")
	if err := os.WriteFile(encoder, tinybert.New(tinybert.PoolingMean, 7).GGUF(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"encoder": encoder, "decoder": demoFile(t, "demo-q8_0.gguf")} {
		t.Run(name, func(t *testing.T) {
			_, base, watch := loadOnSlowGPU(t, path)
			embed := func(tokens int, faults string) map[batch.Phase]bool {
				watch.take()
				setFaults(t, faults)
				defer setFaults(t, "")
				if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, make([]batch.Token, tokens)); err != nil {
					t.Fatal(err)
				}
				return watch.take()
			}
			if name == "decoder" {
				if hung, there := embed(4, "slow 1100")[batch.PhaseCall]; hung || !there {
					t.Errorf("the first text of a decoder: hung %v, in a call %v", hung, there)
				}
			}
			if _, first := embed(4, "slow 30")[batch.PhaseFirstStep]; first {
				t.Error("a short text, as the load computed one, is the first of its kind")
			}
			if hung, first := embed(20, "slow 1100")[batch.PhaseFirstStep]; hung || !first {
				t.Errorf("a text of another length: hung %v, first of its kind %v", hung, first)
			}
			if _, first := embed(21, "slow 30")[batch.PhaseFirstStep]; first {
				t.Error("a text of about that length is the first of its kind")
			}
			if kind := newStepKind(base.embed.stepTokens, false); !base.embed.computedKinds[kind] {
				t.Errorf("no full pass of %d tokens was computed, only %v", base.embed.stepTokens, base.embed.computedKinds)
			}
		})
	}
}
