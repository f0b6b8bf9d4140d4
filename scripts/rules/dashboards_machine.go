package main

var resources = dashboard{
	name: "resources", title: "Resources",
	about: "Memory, processors, devices and model cache of proxy and engine. Target: memory under 80 %.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Fullest device", kind: number, unit: "percentunit", width: 6, limits: []limit{{0, green}, {0.8, yellow}, {0.95, red}}, about: "Target: under 80 %. LLMMemoryCritical fires at 95 %.",
				queries: one("max (llm_device_memory_used_bytes{"+ofInstance+"} / (llm_device_memory_total_bytes{"+ofInstance+"} > 0))", "in use")},
			{title: "KV cache", kind: number, unit: "percentunit", width: 6, limits: []limit{{0, green}, {0.8, yellow}, {0.95, red}},
				queries: one("max (llm_kv_cache_usage_ratio{"+ofInstance+"})", "in use")},
			{title: "Models loaded", kind: number, unit: "none", width: 6, about: "Per instance, of CACHE_SIZE.",
				queries: []query{{expr: "max (sum by (instance) (llm_model_loaded{" + ofInstance + "}))", legend: "loaded"}, {expr: "max (llm_model_cache_capacity{" + ofInstance + "})", legend: "places"}}},
			{title: "Model cache hit rate", kind: number, unit: "percentunit", width: 6, limits: above(0.9), about: "Target: over 90 %.",
				queries: one(ratio(rate("model_cache_hits_total", ofInstance, ""), rate("model_cache_hits_total", ofInstance, "")+" + "+rate("model_cache_misses_total", ofInstance, "")), "hits")},
		}},
		{"Memory", []panel{
			{title: "Device memory in use", kind: graph, unit: "percentunit", limits: below(0.8), about: "Device host is the memory of the container, or of the machine.",
				queries: one("llm_device_memory_used_bytes{"+ofInstance+"}\n/\n(llm_device_memory_total_bytes{"+ofInstance+"} > 0)", "{{instance}} {{device}}")},
			{title: "Memory of models", kind: graph, unit: "bytes", stacked: true, about: "What evicting each would free. Weights that versions share stand under version base.",
				queries: one("sum by (model, version) (model_memory_usage_bytes{"+ofEngineWork+"})", "{{model}}@{{version}}")},
			{title: "Resident memory", kind: graph, unit: "bytes", queries: []query{
				{expr: "process_resident_memory_bytes{" + ofInstance + "}", legend: "proxy {{instance}}"},
				{expr: "llm_engine_process_resident_memory_bytes{" + ofInstance + "}", legend: "engine {{instance}}"}}},
			{title: "Reserved for answers in flight", kind: graph, unit: "bytes", about: "The journal, from which answers are continued after an engine restart.",
				queries: one("llm_journal_bytes{"+ofInstance+"}", "{{instance}}")},
		}},
		{"Processors and devices", []panel{
			{title: "Processor time", kind: graph, unit: "none", about: "Cores in use.", queries: []query{
				{expr: "rate(process_cpu_seconds_total{" + ofInstance + "}[$__rate_interval])", legend: "proxy {{instance}}"},
				{expr: "rate(llm_engine_process_cpu_seconds_total{" + ofInstance + "}[$__rate_interval])", legend: "engine {{instance}}"}}},
			{title: "GPU utilisation", kind: graph, unit: "percentunit", about: "Pinned high under little and much load alike: don't scale by it.",
				queries: []query{{"llm_gpu_utilization_ratio{" + ofInstance + "}", "{{instance}} {{device}}", needsGPU}}},
			{title: "GPU power", kind: graph, unit: "watt", queries: []query{{"llm_gpu_power_watts{" + ofInstance + "}", "{{instance}} {{device}}", needsGPU}}},
			{title: "GPU temperature", kind: graph, unit: "celsius", queries: []query{{"llm_gpu_temperature_celsius{" + ofInstance + "}", "{{instance}} {{device}}", needsGPU}}},
		}},
		{"Model cache", []panel{
			{title: "Look-ups", kind: graph, unit: "reqps", stacked: true, queries: []query{
				{expr: rate("model_cache_hits_total", ofEngineWork, ""), legend: "hits"},
				{expr: rate("model_cache_misses_total", ofEngineWork, ""), legend: "misses"}}},
			{title: "Evictions (1 h)", kind: graph, unit: "none", queries: one(`sum by (model, version, reason) (increase(llm_model_evictions_total{`+ofEngineWork+`}[1h]))`, "{{model}}@{{version}}: {{reason}}")},
			{title: "Load time, p95 of the last hour", kind: graph, unit: "s",
				queries: one(`histogram_quantile(0.95, sum by (model, version, le) (increase(model_load_time_seconds_bucket{`+ofEngineWork+`}[1h])))`, "{{model}}@{{version}}")},
			{title: "Loaded", kind: graph, unit: "none", stacked: true, queries: one("sum by (model, version) (llm_model_loaded{"+ofEngineWork+"})", "{{model}}@{{version}}")},
		}},
	},
}

