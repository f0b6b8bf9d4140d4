package main

var resources = dashboard{
	name: "resources", title: "Resources",
	description: "Memory, processors, devices and model cache of proxy and engine. Target: memory under 80 %.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Fullest device", kind: statPanel, unit: "percentunit", width: 6, thresholds: []threshold{{0, green}, {0.8, yellow}, {0.95, red}}, description: "Target: under 80 %. LLMMemoryCritical fires at 95 %.",
				queries: singleQuery("max (llm_device_memory_used_bytes{"+selectInstance+"} / (llm_device_memory_total_bytes{"+selectInstance+"} > 0))", "in use")},
			{title: "KV cache", kind: statPanel, unit: "percentunit", width: 6, thresholds: []threshold{{0, green}, {0.8, yellow}, {0.95, red}},
				queries: singleQuery("max (llm_kv_cache_usage_ratio{"+selectInstance+"})", "in use")},
			{title: "Models loaded", kind: statPanel, unit: "none", width: 6, description: "Per instance, of CACHE_SIZE.",
				queries: []query{{expr: "max (sum by (instance) (llm_model_loaded{" + selectInstance + "}))", legend: "loaded"}, {expr: "max (llm_model_cache_capacity{" + selectInstance + "})", legend: "places"}}},
			{title: "Model cache hit rate", kind: statPanel, unit: "percentunit", width: 6, thresholds: thresholdAbove(0.9), description: "Target: over 90 %.",
				queries: singleQuery(ratio(rate("model_cache_hits_total", selectInstance, ""), rate("model_cache_hits_total", selectInstance, "")+" + "+rate("model_cache_misses_total", selectInstance, "")), "hits")},
		}},
		{"Memory", []panel{
			{title: "Device memory in use", kind: timeSeriesPanel, unit: "percentunit", thresholds: thresholdBelow(0.8), description: "Device host is the memory of the container, or of the machine.",
				queries: singleQuery("llm_device_memory_used_bytes{"+selectInstance+"}\n/\n(llm_device_memory_total_bytes{"+selectInstance+"} > 0)", "{{instance}} {{device}}")},
			{title: "Memory of models", kind: timeSeriesPanel, unit: "bytes", stacked: true, description: "What evicting each would free. Weights that versions share stand under version base.",
				queries: singleQuery("sum by (model, version) (model_memory_usage_bytes{"+selectEngineWork+"})", "{{model}}@{{version}}")},
			{title: "Resident memory", kind: timeSeriesPanel, unit: "bytes", queries: []query{
				{expr: "process_resident_memory_bytes{" + selectInstance + "}", legend: "proxy {{instance}}"},
				{expr: "llm_engine_process_resident_memory_bytes{" + selectInstance + "}", legend: "engine {{instance}}"}}},
			{title: "Reserved for answers in flight", kind: timeSeriesPanel, unit: "bytes", description: "The journal, from which answers are continued after an engine restart.",
				queries: singleQuery("llm_journal_bytes{"+selectInstance+"}", "{{instance}}")},
		}},
		{"Processors and devices", []panel{
			{title: "Processor time", kind: timeSeriesPanel, unit: "none", description: "Cores in use.", queries: []query{
				{expr: "rate(process_cpu_seconds_total{" + selectInstance + "}[$__rate_interval])", legend: "proxy {{instance}}"},
				{expr: "rate(llm_engine_process_cpu_seconds_total{" + selectInstance + "}[$__rate_interval])", legend: "engine {{instance}}"}}},
			{title: "GPU utilisation", kind: timeSeriesPanel, unit: "percentunit", description: "Pinned high under little and much load alike: don't scale by it.",
				queries: []query{{"llm_gpu_utilization_ratio{" + selectInstance + "}", "{{instance}} {{device}}", needsGPU}}},
			{title: "GPU power", kind: timeSeriesPanel, unit: "watt", queries: []query{{"llm_gpu_power_watts{" + selectInstance + "}", "{{instance}} {{device}}", needsGPU}}},
			{title: "GPU temperature", kind: timeSeriesPanel, unit: "celsius", queries: []query{{"llm_gpu_temperature_celsius{" + selectInstance + "}", "{{instance}} {{device}}", needsGPU}}},
		}},
		{"Model cache", []panel{
			{title: "Look-ups", kind: timeSeriesPanel, unit: "reqps", stacked: true, queries: []query{
				{expr: rate("model_cache_hits_total", selectEngineWork, ""), legend: "hits"},
				{expr: rate("model_cache_misses_total", selectEngineWork, ""), legend: "misses"}}},
			{title: "Evictions (1 h)", kind: timeSeriesPanel, unit: "none", queries: singleQuery(`sum by (model, version, reason) (increase(llm_model_evictions_total{`+selectEngineWork+`}[1h]))`, "{{model}}@{{version}}: {{reason}}")},
			{title: "Load time, p95 of the last hour", kind: timeSeriesPanel, unit: "s",
				queries: singleQuery(`histogram_quantile(0.95, sum by (model, version, le) (increase(model_load_time_seconds_bucket{`+selectEngineWork+`}[1h])))`, "{{model}}@{{version}}")},
			{title: "Loaded", kind: timeSeriesPanel, unit: "none", stacked: true, queries: singleQuery("sum by (model, version) (llm_model_loaded{"+selectEngineWork+"})", "{{model}}@{{version}}")},
		}},
	},
}

