//go:build llama

package e2e

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/ulikunitz/xz"
)

// demoFile is the path of a model file that the engine embeds.
func demoFile(name string) string { return filepath.Join("..", "..", "engine", "demo", name) }

func unpackDemoFile(t *testing.T, name string) []byte {
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

// installModelFile puts a file below the models directory the way an operator should: by rename.
func (s *testServer) installModelFile(path string, content []byte) {
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

// waitListed waits for models and versions. Each file is found by itself, a version perhaps later than its model.
func (s *testServer) waitListed(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.waitFor(failureLimit, name+" in /models", func() bool {
			_, body, err := s.get("/models")
			return err == nil && strings.Contains(body, `"`+name+`"`)
		})
	}
}

func TestInstalledModelAppearsWithoutRestart(t *testing.T) {
	s := startServer(t, "DEMO_MODEL=true")
	base, err := os.ReadFile(demoFile("demo-q8_0.gguf.xz"))
	if err != nil {
		t.Fatal(err)
	}
	s.installModelFile("acme/facts/model.gguf.xz", base)
	s.installModelFile("acme/facts/versions/short.gguf", unpackDemoFile(t, "demo-lora-v1.1.gguf.xz"))
	s.waitListed("acme/facts", "short")
	a := s.mustInfer(`{"prompt":"What is the capital of France?","base_model":"acme/facts","adapter_version":"short"}`)
	if a.Status != 200 || a.Result != "Paris." {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	if demo := s.mustInfer(question("What is the capital of France?", "v1.0")); demo.Result != "The capital of France is Paris." {
		t.Errorf("the demo model answers %d %s", demo.Status, demo.Body)
	}
}

func TestBrokenModelsAreRefusedAndDisturbNobody(t *testing.T) {
	s := startServer(t, "DEMO_MODEL=true")
	intact := unpackDemoFile(t, "demo-q8_0.gguf.xz")
	packed, err := os.ReadFile(demoFile("demo-q8_0.gguf.xz"))
	if err != nil {
		t.Fatal(err)
	}
	s.installModelFile("truncated/model.gguf", intact[:len(intact)/2])
	s.installModelFile("broken-off/model.gguf.xz", packed[:len(packed)/2])
	s.installModelFile("swapped/model.gguf", unpackDemoFile(t, "demo-lora-v1.0.gguf.xz"))
	s.installModelFile("mismatch/model.gguf", intact)
	s.installModelFile("mismatch/versions/alien.gguf", mismatchedLoRA(t))
	cases := map[string]string{
		"truncated":  `{"prompt":"Hi","base_model":"truncated"}`,
		"broken-off": `{"prompt":"Hi","base_model":"broken-off"}`,
		"swapped":    `{"prompt":"Hi","base_model":"swapped"}`,
		"mismatch":   `{"prompt":"Hi","base_model":"mismatch","adapter_version":"alien"}`,
	}
	reasons := map[string]string{
		"truncated": "model.gguf: bad GGUF file", "broken-off": "model.gguf.xz", "swapped": "belongs into versions/", "mismatch": "does not exist in base model",
	}
	s.waitListed(slices.Collect(maps.Keys(cases))...)
	s.waitListed("alien")
	for model, body := range cases {
		a := s.mustInfer(body)
		if a.Status != 404 || a.Error.Type != "model_broken" || !strings.Contains(a.Error.Message, reasons[model]) {
			t.Errorf("%s: got %d %s, want it to say %q", model, a.Status, a.Body, reasons[model])
		}
		if after := a.Header.Get("Retry-After"); after != "" {
			t.Errorf("%s: a client is told that its file is well in %s s", model, after)
		}
		if strings.Contains(a.Body, s.dir) {
			t.Errorf("%s: a client is told a path of the server: %s", model, a.Body)
		}
	}
	s.checkAskedOnce("truncated")
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Status != 200 {
		t.Errorf("the demo model answers %d %s", a.Status, a.Body)
	}
	if _, list, err := s.get("/models"); err != nil || strings.Count(list, `"problems":{`) != len(cases) || !strings.Contains(list, `"alien":"`) {
		t.Errorf("%v, /models doesn't mark what is broken: %s", err, list)
	}
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	for model := range cases {
		if n := scraped.sum("model_load_failures_total", "model", model); n < 1 {
			t.Errorf("model_load_failures_total of %s is %v", model, n)
		}
	}
}

// checkAskedOnce asks for a broken model with OpenAI's library, which repeats what has 503, and counts.
func (s *testServer) checkAskedOnce(model string) {
	s.t.Helper()
	asked := 0
	client := s.openAIClient(option.WithMaxRetries(2), option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		asked++
		return next(r)
	}))
	params := capitalQuestion()
	params.Model = model
	_, err := client.Chat.Completions.New(s.t.Context(), params)
	if refused, ok := errors.AsType[*openai.Error](err); !ok || refused.StatusCode != 404 || asked != 1 {
		s.t.Errorf("%s is asked for %d times: %v", model, asked, err)
	}
}

