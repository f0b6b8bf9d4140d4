package catalogue

var engineMetrics = []Metric{
	{"llm_engine_slots", Gauge, Engine, Internals, labels(openLabel("model"), closedLabel("state", slotStates, "idle")), nil, "Parallel slots by state: idle, prefill, decode", false},
	{"llm_engine_queue_requests", Gauge, Engine, Internals, labels(openLabel("model")), nil, "Requests in the engine scheduler queue", false},
	{"llm_engine_kv_cells_used", Gauge, Engine, Internals, labels(openLabel("model")), nil, "KV cells in use", false},
	{"llm_engine_kv_cells", Gauge, Engine, Internals, labels(openLabel("model")), nil, "KV cells allocated", false},
	{"llm_engine_kv_bytes", Gauge, Engine, Internals, labels(openLabel("model"), closedLabel("key_type", cacheTypes, Other), closedLabel("value_type", cacheTypes, Other)), nil, "Memory of the KV cache, with the formats of its keys and values", false},
	{"llm_engine_decode_calls_total", Counter, Engine, Internals, labels(openLabel("model"), closedLabel("phase", stepPhases, "mixed")), nil, "Decode calls of the library", false},
	{"llm_engine_decode_call_duration_seconds", Histogram, Engine, Internals, labels(openLabel("model"), closedLabel("phase", stepPhases, "mixed")), &boundsStep, "Duration of a decode call: prefill, decode, mixed", false},
	{"llm_engine_batch_tokens", Histogram, Engine, Internals, labels(openLabel("model")), &boundsBatchTokens, "Tokens per decode call", false},
	{"llm_engine_batch_sequences", Histogram, Engine, Internals, labels(openLabel("model")), &boundsBatchSequences, "Sequences per decode call", false},
	{"llm_engine_tokens_total", Counter, Engine, Internals, labels(openLabel("model"), closedLabel("kind", tokenKinds, "generated")), nil, "Tokens: prompt, cached, generated, drafted, accepted", false},
	{"llm_engine_busy_seconds_total", Counter, Engine, Internals, labels(openLabel("model"), closedLabel("phase", stepPhases, "mixed")), nil, "Time inside decode calls", false},
	{"llm_engine_preemptions_total", Counter, Engine, Internals, labels(openLabel("model")), nil, "Sequences put back in the queue to free KV cells", false},
	{"llm_engine_context_shifts_total", Counter, Engine, Internals, labels(openLabel("model")), nil, "Context shifts", false},
	{"llm_engine_decode_errors_total", Counter, Engine, Internals, labels(openLabel("model"), closedLabel("code", decodeErrorCodes, Other)), nil, "Decode calls that failed, and sequences that failed in them", false},
	{"llm_engine_model_load_progress_ratio", Gauge, Engine, Internals, labels(openLabel("model")), nil, "Progress of a load in hand, 0 to 1", false},
	{"llm_engine_sampling_seconds_total", Counter, Engine, Internals, labels(openLabel("model")), nil, "Time inside the samplers", false},
	{"llm_engine_device_draws_total", Counter, Engine, Internals, labels(openLabel("model")), nil, "Tokens drawn from candidates that the device picked (BACKEND_SAMPLING)", false},
	{"llm_engine_repeated_steps_total", Counter, Engine, Internals, labels(openLabel("model")), nil, "Steps computed twice, since the device's candidates didn't decide a draw", false},

	{"llm_device_memory_used_bytes", Gauge, Engine, Devices, labels(openLabel("device")), nil, "Device memory in use; device host is the cgroup", false},
	{"llm_device_memory_total_bytes", Gauge, Engine, Devices, labels(openLabel("device")), nil, "Device memory in all", false},
	{"llm_gpu_utilization_ratio", Gauge, Engine, Devices, labels(openLabel("device")), nil, "GPU utilisation, 0 to 1 (NVML, optional)", false},
	{"llm_gpu_power_watts", Gauge, Engine, Devices, labels(openLabel("device")), nil, "GPU power (NVML, optional)", false},
	{"llm_gpu_temperature_celsius", Gauge, Engine, Devices, labels(openLabel("device")), nil, "GPU temperature (NVML, optional)", false},
	{"llm_engine_compute_info", Gauge, Engine, Devices, labels(openLabel("backend"), openLabel("setting"), openLabel("missing")), nil, "The backend that computes, what DEVICE asks for, and the accelerators' backends that give no device so that the CPU computes in their place; always 1", false},
	{"llm_device_info", Gauge, Engine, Devices, labels(openLabel("device"), openLabel("name"), openLabel("backend"), openLabel("driver")), nil, "Device facts; always 1", false},
}

// engineRuntimePrefix marks the engine's runtime families in the joined scrape, so that they don't collide with the
// proxy's own of the same name.
const engineRuntimePrefix = "llm_engine_"

// engineRuntime is what the joined scrape keeps of the engine's process and Go runtime families, under enginePrefix.
var engineRuntime = []Metric{
	{"process_resident_memory_bytes", Gauge, Engine, Internals, nil, nil, "Engine resident memory", false},
	{"process_resident_memory_anon_bytes", Gauge, Engine, Internals, nil, nil, "Engine resident anonymous memory", false},
	{"process_resident_memory_file_bytes", Gauge, Engine, Internals, nil, nil, "Engine resident file-backed memory, mapped weights included", false},
	{"process_resident_memory_peak_bytes", Gauge, Engine, Internals, nil, nil, "Engine peak resident memory", false},
	{"process_cpu_seconds_total", Counter, Engine, Internals, nil, nil, "Engine CPU time", false},
	{"process_start_time_seconds", Gauge, Engine, Internals, nil, nil, "Engine start time", false},
	{"process_num_threads", Gauge, Engine, Internals, nil, nil, "Engine threads", false},
	{"process_major_pagefaults_total", Counter, Engine, Internals, nil, nil, "Engine major page faults", false},
	{"go_goroutines", Gauge, Engine, Internals, nil, nil, "Engine goroutines", false},
	{"go_memstats_heap_inuse_bytes", Gauge, Engine, Internals, nil, nil, "Engine Go heap in use", false},
	{"go_memstats_sys_bytes", Gauge, Engine, Internals, nil, nil, "Engine memory obtained by the Go runtime", false},
}

// EngineRuntime returns the metric for a process_ or go_ family of the engine, with the name it has in the joined
// scrape, or false when the family is not on the list.
func EngineRuntime(name string) (Metric, bool) {
	for _, m := range engineRuntime {
		if m.Name == name {
			m.Name = engineRuntimePrefix + name
			return m, true
		}
	}
	return Metric{}, false
}

// EngineRuntimeNames returns the names of EngineRuntime, as the engine writes them.
func EngineRuntimeNames() []string {
	names := make([]string, len(engineRuntime))
	for i, m := range engineRuntime {
		names[i] = m.Name
	}
	return names
}
