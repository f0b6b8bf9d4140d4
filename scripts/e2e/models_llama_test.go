//go:build llama

package e2e

import (
	"bytes"
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
	reasons := map[string]string{
		"truncated": "model.gguf: bad GGUF file", "broken-off": "model.gguf.xz", "swapped": "belongs into versions/", "mismatch": "does not exist in base model",
	}
	for model := range cases {
		s.waitListed(model)
	}
	for model, body := range cases {
		a := s.mustInfer(body)
		if a.Status != 503 || a.Error.Type != "model_load_failed" || !strings.Contains(a.Error.Message, reasons[model]) {
			t.Errorf("%s: got %d %s, want it to say %q", model, a.Status, a.Body, reasons[model])
		}
		if after := a.Header.Get("Retry-After"); after != "" {
			t.Errorf("%s: a client is told that its file is well in %s s", model, after)
		}
		if strings.Contains(a.Body, s.dir) {
			t.Errorf("%s: a client is told a path of the server: %s", model, a.Body)
		}
	}
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Status != 200 {
		t.Errorf("the demo model answers %d %s", a.Status, a.Body)
	}
	if _, list, err := s.get("/models"); err != nil || strings.Count(list, `"problems":{`) != len(cases) || !strings.Contains(list, `"alien":"`) {
		t.Errorf("%v, /models doesn't mark what is broken: %s", err, list)
	}
	p := s.waitIdle()
	checkInvariants(t, p)
	for model := range cases {
		if n := p.sum("model_load_failures_total", "model", model); n < 1 {
			t.Errorf("model_load_failures_total of %s is %v", model, n)
		}
	}
}

// A model as people have it: downloaded under its own name into a cache made of links, and the only one.
func TestALinkedDownloadIsTheDefaultModel(t *testing.T) {
	t.Parallel()
	s := prepareStack(t)
	cache := t.TempDir()
	blob := filepath.Join(cache, "blobs", "c06d2dd2")
	snapshot := filepath.Join(cache, "snapshots", "1")
	for _, dir := range []string{filepath.Dir(blob), snapshot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	whole := unpack(t, "demo-q8_0.gguf.xz")
	for _, err := range []error{
		os.WriteFile(blob, whole, 0o644),
		os.Symlink("../../blobs/c06d2dd2", filepath.Join(snapshot, "Facts-1M-Q8_0.gguf")),
		os.Mkdir(filepath.Join(s.dir, "models", "acme"), 0o755),
		os.Symlink(snapshot, filepath.Join(s.dir, "models", "acme", "facts")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.startProxy()
	s.startEngine()
	s.waitReady(60 * time.Second)
	s.waitListed("acme/facts")
	a := s.mustInfer(`{"prompt":"What is the capital of France?"}`)
	if a.Status != 200 || a.Metadata.Model != "acme/facts" || a.Metadata.Version != "base" {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
}

// A default model that can't be loaded is no reason to send traffic; that ends when it is mended, without a restart or a request.
func TestReadinessFollowsTheDefaultModel(t *testing.T) {
	t.Parallel()
	s := prepareStack(t, "DEFAULT_MODEL=acme/facts")
	whole := unpack(t, "demo-q8_0.gguf.xz")
	from, to := []byte("{%- for"), []byte("{%+ oof") // the template doesn't parse any more
	broken := bytes.Replace(whole, from, to, 1)
	if bytes.Equal(broken, whole) {
		from, to = []byte("{% for"), []byte("{% oof")
		broken = bytes.Replace(whole, from, to, 1)
	}
	if bytes.Equal(broken, whole) {
		t.Fatal("the demo model's template has no loop")
	}
	s.install("acme/facts/model.gguf", broken)
	s.startProxy()
	s.startEngine()
	body := ""
	s.waitFor(60*time.Second, "a reason why it isn't ready", func() bool {
		var status int
		status, body, _ = s.get("/readyz")
		return status == 503 && strings.Contains(body, "chat template")
	})
	if !strings.Contains(body, "acme/facts") {
		t.Errorf("/readyz: %s", body)
	}
	a := s.mustInfer(`{"prompt":"Hi"}`)
	if a.Status != 503 || a.Error.Type != "model_load_failed" || !strings.Contains(a.Error.Message, "chat template") || a.Header.Get("Retry-After") != "" {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	s.install("acme/facts/model.gguf", whole)
	s.waitReady(60 * time.Second)
	s.waitFor(20*time.Second, "the mended model in the cache", func() bool {
		_, body, err := s.get("/status")
		return err == nil && strings.Contains(body, `"loaded":true`)
	})
	if a := s.mustInfer(`{"prompt":"Hi"}`); a.Status != 200 {
		t.Errorf("mended: %d %s", a.Status, a.Body)
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
