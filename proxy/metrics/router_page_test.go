package metrics

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestRouterPage(t *testing.T) {
	m := newTestMetrics(t, nil)
	m.SetQueued(3)
	m.SetEngineLoad(EngineLoad{Waiting: 1, Running: 2, KVUsage: 0.25})
	m.SetCacheConfig(1, 4096)
	m.SetAdapters(5, []string{"demo:v1.1", "demo:v1.0", "demo:v1.1"}, []string{`a"b`}, time.UnixMilli(1700000000500))
	var b bytes.Buffer
	m.WriteRouterPage(&b)
	want := `# TYPE llm_requests_waiting gauge
llm_requests_waiting 4
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting 4
# TYPE llm_requests_running gauge
llm_requests_running 2
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running 2
# TYPE llm_kv_cache_usage_ratio gauge
llm_kv_cache_usage_ratio 0.25
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc 0.25
# TYPE llm_cache_config_info gauge
llm_cache_config_info{block_size="1",num_blocks="4096"} 1
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="1",num_gpu_blocks="4096"} 1
# TYPE llm_lora_requests_info gauge
llm_lora_requests_info{max_lora="5",running_lora_adapters="demo:v1.0,demo:v1.1",waiting_lora_adapters="a\"b"} 1700000000.5
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="5",running_lora_adapters="demo:v1.0,demo:v1.1",waiting_lora_adapters="a\"b"} 1700000000.5
`
	if b.String() != want {
		t.Errorf("router page:\n%s", b.String())
	}
	if f := parseFamilies(t, b.String()); len(f) != 10 {
		t.Errorf("%d families", len(f))
	}
}

// A picker counts a server as broken that lacks a family, so the page is whole also before and without an engine.
func TestRouterPageIsWholeWithoutAnEngine(t *testing.T) {
	m := newTestMetrics(t, nil)
	var first, after bytes.Buffer
	m.WriteRouterPage(&first)
	m.SetCacheConfig(1, 4096)
	m.EngineLost()
	m.WriteRouterPage(&after)
	for when, page := range map[string]string{"first": first.String(), "after the engine's end": after.String()} {
		if f := parseFamilies(t, page); len(f) != 10 {
			t.Errorf("%s: %d families:\n%s", when, len(f), page)
		}
		if !strings.Contains(page, `vllm:cache_config_info{block_size="1",num_gpu_blocks="0"} 1`) {
			t.Errorf("%s: a cache without an engine:\n%s", when, page)
		}
	}
}