var latencyBreakdown = dashboard{
	name: "latency", title: "Where the time goes",
	description: "An answer's time, taken apart: waiting, prompt, tokens, restarts; and what clients see of it.",
	rows: []row{
		{"What clients see", []panel{
			{title: "Time to first token, p95", kind: statPanel, unit: "s", width: 6, thresholds: thresholdBelow(1), queries: singleQuery(quantile("0.95", "llm_time_to_first_token_seconds", selectModel, ""), "p95")},
			{title: "Gap between tokens, p95", kind: statPanel, unit: "s", width: 6, thresholds: thresholdBelow(0.1), queries: singleQuery(quantile("0.95", "llm_inter_token_latency_seconds", selectModel, ""), "p95")},
			{title: "Time per token, mean of an answer, p95", kind: statPanel, unit: "s", width: 6, thresholds: thresholdBelow(0.1), queries: singleQuery(quantile("0.95", "llm_time_per_output_token_seconds", selectModel, ""), "p95")},
			{title: "Waiting now", kind: statPanel, unit: "none", width: 6, queries: singleQuery("sum (llm_requests_waiting{"+selectInstance+"})", "waiting")},
		}},
		{"Phases", []panel{
			{title: "Mean time of a request by phase", kind: timeSeriesPanel, unit: "s", stacked: true, width: 24, description: "queue: too few places or machines. prefill: long prompts. decode: long answers. restart: lost to engine restarts.",
				queries: singleQuery(`sum by (phase) (rate(llm_request_phase_seconds_sum{`+selectModel+`}[$__rate_interval]))
/ ignoring (phase) group_left ()
(sum (rate(llm_request_phase_seconds_count{`+selectModel+`,phase="queue"}[$__rate_interval])) > 0)`, "{{phase}}")},
			{title: "Waiting, p95", kind: timeSeriesPanel, unit: "s", queries: singleQuery(quantile("0.95", "llm_request_phase_seconds", selectModel+`,phase="queue"`, "model"), "{{model}}")},
			{title: "Prompt, p95", kind: timeSeriesPanel, unit: "s", queries: singleQuery(quantile("0.95", "llm_request_phase_seconds", selectModel+`,phase="prefill"`, "model"), "{{model}}")},
			{title: "Time to first token", kind: timeSeriesPanel, unit: "s", thresholds: thresholdBelow(1), queries: p50p95p99("llm_time_to_first_token_seconds", selectModel)},
			{title: "Gap between tokens, as written", kind: timeSeriesPanel, unit: "s", thresholds: thresholdBelow(0.1), queries: p50p95p99("llm_inter_token_latency_seconds", selectModel)},
			{title: "Time per token, as the engine measured it", kind: timeSeriesPanel, unit: "s", description: "token_generation_time_seconds: one observation a token; the first has the prompt in it.",
				queries: singleQuery(mean("token_generation_time_seconds", selectModel, "model, version"), "{{model}}@{{version}}")},
			{title: "Prompt tokens computed and found in the cache", kind: timeSeriesPanel, unit: "none", stacked: true, queries: singleQuery(rate("llm_prompt_tokens_total", selectModel, "source"), "{{source}}")},
		}},
		{"Load", []panel{
			{title: "Waiting and running", kind: timeSeriesPanel, unit: "none", queries: []query{
				{expr: "sum (llm_requests_waiting{" + selectInstance + "})", legend: "waiting"},
				{expr: "sum (llm_requests_running{" + selectInstance + "})", legend: "running"},
				{expr: `sum (llm_requests_in_flight{` + selectInstance + `,` + inferenceRequests + `})`, legend: "in flight"}}},
			{title: "Estimated wait of a new request", kind: timeSeriesPanel, unit: "s", description: "By it requests are refused that could not be answered in their time.",
				queries: singleQuery("llm_admission_wait_seconds{"+selectInstance+"}", "{{instance}}")},
			{title: "Waiting line in use", kind: timeSeriesPanel, unit: "percentunit", thresholds: thresholdBelow(0.8), queries: singleQuery("llm_requests_waiting{"+selectInstance+"} / (llm_queue_capacity{"+selectInstance+"} > 0)", "{{instance}}")},
			{title: "Objectives met", kind: timeSeriesPanel, unit: "percentunit", description: "Share of requests that met SLO_TTFT, SLO_TPOT and SLO_E2E.",
				queries: singleQuery(ratio(rate("llm_slo_requests_total", selectModel+`,result="good"`, "slo"), rate("llm_slo_requests_total", selectModel, "slo")), "{{slo}}")},
			{title: "Size of bodies, p95", kind: timeSeriesPanel, unit: "bytes", queries: []query{
				{expr: quantile("0.95", "api_request_size_bytes", selectInference, ""), legend: "requests"},
				{expr: quantile("0.95", "api_response_size_bytes", selectInference, ""), legend: "answers"}}},
		}},
	},
}