var decomposition = dashboard{
	name: "latency", title: "Where the time goes",
	about: "An answer's time, taken apart: waiting, prompt, tokens, restarts; and what clients see of it.",
	rows: []row{
		{"What clients see", []panel{
			{title: "Time to first token, p95", kind: number, unit: "s", width: 6, limits: below(1), queries: one(quantile("0.95", "llm_time_to_first_token_seconds", ofModel, ""), "p95")},
			{title: "Gap between tokens, p95", kind: number, unit: "s", width: 6, limits: below(0.1), queries: one(quantile("0.95", "llm_inter_token_latency_seconds", ofModel, ""), "p95")},
			{title: "Time per token, mean of an answer, p95", kind: number, unit: "s", width: 6, limits: below(0.1), queries: one(quantile("0.95", "llm_time_per_output_token_seconds", ofModel, ""), "p95")},
			{title: "Waiting now", kind: number, unit: "none", width: 6, queries: one("sum (llm_requests_waiting{"+ofInstance+"})", "waiting")},
		}},
		{"Phases", []panel{
			{title: "Mean time of a request by phase", kind: graph, unit: "s", stacked: true, width: 24, about: "queue: too few places or machines. prefill: long prompts. decode: long answers. restart: lost to engine restarts.",
				queries: one(`sum by (phase) (rate(llm_request_phase_seconds_sum{`+ofModel+`}[$__rate_interval]))
/ ignoring (phase) group_left ()
(sum (rate(llm_request_phase_seconds_count{`+ofModel+`,phase="queue"}[$__rate_interval])) > 0)`, "{{phase}}")},
			{title: "Waiting, p95", kind: graph, unit: "s", queries: one(quantile("0.95", "llm_request_phase_seconds", ofModel+`,phase="queue"`, "model"), "{{model}}")},
			{title: "Prompt, p95", kind: graph, unit: "s", queries: one(quantile("0.95", "llm_request_phase_seconds", ofModel+`,phase="prefill"`, "model"), "{{model}}")},
			{title: "Time to first token", kind: graph, unit: "s", limits: below(1), queries: percentiles("llm_time_to_first_token_seconds", ofModel)},
			{title: "Gap between tokens, as written", kind: graph, unit: "s", limits: below(0.1), queries: percentiles("llm_inter_token_latency_seconds", ofModel)},
			{title: "Time per token, as the engine measured it", kind: graph, unit: "s", about: "token_generation_time_seconds: one observation a token; the first has the prompt in it.",
				queries: one(mean("token_generation_time_seconds", ofModel, "model, version"), "{{model}}@{{version}}")},
			{title: "Prompt tokens computed and found in the cache", kind: graph, unit: "none", stacked: true, queries: one(rate("llm_prompt_tokens_total", ofModel, "source"), "{{source}}")},
		}},
		{"Load", []panel{
			{title: "Waiting and running", kind: graph, unit: "none", queries: []query{
				{expr: "sum (llm_requests_waiting{" + ofInstance + "})", legend: "waiting"},
				{expr: "sum (llm_requests_running{" + ofInstance + "})", legend: "running"},
				{expr: `sum (llm_requests_in_flight{` + ofInstance + `,endpoint="/infer"})`, legend: "in flight"}}},
			{title: "Waiting line in use", kind: graph, unit: "percentunit", limits: below(0.8), queries: one("llm_requests_waiting{"+ofInstance+"} / (llm_queue_capacity{"+ofInstance+"} > 0)", "{{instance}}")},
			{title: "Objectives met", kind: graph, unit: "percentunit", about: "Share of requests that met SLO_TTFT, SLO_TPOT and SLO_E2E.",
				queries: one(ratio(rate("llm_slo_requests_total", ofModel+`,result="good"`, "slo"), rate("llm_slo_requests_total", ofModel, "slo")), "{{slo}}")},
			{title: "Size of bodies, p95", kind: graph, unit: "bytes", queries: []query{
				{expr: quantile("0.95", "api_request_size_bytes", ofInference, ""), legend: "requests"},
				{expr: quantile("0.95", "api_response_size_bytes", ofInference, ""), legend: "answers"}}},
		}},
	},
}

