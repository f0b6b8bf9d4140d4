package api

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

func checkJSON(t *testing.T, body []byte) {
	t.Helper()
	if !jsontext.Value(body).IsValid() {
		t.Errorf("not valid JSON: %q", body)
	}
}

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	checkJSON(t, got)
}

var documentedTime = time.UnixMilli(1703123456789)

func TestHealthAsDocumented(t *testing.T) {
	same(t, AppendHealth(nil, Health{HealthOK, documentedTime}), `{"status":"ok","timestamp":1703123456.789}`)
	same(t, AppendHealth(nil, Health{HealthLoading, time.UnixMilli(1703123456007)}), `{"status":"loading","timestamp":1703123456.007}`)
}

func TestProbe(t *testing.T) {
	same(t, AppendProbe(nil, Probe{OK: true}), `{"status":"ok"}`)
	same(t, AppendProbe(nil, Probe{Reason: `default model "a/b" is not installed`}), `{"status":"unavailable","reason":"default model \"a/b\" is not installed"}`)
}

func TestStatusAsDocumented(t *testing.T) {
	s := Status{
		Status: ServiceHealthy, Timestamp: documentedTime, Prometheus: true, Device: "cuda",
		Cached:  []CachedModel{{"microsoft/DialoGPT-medium", "v1.0", true}, {"demo", "base", false}},
		Devices: []Device{{"NVIDIA H100", "cuda", "unused", 80 << 30, 7}},
		Backends: []Backend{
			{Name: "cuda", Devices: []Device{{"CUDA0", "cuda", "NVIDIA H100", 80 << 30, 7}, {"CUDA1", "cuda", "NVIDIA H100", 80 << 30, 8}}},
			{Name: "vulkan", Problem: `a library is missing: "libvulkan.so.1"`},
		},
		Memory: []ModelMemory{{"demo", 4096, "a quarter", "q8_0", "f16", true, "streams", "device", "it is faster", []DeviceMemory{{"CUDA0", 1, 2, 3, 6}, {"CPU", 4, 0, 5, 0}}}},
	}
	same(t, AppendStatus(nil, &s), `{"service":"LLM Inference API","version":"1.0.0","status":"healthy","timestamp":1703123456.789,"prometheus_available":true,`+
		`"cached_models":2,"device":"cuda","cached_model_info":[{"base_model":"microsoft/DialoGPT-medium","version":"v1.0","loaded":true},`+
		`{"base_model":"demo","version":"base","loaded":false}],"devices":[{"name":"NVIDIA H100","backend":"cuda","memory_total":85899345920,"memory_free":7}],`+
		`"backends":[{"name":"cuda","devices":[{"name":"CUDA0","description":"NVIDIA H100","memory_total":85899345920,"memory_free":7},`+
		`{"name":"CUDA1","description":"NVIDIA H100","memory_total":85899345920,"memory_free":8}],"problem":""},`+
		`{"name":"vulkan","devices":[],"problem":"a library is missing: \"libvulkan.so.1\""}],`+
		`"model_memory":[{"base_model":"demo","kv_cells":4096,"kv_cells_limit":"a quarter","cache_type_k":"q8_0","cache_type_v":"f16","flash_attention":true,"kv_layout":"streams","sampling":"device","sampling_decided_by":"it is faster","devices":[{"name":"CUDA0","weights":1,"kv_cache":2,"compute":3,"adapters":6},`+
		`{"name":"CPU","weights":4,"kv_cache":0,"compute":5,"adapters":0}]}]}`)
	same(t, AppendStatus(nil, &Status{Status: ServiceDegraded, Timestamp: documentedTime, Device: "unknown"}),
		`{"service":"LLM Inference API","version":"1.0.0","status":"degraded","timestamp":1703123456.789,"prometheus_available":false,`+
			`"cached_models":0,"device":"unknown","cached_model_info":[],"devices":[],"backends":[],"model_memory":[]}`)
}

func TestModelsAsDocumented(t *testing.T) {
	same(t, AppendModels(nil, nil), `{"models":[]}`)
	same(t, AppendModels(nil, []Model{
		{Name: "microsoft/DialoGPT-medium", Versions: []string{"v1.0", "v1.1"}, Description: "DialoGPT model for conversation"},
		{Name: "demo", Problems: []Problem{{"base", "model.gguf: cut off"}, {"v1", "no tensors"}}},
	}), `{"models":[{"base_model":"microsoft/DialoGPT-medium","versions":["v1.0","v1.1"],"description":"DialoGPT model for conversation"},`+
		`{"base_model":"demo","versions":[],"description":"","problems":{"base":"model.gguf: cut off","v1":"no tensors"}}]}`)
}
