package main

import "time"

func alertGroups() []group {
	return []group{
		{name: "llm-inference-documented", alerts: documentedAlerts},
		{name: "llm-inference-budget", alerts: burnAlerts()},
		{name: "llm-inference-targets", alerts: targetAlerts},
		{name: "llm-inference-requests", alerts: requestAlerts},
		{name: "llm-inference-engine", alerts: engineAlerts},
		{name: "llm-inference-scrape", alerts: scrapeAlerts},
	}
}

// documentedAlerts keep the documented names, thresholds, times, severities and summaries. docs/monitoring.md says what
// was wrong with the documented expressions.
var documentedAlerts = []alert{
	{
		name: "HighResponseTime", forDuration: 5 * time.Minute, severity: warning, summary: "High response time detected",
		expr:        "job_model_version:api_response_time_seconds:p95_5m > 1",
		description: "95 % of the answers of {{ $labels.model }}@{{ $labels.version }} took up to {{ $value | humanizeDuration }}; the target is 1 s.",
	},
	{
		name: "HighErrorRate", forDuration: 2 * time.Minute, severity: critical, summary: "High error rate detected",
		expr:        "job:api_requests_error:ratio_rate5m > 0.05",
		description: "{{ $value | humanizePercentage }} of the inference requests of {{ $labels.job }} fail.",
	},
	{
		name: "ModelLoadingFailures", forDuration: time.Minute, severity: warning, summary: "Model loading failures detected",
		expr:        "sum by (job, model, version, reason) (increase(model_load_failures_total[10m])) > 0",
		description: "{{ $labels.model }}@{{ $labels.version }} could not be loaded: {{ $labels.reason }}.",
	},
}

// targetAlerts compare the service with its targets. Throughput depends on demand, so it counts only while requests
// wait.
var targetAlerts = []alert{
	{
		name: "LLMMeanResponseTimeHigh", forDuration: 15 * time.Minute, severity: warning, summary: "Mean response time over 500 ms",
		expr:        "job_model_version:api_response_time_seconds:mean5m > 0.5",
		description: "An answer of {{ $labels.model }}@{{ $labels.version }} takes {{ $value | humanizeDuration }} on average.",
	},
	{
		name: "LLMThroughputBelowCapacity", forDuration: 10 * time.Minute, severity: warning, summary: "Under 10 requests/s while requests wait",
		expr:        "job:api_requests_success:rate5m < 10\nand on (job)\nsum by (job) (min_over_time(llm_requests_waiting[5m])) > 0",
		description: "{{ $value | humanize }} requests/s are answered, and for 5 minutes there was always one waiting.",
	},
	{
		name: "LLMTokenThroughputBelowCapacity", forDuration: 10 * time.Minute, severity: warning, summary: "Under 100 tokens/s while requests wait",
		expr:        "job:tokens_generated:rate5m < 100\nand on (job)\nsum by (job) (min_over_time(llm_requests_waiting[5m])) > 0",
		description: "{{ $value | humanize }} tokens/s are generated, and for 5 minutes there was always a request waiting.",
	},
	{
		name: "LLMMemoryHigh", forDuration: 10 * time.Minute, severity: warning, summary: "Memory over 80 %",
		expr:        "instance_device:llm_device_memory:usage_ratio > 0.8",
		description: "{{ $value | humanizePercentage }} of the memory of {{ $labels.device }} on {{ $labels.instance }} is in use.",
	},
	{
		name: "LLMMemoryCritical", forDuration: 2 * time.Minute, severity: critical, summary: "Memory nearly used up",
		expr:        "instance_device:llm_device_memory:usage_ratio > 0.95",
		description: "{{ $value | humanizePercentage }} of the memory of {{ $labels.device }} on {{ $labels.instance }} is in use.",
	},
	{
		name: "LLMModelCacheHitRateLow", forDuration: 15 * time.Minute, severity: warning, summary: "Model cache hit rate under 90 %",
		expr:        "job:model_cache_hit:ratio_rate15m < 0.9\nand\njob:model_cache_lookups:increase15m > 20",
		description: "Only {{ $value | humanizePercentage }} of the requests found their model loaded.",
	},
	{
		name: "LLMModelFailing", forDuration: 5 * time.Minute, severity: warning, summary: "One model fails more than 5 % of its requests",
		expr: `job_model_version:inferences_failed:ratio_rate15m > 0.05
and
sum by (job, model, version) (increase(failed_inferences_total{` + serverFaults + `}[15m])) > 3`,
		description: "{{ $labels.model }}@{{ $labels.version }} fails {{ $value | humanizePercentage }} of what it accepts.",
	},
}