var engineRoom = dashboard{
	name: "engine", title: "Engine",
	about: "Whether engines live, what restarts cost, how full batches are, and the socket between the processes.",
	rows: []row{
		{"Alive", []panel{
			{title: "Engines that answer", kind: number, unit: "none", width: 6, limits: above(1), queries: one("sum (llm_engine_up{"+ofInstance+"})", "up")},
			{title: "Restarts (1 h)", kind: number, unit: "none", width: 6, limits: below(1), about: "Upgrades not counted.", queries: one(`sum (increase(llm_engine_restarts_total{`+ofInstance+`,reason!="upgrade"}[1h]))`, "restarts")},
			{title: "Last heartbeat", kind: number, unit: "s", width: 6, limits: below(30), queries: one("max (time() - (llm_engine_last_heartbeat_timestamp_seconds{"+ofInstance+"} > 0))", "ago")},
			{title: "Requests quarantined (1 h)", kind: number, unit: "none", width: 6, limits: below(1), queries: one("sum (increase(llm_requests_quarantined_total{"+ofInstance+"}[1h]))", "quarantined")},
			{title: "Versions", kind: table, unit: "none", queries: one("count by (version, revision, engine_version, llama_cpp_commit, backend, ipc_schema) (llm_build_info{"+ofInstance+"})", "")},
		}},
		{"Restarts", []panel{
			{title: "Restarts by reason (1 h)", kind: graph, unit: "none", queries: one(`sum by (instance, reason) (increase(llm_engine_restarts_total{`+ofInstance+`}[1h]))`, "{{instance}} {{reason}}")},
			{title: "Time until an engine serves again, p95 (1 h)", kind: graph, unit: "s",
				queries: one(`histogram_quantile(0.95, sum by (le) (increase(llm_engine_recovery_seconds_bucket{`+ofInstance+`}[1h])))`, "p95")},
			{title: "Requests continued after a restart (1 h)", kind: graph, unit: "none", queries: one(`sum by (result) (increase(llm_requests_replayed_total{`+ofInstance+`}[1h]))`, "{{result}}")},
			{title: "Frames dropped (1 h)", kind: graph, unit: "none", about: "Late frames of an engine that was given up, kept from reaching a client.",
				queries: one(`sum by (reason) (increase(llm_frames_dropped_total{`+ofInstance+`}[1h]))`, "{{reason}}")},
		}},
		{"Work", []panel{
			{title: "Sequences in a step, mean", kind: graph, unit: "none", about: "How well requests share steps.", queries: one(mean("llm_engine_batch_sequences", ofEngineWork, "instance, model"), "{{instance}} {{model}}")},
			{title: "Tokens in a step, mean", kind: graph, unit: "none", queries: one(mean("llm_engine_batch_tokens", ofEngineWork, "instance, model"), "{{instance}} {{model}}")},
			{title: "Time of a step, p95", kind: graph, unit: "s", queries: one(quantile("0.95", "llm_engine_decode_call_duration_seconds", ofEngineWork, "model, phase"), "{{model}} {{phase}}")},
			{title: "Busy", kind: graph, unit: "percentunit", about: "Share of the time inside decode calls and inside samplers.", queries: []query{
				{expr: rate("llm_engine_busy_seconds_total", ofEngineWork, "instance, model"), legend: "steps {{instance}} {{model}}"},
				{expr: rate("llm_engine_sampling_seconds_total", ofEngineWork, "instance, model"), legend: "sampling {{instance}} {{model}}"}}},
			{title: "Tokens/s by kind", kind: graph, unit: "none", queries: one(rate("llm_engine_tokens_total", ofEngineWork, "kind"), "{{kind}}")},
			{title: "Places by state", kind: graph, unit: "none", stacked: true, queries: one("sum by (state) (llm_engine_slots{"+ofEngineWork+"})", "{{state}}")},
			{title: "KV cells in use", kind: graph, unit: "percentunit", limits: below(0.95),
				queries: []query{{"llm_engine_kv_cells_used{" + ofEngineWork + "} / (llm_engine_kv_cells{" + ofEngineWork + "} > 0)", "{{instance}} {{model}}", needsModel}}},
			{title: "Sequences put back, context shifts, failed steps (1 h)", kind: graph, unit: "none", queries: []query{
				{expr: "sum by (model) (increase(llm_engine_preemptions_total{" + ofEngineWork + "}[1h]))", legend: "put back {{model}}"},
				{expr: "sum by (model) (increase(llm_engine_context_shifts_total{" + ofEngineWork + "}[1h]))", legend: "shifts {{model}}"},
				{expr: "sum by (model, code) (increase(llm_engine_decode_errors_total{" + ofEngineWork + "}[1h]))", legend: "{{code}} {{model}}"}}},
		}},
		{"Socket", []panel{
			{title: "Round trip, p99", kind: graph, unit: "s", queries: one(quantile("0.99", "llm_ipc_duration_seconds", ofInstance, "method"), "{{method}}")},
			{title: "Bytes/s", kind: graph, unit: "Bps", queries: one(rate("llm_ipc_bytes_total", ofInstance, "direction"), "{{direction}}")},
			{title: "Failed calls (1 h)", kind: graph, unit: "none", queries: one(`sum by (method, code) (increase(llm_ipc_errors_total{`+ofInstance+`}[1h]))`, "{{method}} {{code}}")},
			{title: "Reconnects and failed metric fetches (1 h)", kind: graph, unit: "none", queries: []query{
				{expr: "sum (increase(llm_ipc_reconnects_total{" + ofInstance + "}[1h]))", legend: "reconnects"},
				{expr: "sum (increase(llm_engine_metrics_fetch_errors_total{" + ofInstance + "}[1h]))", legend: "failed fetches"}}},
		}},
	},
}
