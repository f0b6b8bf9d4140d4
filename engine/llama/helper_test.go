//go:build llama

package llama

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/ulikunitz/xz"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// testExecutor stands in for the executor: one goroutine, locked to its thread, that runs the calls into the library.
type testExecutor struct {
	calls chan func()
	done  chan struct{}
}

func newTestExecutor(t testing.TB) *testExecutor {
	executor := &testExecutor{calls: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer close(executor.done)
		for call := range executor.calls {
			call()
		}
	}()
	t.Cleanup(func() {
		close(executor.calls)
		<-executor.done
	})
	return executor
}

func (e *testExecutor) do(ctx context.Context, call func() error) error {
	var err error
	ended := make(chan struct{})
	select {
	case e.calls <- func() { defer close(ended); err = call() }:
		<-ended
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is do without a context.
func (e *testExecutor) run(call func()) {
	_ = e.do(context.Background(), func() error { call(); return nil })
}

func backendDir(t testing.TB) string {
	dir := os.Getenv("BACKEND_DIR")
	if dir == "" {
		t.Fatal(`BACKEND_DIR isn't set; run: eval "$(scripts/build-llama.sh --env)"`)
	}
	return dir
}

func newBackend(t testing.TB, change func(*Options)) (*Backend, *testExecutor) {
	t.Helper()
	executor := newTestExecutor(t)
	o := Options{
		BackendDir: backendDir(t), OnDevice: executor.do, Logger: slog.New(slog.DiscardHandler), CacheBytes: 64 << 20,
		Device: testDevice(t), GPULayers: -1,
	}
	if change != nil {
		change(&o)
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, executor
}

var unpacked struct {
	once sync.Once
	dir  string
	err  error
}

// demoFile unpacks the embedded demo model's files once for the whole run.
func demoFile(t testing.TB, name string) string {
	t.Helper()
	unpacked.once.Do(func() {
		if unpacked.dir, unpacked.err = os.MkdirTemp("", "llama-test"); unpacked.err != nil {
			return
		}
		for _, file := range []string{"demo-q8_0.gguf", "demo-lora-v1.0.gguf", "demo-lora-v1.1.gguf", "demo-lora-v2.0.gguf"} {
			unpacked.err = errors.Join(unpacked.err, unpack(filepath.Join("..", "demo", file+".xz"), filepath.Join(unpacked.dir, file)))
		}
	})
	if unpacked.err != nil {
		t.Fatal(unpacked.err)
	}
	return filepath.Join(unpacked.dir, name)
}

func TestMain(m *testing.M) {
	dir, err := installTestGPU()
	if err != nil {
		fmt.Fprintln(os.Stderr, "install the test GPU:", err)
		os.Exit(1)
	}
	code := m.Run()
	for _, made := range []string{dir, unpacked.dir} {
		if made != "" {
			os.RemoveAll(made)
		}
	}
	os.Exit(code)
}

func unpack(from, to string) error {
	packed, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	r, err := xz.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o600)
}

func loadFile(t testing.TB, b *Backend, path string, change func(*models.BaseSpec)) *Base {
	t.Helper()
	spec := models.BaseSpec{Name: "demo", Path: path, Parallel: 8}
	if change != nil {
		change(&spec)
	}
	loaded, err := b.LoadBase(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	base := loaded.(*Base)
	t.Cleanup(func() { base.Close() })
	return base
}

// loadDemo returns the demo model with eight sequences.
func loadDemo(t testing.TB, change func(*models.BaseSpec)) (*Base, *testExecutor) {
	t.Helper()
	b, executor := newBackend(t, nil)
	return loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), change), executor
}

func loadVersion(t testing.TB, base *Base, version string) *Adapter {
	t.Helper()
	a, err := base.LoadAdapter(t.Context(), models.AdapterSpec{Name: version, Path: demoFile(t, "demo-lora-"+version+".gguf")})
	if err != nil {
		t.Fatal(err)
	}
	return a.(*Adapter)
}

func render(t testing.TB, base *Base, prompt string) []batch.Token {
	t.Helper()
	p, err := base.Render(t.Context(), models.Input{Prompt: prompt})
	if err != nil {
		t.Fatal(err)
	}
	return p.Tokens
}

// generate is the simplest scheduler: one sequence, the prompt at once, then token by token.
func generate(base *Base, executor *testExecutor, adapter batch.Adapter, seq int, prompt []batch.Token, sampling batch.Sampling, most int) (text string, tokens []batch.Token, err error) {
	sampler, err := base.NewSampler(sampling, prompt, nil)
	if err != nil {
		return "", nil, err
	}
	defer sampler.Close()
	defer executor.run(func() { base.Truncate(seq, 0) })
	next, start := prompt, 0
	for index := 0; index < most; {
		var drawn []batch.Token
		if sampler.Constrained() {
			if drawn, err = sampler.Advance(most - index); err != nil {
				return text, tokens, err
			}
		}
		s := []batch.Slice{{Seq: seq, Adapter: adapter, Start: start, Tokens: next, Sampler: sampler, Index: index}}
		executor.run(func() { err = base.Step(s) })
		if err = errors.Join(err, s[0].Err); err != nil {
			return text, tokens, err
		}
		start += len(next)
		if len(drawn) == 0 {
			draw := s[0].Draw
			if sampler.Constrained() {
				if draw, err = sampler.Draw(index); err != nil {
					return text, tokens, err
				}
			}
			drawn = []batch.Token{draw.Token}
		}
		next = drawn
		for _, token := range drawn {
			tokens = append(tokens, token)
			if index++; base.IsEnd(token) {
				return text, tokens, nil
			}
			text += string(base.Piece(token))
		}
	}
	return text, tokens, nil
}
