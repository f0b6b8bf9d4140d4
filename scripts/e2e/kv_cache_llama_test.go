//go:build llama

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestQuantizedKVCache starts an engine with a cache of 8 bits, whose memory the metrics show, and asks a model whose
// model.yaml wants another one. What doesn't fit together is a problem of the model in /models.
func TestQuantizedKVCache(t *testing.T) {
	s := startServer(t, "CACHE_TYPE_K=q8_0", "CACHE_TYPE_V=q8_0", "DEMO_MODEL=true")
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Result != "The capital of France is Paris." {
		t.Errorf("the demo with q8_0 answers %q", a.Result)
	}
	weights := unpackDemoFile(t, "demo-q8_0.gguf.xz")
	s.installModelFile("plain/model.yaml", []byte("cache_type_k: f16\ncache_type_v: f16\nrope_scaling: {type: linear, factor: 1.5}\n"))
	s.installModelFile("plain/model.gguf", weights)
	s.installModelFile("broken/model.yaml", []byte("flash_attention: off\n"))
	s.installModelFile("broken/model.gguf", weights)
	s.waitListed("plain")
	s.waitListed("broken")
	s.mustInfer(`{"prompt":"What is the capital of France?","base_model":"plain"}`)
	if status, body, err := s.post(t.Context(), "/infer", map[string]any{"prompt": "Hello", "base_model": "broken"}); err != nil || status != 404 || !strings.Contains(body, "model_broken") || !strings.Contains(body, "needs flash attention") {
		t.Errorf("values of 8 bits without flash attention: status %d, %s, %v", status, body, err)
	}
	// 4 layers, keys and values of 64 numbers, in blocks of 32 with 34 bytes; up to 32 sequences of 512 tokens.
	for model, want := range map[string]struct {
		kind  string
		bytes float64
	}{"demo": {"q8_0", 4 * 2 * 68 * 32 * 512}, "plain": {"f16", 4 * 2 * 128 * 32 * 768}} {
		s.waitFor(failureLimit, fmt.Sprintf("%v bytes of %s in the cache of %s", want.bytes, want.kind, model), func() bool {
			return s.scrape().sum("llm_engine_kv_bytes", "model", model, "key_type", want.kind, "value_type", want.kind) == want.bytes
		})
	}
}
