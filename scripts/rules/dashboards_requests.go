package main

// dashboards are the four that the documentation names, and two that tell where the time goes and what the engine does.
var dashboards = []dashboard{responseTime, errorRate, resources, business, latencyBreakdown, engineInternals}

var responseTime = dashboard{
	name: "response-time", title: "Response time",
	description: "How long clients wait for whole answers, against the targets: mean under 500 ms, p95 under 1 s, p99 under 2 s.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Mean", kind: statPanel, unit: "s", width: 6, thresholds: thresholdBelow(0.5), description: "Target: under 500 ms.",
				queries: singleQuery(mean("api_response_time_seconds", selectReachedAModel, ""), "mean")},
			{title: "p95", kind: statPanel, unit: "s", width: 6, thresholds: thresholdBelow(1), description: "Target: under 1 s.",
				queries: singleQuery(quantile("0.95", "api_response_time_seconds", selectReachedAModel, ""), "p95")},
			{title: "p99", kind: statPanel, unit: "s", width: 6, thresholds: thresholdBelow(2), description: "Target: under 2 s.",
				queries: singleQuery(quantile("0.99", "api_response_time_seconds", selectReachedAModel, ""), "p99")},
			{title: "Share over 1 s", kind: statPanel, unit: "percentunit", width: 6, thresholds: thresholdBelow(0.05), description: "The p95 target holds while this is under 5 %. Exact: 1 s is a bucket edge.",
				queries: singleQuery(overOneSecond, "over 1 s")},
		}},
		{"Trends", []panel{
			{title: "Percentiles", kind: timeSeriesPanel, unit: "s", thresholds: thresholdBelow(1), queries: p50p95p99("api_response_time_seconds", selectReachedAModel)},
			{title: "p95 by model and version", kind: timeSeriesPanel, unit: "s", thresholds: thresholdBelow(1), description: "HighResponseTime judges each of these lines.",
				queries: singleQuery(quantile("0.95", "api_response_time_seconds", selectReachedAModel, "model, version"), "{{model}}@{{version}}")},
			{title: "Distribution", kind: heatmapPanel, unit: "s", description: "A dot is the trace of one request, where exemplars are stored.",
				queries: singleQuery(`sum by (le) (increase(api_response_time_seconds_bucket{`+selectReachedAModel+`}[$__rate_interval]))`, "{{le}}")},
			{title: "Mean by model and version", kind: timeSeriesPanel, unit: "s", thresholds: thresholdBelow(0.5),
				queries: singleQuery(mean("api_response_time_seconds", selectReachedAModel, "model, version"), "{{model}}@{{version}}")},
			{title: "How fast the latency budgets burn (1 h)", kind: timeSeriesPanel, unit: "none", thresholds: []threshold{{0, green}, {1, yellow}, {14.4, red}}, description: "1 uses up a budget of 30 days in 30 days.",
				queries: []query{
					{`job:api_response_time_slow1s:ratio_rate1h{` + selectJob + `} / 0.05`, "p95 under 1 s, {{job}}", needsRules},
					{`job:api_response_time_slow2s:ratio_rate1h{` + selectJob + `} / 0.01`, "p99 under 2 s, {{job}}", needsRules}}},
			{title: "p95 from native histograms", kind: timeSeriesPanel, unit: "s", description: "Empty unless NATIVE_HISTOGRAMS=true and the server ingests them.",
				queries: []query{{"histogram_quantile(0.95, sum (rate(api_response_time_seconds{" + selectReachedAModel + "}[$__rate_interval])))", "p95", needsNative}}},
		}},
	},
}

var overOneSecond = `1 - sum (rate(api_response_time_seconds_bucket{` + selectReachedAModel + `,le=~"1([.]0)?"}[$__rate_interval]))
/
(sum (rate(api_response_time_seconds_count{` + selectReachedAModel + `}[$__rate_interval])) > 0)`

// validRequests requests are those that count for or against the service.
var validRequests = selectInference + `,status=~"success|error"`