var engineInternals = dashboard{
	name: "engine", title: "Engine",
	description: "Whether engines live, what restarts cost, how full batches are, and the socket between the processes.",
	rows: []row{
		{"Alive", []panel{
			{title: "Engines that answer", kind: statPanel, unit: "none", width: 6, thresholds: thresholdAbove(1), queries: singleQuery("sum (llm_engine_up{"+selectInstance+"})", "up")},
			{title: "Restarts (1 h)", kind: statPanel, unit: "none", width: 6, thresholds: thresholdBelow(1), description: "Upgrades not counted.", queries: singleQuery(`sum (increase(llm_engine_restarts_total{`+selectInstance+`,reason!="upgrade"}[1h]))`, "restarts")},
			{title: "Last heartbeat", kind: statPanel, unit: "s", width: 6, thresholds: thresholdBelow(30), queries: singleQuery("max (time() - (llm_engine_last_heartbeat_timestamp_seconds{"+selectInstance+"} > 0))", "ago")},
			{title: "Requests quarantined (1 h)", kind: statPanel, unit: "none", width: 6, thresholds: thresholdBelow(1), queries: singleQuery("sum (increase(llm_requests_quarantined_total{"+selectInstance+"}[1h]))", "quarantined")},
			{title: "Versions", kind: tablePanel, unit: "none", queries: singleQuery("count by (version, revision, engine_version, llama_cpp_commit, backend, ipc_schema) (llm_build_info{"+selectInstance+"})", "")},
		}},
		{"Restarts", []panel{
			{title: "Restarts by reason (1 h)", kind: timeSeriesPanel, unit: "none", queries: singleQuery(`sum by (instance, reason) (increase(llm_engine_restarts_total{`+selectInstance+`}[1h]))`, "{{instance}} {{reason}}")},
			{title: "Time until an engine serves again, p95 (1 h)", kind: timeSeriesPanel, unit: "s",
				queries: singleQuery(`histogram_quantile(0.95, sum by (le) (increase(llm_engine_recovery_seconds_bucket{`+selectInstance+`}[1h])))`, "p95")},
			{title: "Requests continued after a restart (1 h)", kind: timeSeriesPanel, unit: "none", queries: singleQuery(`sum by (result) (increase(llm_requests_replayed_total{`+selectInstance+`}[1h]))`, "{{result}}")},
			{title: "Frames dropped (1 h)", kind: timeSeriesPanel, unit: "none", description: "Late frames of an engine that was given up, kept from reaching a client.",
				queries: singleQuery(`sum by (reason) (increase(llm_frames_dropped_total{`+selectInstance+`}[1h]))`, "{{reason}}")},
		}},
		{"Work", []panel{
			{title: "Sequences in a step, mean", kind: timeSeriesPanel, unit: "none", description: "How well requests share steps.", queries: singleQuery(mean("llm_engine_batch_sequences", selectEngineWork, "instance, model"), "{{instance}} {{model}}")},
			{title: "Tokens in a step, mean", kind: timeSeriesPanel, unit: "none", queries: singleQuery(mean("llm_engine_batch_tokens", selectEngineWork, "instance, model"), "{{instance}} {{model}}")},
			{title: "Time of a step, p95", kind: timeSeriesPanel, unit: "s", queries: singleQuery(quantile("0.95", "llm_engine_decode_call_duration_seconds", selectEngineWork, "model, phase"), "{{model}} {{phase}}")},
			{title: "Busy", kind: timeSeriesPanel, unit: "percentunit", description: "Share of the time inside decode calls and inside samplers.", queries: []query{
				{expr: rate("llm_engine_busy_seconds_total", selectEngineWork, "instance, model"), legend: "steps {{instance}} {{model}}"},
				{expr: rate("llm_engine_sampling_seconds_total", selectEngineWork, "instance, model"), legend: "sampling {{instance}} {{model}}"}}},
			{title: "Tokens/s by kind", kind: timeSeriesPanel, unit: "none", queries: singleQuery(rate("llm_engine_tokens_total", selectEngineWork, "kind"), "{{kind}}")},
			{title: "Places by state", kind: timeSeriesPanel, unit: "none", stacked: true, queries: singleQuery("sum by (state) (llm_engine_slots{"+selectEngineWork+"})", "{{state}}")},
			{title: "KV cells in use", kind: timeSeriesPanel, unit: "percentunit", thresholds: thresholdBelow(0.95),
				queries: []query{{"llm_engine_kv_cells_used{" + selectEngineWork + "} / (llm_engine_kv_cells{" + selectEngineWork + "} > 0)", "{{instance}} {{model}}", needsModel}}},
			{title: "Sequences put back, context shifts, failed steps (1 h)", kind: timeSeriesPanel, unit: "none", queries: []query{
				{expr: "sum by (model) (increase(llm_engine_preemptions_total{" + selectEngineWork + "}[1h]))", legend: "put back {{model}}"},
				{expr: "sum by (model) (increase(llm_engine_context_shifts_total{" + selectEngineWork + "}[1h]))", legend: "shifts {{model}}"},
				{expr: "sum by (model, code) (increase(llm_engine_decode_errors_total{" + selectEngineWork + "}[1h]))", legend: "{{code}} {{model}}"}}},
		}},
		{"Socket", []panel{
			{title: "Round trip, p99", kind: timeSeriesPanel, unit: "s", queries: singleQuery(quantile("0.99", "llm_ipc_duration_seconds", selectInstance, "method"), "{{method}}")},
			{title: "Bytes/s", kind: timeSeriesPanel, unit: "Bps", queries: singleQuery(rate("llm_ipc_bytes_total", selectInstance, "direction"), "{{direction}}")},
			{title: "Failed calls (1 h)", kind: timeSeriesPanel, unit: "none", queries: singleQuery(`sum by (method, code) (increase(llm_ipc_errors_total{`+selectInstance+`}[1h]))`, "{{method}} {{code}}")},
			{title: "Reconnects and failed metric fetches (1 h)", kind: timeSeriesPanel, unit: "none", queries: []query{
				{expr: "sum (increase(llm_ipc_reconnects_total{" + selectInstance + "}[1h]))", legend: "reconnects"},
				{expr: "sum (increase(llm_engine_metrics_fetch_errors_total{" + selectInstance + "}[1h]))", legend: "failed fetches"}}},
		}},
	},
}