// requestAlerts are about requests that are refused, wait, or flow too slowly.
var requestAlerts = []alert{
	{
		name: "LLMQueueSaturated", forDuration: 5 * time.Minute, severity: warning, summary: "Waiting line over 80 % full",
		expr:        "llm_requests_waiting / (llm_queue_capacity > 0) > 0.8",
		description: "{{ $value | humanizePercentage }} of the waiting places on {{ $labels.instance }} are taken.",
	},
	{
		name: "LLMRejectionRateHigh", forDuration: 5 * time.Minute, severity: warning, summary: "More than 5 % of requests are turned away",
		expr: `sum by (job, reason) (rate(llm_requests_rejected_total{reason=~"queue_full|engine_unavailable|draining|deadline|model_busy|model_load_failed|out_of_memory"}[5m]))
/ on (job) group_left
sum by (job) (rate(api_requests_total{` + inferenceRequests + `}[5m])) > 0.05`,
		description: "{{ $value | humanizePercentage }} of the requests of {{ $labels.job }} are turned away: {{ $labels.reason }}.",
	},
	{
		name: "LLMAuthFailuresHigh", forDuration: 10 * time.Minute, severity: warning, summary: "Many requests without a valid API key",
		expr:        `sum by (job) (rate(llm_requests_rejected_total{reason="unauthorized"}[10m])) > 1`,
		description: "{{ $value | humanize }} requests/s to {{ $labels.job }} carry no key or a bad one.",
	},
	{
		name: "LLMKeyReloadFailing", forDuration: 0, severity: warning, summary: "A changed key file was not taken",
		expr:        "increase(llm_key_reload_failures_total[15m]) > 0",
		description: "{{ $labels.instance }} can't use the new key file; the keys from before stay in force, revoked ones too.",
	},
	{
		name: "LLMRateLimitStoreDown", forDuration: 2 * time.Minute, severity: warning, summary: "The store of the rate limits does not answer",
		expr:        "llm_rate_limit_store_up == 0",
		description: "{{ $labels.instance }} can't reach the store that it counts requests in.",
	},
	{
		name: "LLMTimeToFirstTokenHigh", forDuration: 10 * time.Minute, severity: warning, summary: "p95 of the time to the first token over 1 s",
		expr:        "job_model:llm_time_to_first_token_seconds:p95_5m > 1",
		description: "Clients of {{ $labels.model }} wait up to {{ $value | humanizeDuration }} for a first token.",
	},
	{
		name: "LLMInterTokenLatencyHigh", forDuration: 10 * time.Minute, severity: warning, summary: "p95 of the gap between tokens over 100 ms",
		expr:        "job_model:llm_inter_token_latency_seconds:p95_5m > 0.1",
		description: "Between two tokens of {{ $labels.model }} up to {{ $value | humanizeDuration }} pass.",
	},
}

// engineAlerts are about the engine. increase() extrapolates to the whole window and mostly comes out slightly high:
// "more than two" is written as at least three.
var engineAlerts = []alert{
	{
		name: "LLMEngineDown", forDuration: time.Minute, severity: critical, summary: "No engine",
		expr:        "llm_engine_up == 0",
		description: "The proxy on {{ $labels.instance }} has no engine that answers.",
	},
	{
		name: "LLMEngineRestarting", forDuration: 0, severity: critical, summary: "The engine restarts again and again",
		expr:        `sum by (job, instance) (increase(llm_engine_restarts_total{reason!="upgrade"}[15m])) >= 3`,
		description: "{{ $value | humanize }} restarts within 15 minutes on {{ $labels.instance }}, upgrades not counted.",
	},
	{
		name: "LLMRequestsQuarantined", forDuration: 0, severity: warning, summary: "A request killed the engine repeatedly",
		expr:        "increase(llm_requests_quarantined_total[15m]) > 0",
		description: "The proxy on {{ $labels.instance }} now refuses a request because engines died on it.",
	},
	{
		name: "LLMKVCacheNearlyFull", forDuration: 10 * time.Minute, severity: warning, summary: "KV cache over 95 %",
		expr:        "llm_kv_cache_usage_ratio > 0.95",
		description: "{{ $value | humanizePercentage }} of the KV cells of a model on {{ $labels.instance }} are in use.",
	},
	{
		name: "LLMEngineOnCPU", forDuration: time.Minute, severity: warning, summary: "The CPU computes in place of a GPU",
		expr:        `llm_engine_compute_info{backend="cpu",missing!="none"} == 1`,
		description: "The engine on {{ $labels.instance }} computes on the CPU: its backend {{ $labels.missing }} gives no device.",
	},
	{
		name: "LLMEngineMetricsStale", forDuration: 5 * time.Minute, severity: warning, summary: "The engine's own metrics are missing",
		expr:        "increase(llm_engine_metrics_fetch_errors_total[10m]) >= 4\nand\nllm_engine_up == 1",
		description: "{{ $value | humanize }} fetches failed within 10 minutes on {{ $labels.instance }}, although the engine answers.",
	},
}

// scrapeAlerts are about the monitoring itself.
var scrapeAlerts = []alert{
	{
		name: "LLMTargetDown", forDuration: 2 * time.Minute, severity: critical, summary: "The proxy can't be scraped",
		expr:        `up{job=~".*llm-inference.*"} == 0`,
		description: "{{ $labels.instance }} gives Prometheus no metrics.",
	},
	{
		name: "LLMMetricsAbsent", forDuration: 10 * time.Minute, severity: critical, summary: "No metrics of the inference service at all",
		expr:        "absent(llm_engine_up)",
		description: "No target exposes llm_engine_up, so no other alert can fire.",
	},
}