var errorRate = dashboard{
	name: "errors", title: "Errors",
	description: "What fails, what is turned away, and how fast the error budget burns. Target: more than 99 % of the valid requests succeed.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Success ratio", kind: statPanel, unit: "percentunit", width: 6, thresholds: thresholdAbove(0.99), description: "Target: over 99 %. Client errors, rate limits and clients that left don't count.",
				queries: singleQuery(ratio(rate("api_requests_total", selectInference+`,status="success"`, ""), rate("api_requests_total", validRequests, "")), "success")},
			{title: "Error ratio", kind: statPanel, unit: "percentunit", width: 6, thresholds: thresholdBelow(0.01), description: "Target: under 1 %. HighErrorRate fires at 5 %.",
				queries: singleQuery(ratio(rate("api_requests_total", selectInference+`,status="error"`, ""), rate("api_requests_total", validRequests, "")), "errors")},
			{title: "Error budget left (30 days)", kind: statPanel, unit: "percentunit", width: 6, thresholds: []threshold{{-10, red}, {0, yellow}, {0.25, green}}, description: "Share of the 1 % of 30 days that is not used up. Below 0 the objective is missed.",
				queries: []query{{errorBudgetLeft, "left", needsTraffic}}},
			{title: "Burn rate (1 h)", kind: statPanel, unit: "none", width: 6, thresholds: []threshold{{0, green}, {1, yellow}, {14.4, red}}, description: "1 uses the budget up in exactly 30 days.",
				queries: []query{{`job:api_requests_error:ratio_rate1h{` + selectJob + `} / 0.01`, "{{job}}", needsRules}}},
		}},
		{"Outcomes", []panel{
			{title: "Requests by outcome", kind: timeSeriesPanel, unit: "reqps", stacked: true, queries: singleQuery(rate("api_requests_total", selectInference, "status"), "{{status}}")},
			{title: "Error ratio by model and version", kind: timeSeriesPanel, unit: "percentunit", thresholds: thresholdBelow(0.05),
				queries: singleQuery(ratio(rate("api_requests_total", selectReachedAModel+`,status="error"`, "model, version"), rate("api_requests_total", selectReachedAModel+`,status=~"success|error"`, "model, version")), "{{model}}@{{version}}")},
			{title: "Failures after acceptance, by type", kind: timeSeriesPanel, unit: "reqps", stacked: true, description: "The engine had taken these.",
				queries: singleQuery(rate("failed_inferences_total", selectModel, "error_type"), "{{error_type}}")},
			{title: "Refused before acceptance, by reason", kind: timeSeriesPanel, unit: "reqps", stacked: true, description: "unauthorized: keys; rate_limited: RATE_LIMIT; queue_full: capacity; engine_unavailable: look at the engine.",
				queries: singleQuery(rate("llm_requests_rejected_total", selectInstance, "reason"), "{{reason}}")},
			{title: "Refused as queue_full, by reason", kind: timeSeriesPanel, unit: "reqps", stacked: true, description: "deadline: no time to answer them; requests, bytes, tokens: QUEUE_*; memory: JOURNAL_MAX_BYTES.",
				queries: singleQuery(rate("llm_admission_refusals_total", selectInstance, "reason"), "{{reason}}")},
			{title: "Clients that left", kind: timeSeriesPanel, unit: "reqps", stacked: true, description: "By how far their request was.", queries: singleQuery(rate("llm_requests_cancelled_total", selectInstance, "stage"), "{{stage}}")},
			{title: "Model loads that failed (1 h)", kind: timeSeriesPanel, unit: "none", queries: singleQuery(`sum by (model, version, reason) (increase(model_load_failures_total{`+selectModel+`}[1h]))`, "{{model}}@{{version}}: {{reason}}")},
			{title: "Rate limiter", kind: timeSeriesPanel, unit: "reqps", stacked: true, queries: singleQuery(rate("llm_rate_limit_decisions_total", selectInstance, "scope, decision"), "{{scope}} {{decision}}")},
			{title: "Error ratio by window", kind: timeSeriesPanel, unit: "percentunit", description: "The windows that the budget alerts compare.",
				queries: []query{
					{`job:api_requests_error:ratio_rate5m{` + selectJob + `}`, "5 m {{job}}", needsRules},
					{`job:api_requests_error:ratio_rate1h{` + selectJob + `}`, "1 h {{job}}", needsRules},
					{`job:api_requests_error:ratio_rate6h{` + selectJob + `}`, "6 h {{job}}", needsRules}}},
		}},
	},
}