// A model as people have it: downloaded under its own name into a cache of symbolic links, and the only one.
func TestALinkedDownloadIsTheDefaultModel(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cache := t.TempDir()
	blob := filepath.Join(cache, "blobs", "c06d2dd2")
	snapshot := filepath.Join(cache, "snapshots", "1")
	for _, dir := range []string{filepath.Dir(blob), snapshot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	intact := unpackDemoFile(t, "demo-q8_0.gguf.xz")
	for _, err := range []error{
		os.WriteFile(blob, intact, 0o644),
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
	s.waitReady(failureLimit)
	s.waitListed("acme/facts")
	a := s.mustInfer(`{"prompt":"What is the capital of France?"}`)
	if a.Status != 200 || a.Metadata.Model != "acme/facts" || a.Metadata.Version != "base" {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
}

// While the default model can't be loaded the server isn't ready; it becomes so when the file is mended, without a
// restart or a request.
func TestReadinessFollowsTheDefaultModel(t *testing.T) {
	t.Parallel()
	s := newServer(t, "DEFAULT_MODEL=acme/facts")
	intact := unpackDemoFile(t, "demo-q8_0.gguf.xz")
	from, to := []byte("{%- for"), []byte("{%+ oof") // the template doesn't parse any more
	broken := bytes.Replace(intact, from, to, 1)
	if bytes.Equal(broken, intact) {
		from, to = []byte("{% for"), []byte("{% oof")
		broken = bytes.Replace(intact, from, to, 1)
	}
	if bytes.Equal(broken, intact) {
		t.Fatal("the demo model's template has no loop")
	}
	s.installModelFile("acme/facts/model.gguf", broken)
	s.startProxy()
	s.startEngine()
	body := ""
	s.waitFor(failureLimit, "a reason why it isn't ready", func() bool {
		var status int
		status, body, _ = s.get("/readyz")
		return status == 503 && strings.Contains(body, "chat template")
	})
	if !strings.Contains(body, "acme/facts") {
		t.Errorf("/readyz: %s", body)
	}
	a := s.mustInfer(`{"prompt":"Hi"}`)
	if a.Status != 404 || a.Error.Type != "model_broken" || !strings.Contains(a.Error.Message, "chat template") || a.Header.Get("Retry-After") != "" {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	s.installModelFile("acme/facts/model.gguf", intact)
	s.waitReady(failureLimit)
	s.waitFor(failureLimit, "the mended model in the cache", func() bool {
		_, body, err := s.get("/status")
		return err == nil && strings.Contains(body, `"loaded":true`)
	})
	if a := s.mustInfer(`{"prompt":"Hi"}`); a.Status != 200 {
		t.Errorf("mended: %d %s", a.Status, a.Body)
	}
}

// mismatchedLoRA is an adapter whose tensors don't fit the demo model: every tensor name of the real one is changed.
func mismatchedLoRA(t *testing.T) []byte {
	t.Helper()
	lora := string(unpackDemoFile(t, "demo-lora-v1.0.gguf.xz"))
	changed := strings.ReplaceAll(lora, "attn_q.weight", "attn_x.weight")
	if changed == lora {
		t.Fatal("the adapter has no attn_q")
	}
	return []byte(changed)
}

// TestModelWhoseLoadKillsTheEngineIsRefused is the same for a base model, which dies while its weights are read.
func TestModelWhoseLoadKillsTheEngineIsRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, "DEMO_MODEL=true", "ABORT_LOAD=acme/deadly", "STEP_DELAY=2ms")
	s.installModelFile("acme/deadly/model.gguf", unpackDemoFile(t, "demo-q8_0.gguf.xz"))
	s.waitListed("acme/deadly")
	s.checkDeadlyLoadIsRefused("acme/deadly", "base")
}
