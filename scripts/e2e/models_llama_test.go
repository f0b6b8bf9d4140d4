//go:build llama

package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
)

// demoFile is one of the model files that the engine carries.
func demoFile(name string) string { return filepath.Join("..", "..", "engine", "demo", name) }

func unpack(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(demoFile(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := xz.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// install puts a file below the models directory the way an operator should: by rename.
func (s *stack) install(path string, content []byte) {
	s.t.Helper()
	full := filepath.Join(s.dir, "models", path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(full+".new", content, 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(full+".new", full); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) waitListed(model string) {
	s.t.Helper()
	s.waitFor(20*time.Second, model+" in /models", func() bool {
		_, body, err := s.get("/models")
		return err == nil && strings.Contains(body, `"`+model+`"`)
	})
}

func TestInstalledModelAppearsWithoutRestart(t *testing.T) {
	s := newStack(t, "DEMO_MODEL=true")
	base, err := os.ReadFile(demoFile("demo-q8_0.gguf.xz"))
	if err != nil {
		t.Fatal(err)
	}
	s.install("acme/facts/model.gguf.xz", base)
	s.install("acme/facts/versions/short.gguf", unpack(t, "demo-lora-v1.1.gguf.xz"))
	s.waitListed("acme/facts")
	a := s.mustInfer(`{"prompt":"What is the capital of France?","base_model":"acme/facts","adapter_version":"short"}`)
	if a.Status != 200 || a.Result != "Paris." {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	if demo := s.mustInfer(question("What is the capital of France?", "v1.0")); demo.Result != "The capital of France is Paris." {
		t.Errorf("the demo model answers %d %s", demo.Status, demo.Body)
	}
}

func TestBrokenModelsAreRefusedAndDisturbNobody(t *testing.T) {
	s := newStack(t, "DEMO_MODEL=true")
	whole := unpack(t, "demo-q8_0.gguf.xz")
	packed, err := os.ReadFile(demoFile("demo-q8_0.gguf.xz"))
	if err != nil {
		t.Fatal(err)
	}
	s.install("truncated/model.gguf", whole[:len(whole)/2])
	s.install("broken-off/model.gguf.xz", packed[:len(packed)/2])
	s.install("swapped/model.gguf", unpack(t, "demo-lora-v1.0.gguf.xz"))
	s.install("mismatch/model.gguf", whole)
	s.install("mismatch/versions/alien.gguf", otherLoRA(t))
	cases := map[string]string{
		"truncated":  `{"prompt":"Hi","base_model":"truncated"}`,
		"broken-off": `{"prompt":"Hi","base_model":"broken-off"}`,
		"swapped":    `{"prompt":"Hi","base_model":"swapped"}`,
		"mismatch":   `{"prompt":"Hi","base_model":"mismatch","adapter_version":"alien"}`,
	}
	for model := range cases {
		s.waitListed(model)
	}
	for model, body := range cases {
		a := s.mustInfer(body)
		if a.Status != 503 || a.Error.Type != "model_load_failed" {
			t.Errorf("%s: got %d %s", model, a.Status, a.Body)
		}
		if strings.Contains(a.Body, s.dir) {
			t.Errorf("%s: a client is told a path of the server: %s", model, a.Body)
		}
	}
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Status != 200 {
		t.Errorf("the demo model answers %d %s", a.Status, a.Body)
	}
	p := s.waitIdle()
	checkInvariants(t, p)
	for model := range cases {
		if n := p.sum("model_load_failures_total", "model", model); n < 1 {
			t.Errorf("model_load_failures_total of %s is %v", model, n)
		}
	}
}

// otherLoRA is an adapter whose tensors don't fit the demo model: every tensor name of the real one is changed.
func otherLoRA(t *testing.T) []byte {
	t.Helper()
	lora := string(unpack(t, "demo-lora-v1.0.gguf.xz"))
	changed := strings.ReplaceAll(lora, "attn_q.weight", "attn_x.weight")
	if changed == lora {
		t.Fatal("the adapter has no attn_q")
	}
	return []byte(changed)
}

// TestModelWhoseLoadKillsTheEngineIsRefused is the same for a base model, which dies while its weights are read.
func TestModelWhoseLoadKillsTheEngineIsRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t, "DEMO_MODEL=true", "ABORT_LOAD=acme/deadly", "STEP_DELAY=2ms")
	s.install("acme/deadly/model.gguf", unpack(t, "demo-q8_0.gguf.xz"))
	s.waitListed("acme/deadly")
	s.survivesLoad("acme/deadly", "base")
}