var errorBudgetLeft = `1 - (
  sum (increase(api_requests_total{` + selectInference + `,status="error"}[30d]))
  /
  (sum (increase(api_requests_total{` + validRequests + `}[30d])) > 0)
) / 0.01`

var business = dashboard{
	name: "business", title: "Business",
	description: "What the service does for whom: inferences by domain, model and version, tokens, lengths, cache.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Requests/s", kind: statPanel, unit: "reqps", width: 6, description: "Target: over 10/s when that many are asked for. Red says nothing while nobody waits.", thresholds: thresholdAbove(10),
				queries: singleQuery(rate("api_requests_total", selectInference+`,status="success"`, ""), "answered")},
			{title: "Tokens/s", kind: statPanel, unit: "none", width: 6, description: "Target: over 100/s when that many are asked for.", thresholds: thresholdAbove(100),
				queries: singleQuery(rate("tokens_generated_total", selectModel, ""), "generated")},
			{title: "Model cache hit rate", kind: statPanel, unit: "percentunit", width: 6, description: "Target: over 90 % of the requests find their model loaded.", thresholds: thresholdAbove(0.9),
				queries: singleQuery(ratio(rate("model_cache_hits_total", selectJob, ""), rate("model_cache_hits_total", selectJob, "")+" + "+rate("model_cache_misses_total", selectJob, "")), "hits")},
			{title: "Requests that met every objective", kind: statPanel, unit: "percentunit", width: 6, description: "Whole answers judged against a target that grows with their length (SLO_E2E).", thresholds: thresholdAbove(0.95),
				queries: singleQuery(ratio(rate("llm_slo_requests_total", selectModel+`,slo="e2e",result="good"`, ""), rate("llm_slo_requests_total", selectModel+`,slo="e2e"`, "")), "good")},
		}},
		{"Who asks for what", []panel{
			{title: "Inferences by domain", kind: timeSeriesPanel, unit: "reqps", stacked: true, queries: singleQuery(rate("successful_inferences_total", selectModel, "domain"), "{{domain}}")},
			{title: "Inferences by model and version", kind: timeSeriesPanel, unit: "reqps", stacked: true, queries: singleQuery(rate("successful_inferences_total", selectModel, "model, version"), "{{model}}@{{version}}")},
			{title: "Success by model and version", kind: timeSeriesPanel, unit: "percentunit", description: "Of what the engine took. Failures carry no domain, so there is no such ratio by domain.",
				queries: singleQuery(ratio(rate("successful_inferences_total", selectModel, "model, version"), rate("successful_inferences_total", selectModel, "model, version")+" + "+rate("failed_inferences_total", selectModel, "model, version")), "{{model}}@{{version}}")},
			{title: "Tokens by model", kind: timeSeriesPanel, unit: "none", stacked: true, queries: singleQuery(rate("tokens_generated_total", selectModel, "model"), "{{model}}")},
			{title: "Inferences of today by domain", kind: timeSeriesPanel, unit: "none", description: "Sum over the last 24 hours.", queries: singleQuery(`sum by (domain) (increase(successful_inferences_total{`+selectModel+`}[1d]))`, "{{domain}}")},
			{title: "How answers ended", kind: timeSeriesPanel, unit: "reqps", stacked: true, description: "length: cut off by max_new_tokens or the context.", queries: singleQuery(rate("llm_request_finish_total", selectModel, "reason"), "{{reason}}")},
			{title: "Tokens of prompts", kind: timeSeriesPanel, unit: "none", queries: p50p95p99("llm_request_prompt_tokens", selectModel)},
			{title: "Tokens of answers", kind: timeSeriesPanel, unit: "none", queries: p50p95p99("llm_request_output_tokens", selectModel)},
		}},
	},
}
