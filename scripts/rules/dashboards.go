package main

// dashboards are the four that the documentation names, and two that tell where the time goes and what the engine does.
var dashboards = []dashboard{responseTime, errorRate, resources, business, decomposition, engineRoom}

var responseTime = dashboard{
	name: "response-time", title: "Response time",
	about: "How long clients wait for whole answers, against the targets: mean under 500 ms, p95 under 1 s, p99 under 2 s.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Mean", kind: number, unit: "s", width: 6, limits: below(0.5), about: "Target: under 500 ms.",
				queries: one(mean("api_response_time_seconds", ofReached, ""), "mean")},
			{title: "p95", kind: number, unit: "s", width: 6, limits: below(1), about: "Target: under 1 s.",
				queries: one(quantile("0.95", "api_response_time_seconds", ofReached, ""), "p95")},
			{title: "p99", kind: number, unit: "s", width: 6, limits: below(2), about: "Target: under 2 s.",
				queries: one(quantile("0.99", "api_response_time_seconds", ofReached, ""), "p99")},
			{title: "Share over 1 s", kind: number, unit: "percentunit", width: 6, limits: below(0.05), about: "The p95 target holds while this is under 5 %. Exact: 1 s is a bucket edge.",
				queries: one(overOneSecond, "over 1 s")},
		}},
		{"Trends", []panel{
			{title: "Percentiles", kind: graph, unit: "s", limits: below(1), queries: percentiles("api_response_time_seconds", ofReached)},
			{title: "p95 by model and version", kind: graph, unit: "s", limits: below(1), about: "HighResponseTime judges each of these lines.",
				queries: one(quantile("0.95", "api_response_time_seconds", ofReached, "model, version"), "{{model}}@{{version}}")},
			{title: "Distribution", kind: heatmap, unit: "s", about: "A dot is the trace of one request, where exemplars are stored.",
				queries: one(`sum by (le) (increase(api_response_time_seconds_bucket{`+ofReached+`}[$__rate_interval]))`, "{{le}}")},
			{title: "Mean by model and version", kind: graph, unit: "s", limits: below(0.5),
				queries: one(mean("api_response_time_seconds", ofReached, "model, version"), "{{model}}@{{version}}")},
			{title: "How fast the latency budgets burn (1 h)", kind: graph, unit: "none", limits: []limit{{0, green}, {1, yellow}, {14.4, red}}, about: "1 uses up a budget of 30 days in 30 days.",
				queries: []query{
					{`job:api_response_time_slow1s:ratio_rate1h{` + ofJob + `} / 0.05`, "p95 under 1 s, {{job}}", needsRules},
					{`job:api_response_time_slow2s:ratio_rate1h{` + ofJob + `} / 0.01`, "p99 under 2 s, {{job}}", needsRules}}},
			{title: "p95 from native histograms", kind: graph, unit: "s", about: "Empty unless NATIVE_HISTOGRAMS=true and the server ingests them.",
				queries: []query{{"histogram_quantile(0.95, sum (rate(api_response_time_seconds{" + ofReached + "}[$__rate_interval])))", "p95", needsNative}}},
		}},
	},
}

const overOneSecond = `1 - sum (rate(api_response_time_seconds_bucket{` + ofReached + `,le=~"1([.]0)?"}[$__rate_interval]))
/
(sum (rate(api_response_time_seconds_count{` + ofReached + `}[$__rate_interval])) > 0)`

// valid requests are those that count for or against the service.
const valid = ofInference + `,status=~"success|error"`

var errorRate = dashboard{
	name: "errors", title: "Errors",
	about: "What fails, what is turned away, and how fast the error budget burns. Target: more than 99 % of the valid requests succeed.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Success ratio", kind: number, unit: "percentunit", width: 6, limits: above(0.99), about: "Target: over 99 %. Client errors, rate limits and clients that left don't count.",
				queries: one(ratio(rate("api_requests_total", ofInference+`,status="success"`, ""), rate("api_requests_total", valid, "")), "success")},
			{title: "Error ratio", kind: number, unit: "percentunit", width: 6, limits: below(0.01), about: "Target: under 1 %. HighErrorRate fires at 5 %.",
				queries: one(ratio(rate("api_requests_total", ofInference+`,status="error"`, ""), rate("api_requests_total", valid, "")), "errors")},
			{title: "Error budget left (30 days)", kind: number, unit: "percentunit", width: 6, limits: []limit{{-10, red}, {0, yellow}, {0.25, green}}, about: "Share of the 1 % of 30 days that is not used up. Below 0 the objective is missed.",
				queries: []query{{budgetLeft, "left", needsMonth}}},
			{title: "Burn rate (1 h)", kind: number, unit: "none", width: 6, limits: []limit{{0, green}, {1, yellow}, {14.4, red}}, about: "1 uses the budget up in exactly 30 days.",
				queries: []query{{`job:api_requests_error:ratio_rate1h{` + ofJob + `} / 0.01`, "{{job}}", needsRules}}},
		}},
		{"Outcomes", []panel{
			{title: "Requests by outcome", kind: graph, unit: "reqps", stacked: true, queries: one(rate("api_requests_total", ofInference, "status"), "{{status}}")},
			{title: "Error ratio by model and version", kind: graph, unit: "percentunit", limits: below(0.05),
				queries: one(ratio(rate("api_requests_total", ofReached+`,status="error"`, "model, version"), rate("api_requests_total", ofReached+`,status=~"success|error"`, "model, version")), "{{model}}@{{version}}")},
			{title: "Failures after acceptance, by type", kind: graph, unit: "reqps", stacked: true, about: "The engine had taken these.",
				queries: one(rate("failed_inferences_total", ofModel, "error_type"), "{{error_type}}")},
			{title: "Refused before acceptance, by reason", kind: graph, unit: "reqps", stacked: true, about: "unauthorized: keys; rate_limited: RATE_LIMIT; queue_full: capacity; engine_unavailable: look at the engine.",
				queries: one(rate("llm_requests_rejected_total", ofInstance, "reason"), "{{reason}}")},
			{title: "Clients that left", kind: graph, unit: "reqps", stacked: true, about: "By how far their request was.", queries: one(rate("llm_requests_cancelled_total", ofInstance, "stage"), "{{stage}}")},
			{title: "Model loads that failed (1 h)", kind: graph, unit: "none", queries: one(`sum by (model, version, reason) (increase(model_load_failures_total{`+ofModel+`}[1h]))`, "{{model}}@{{version}}: {{reason}}")},
			{title: "Rate limiter", kind: graph, unit: "reqps", stacked: true, queries: one(rate("llm_rate_limit_decisions_total", ofInstance, "scope, decision"), "{{scope}} {{decision}}")},
			{title: "Error ratio by window", kind: graph, unit: "percentunit", about: "The windows that the budget alerts compare.",
				queries: []query{
					{`job:api_requests_error:ratio_rate5m{` + ofJob + `}`, "5 m {{job}}", needsRules},
					{`job:api_requests_error:ratio_rate1h{` + ofJob + `}`, "1 h {{job}}", needsRules},
					{`job:api_requests_error:ratio_rate6h{` + ofJob + `}`, "6 h {{job}}", needsRules}}},
		}},
	},
}

const budgetLeft = `1 - (
  sum (increase(api_requests_total{` + ofInference + `,status="error"}[30d]))
  /
  (sum (increase(api_requests_total{` + valid + `}[30d])) > 0)
) / 0.01`

var business = dashboard{
	name: "business", title: "Business",
	about: "What the service does for whom: inferences by domain, model and version, tokens, lengths, cache.",
	rows: []row{
		{"Against the targets", []panel{
			{title: "Requests/s", kind: number, unit: "reqps", width: 6, about: "Target: over 10/s when that many are asked for. Red says nothing while nobody waits.", limits: above(10),
				queries: one(rate("api_requests_total", ofInference+`,status="success"`, ""), "answered")},
			{title: "Tokens/s", kind: number, unit: "none", width: 6, about: "Target: over 100/s when that many are asked for.", limits: above(100),
				queries: one(rate("tokens_generated_total", ofModel, ""), "generated")},
			{title: "Model cache hit rate", kind: number, unit: "percentunit", width: 6, about: "Target: over 90 % of the requests find their model loaded.", limits: above(0.9),
				queries: one(ratio(rate("model_cache_hits_total", ofJob, ""), rate("model_cache_hits_total", ofJob, "")+" + "+rate("model_cache_misses_total", ofJob, "")), "hits")},
			{title: "Requests that met every objective", kind: number, unit: "percentunit", width: 6, about: "Whole answers judged against a target that grows with their length (SLO_E2E).", limits: above(0.95),
				queries: one(ratio(rate("llm_slo_requests_total", ofModel+`,slo="e2e",result="good"`, ""), rate("llm_slo_requests_total", ofModel+`,slo="e2e"`, "")), "good")},
		}},
		{"Who asks for what", []panel{
			{title: "Inferences by domain", kind: graph, unit: "reqps", stacked: true, queries: one(rate("successful_inferences_total", ofModel, "domain"), "{{domain}}")},
			{title: "Inferences by model and version", kind: graph, unit: "reqps", stacked: true, queries: one(rate("successful_inferences_total", ofModel, "model, version"), "{{model}}@{{version}}")},
			{title: "Success by model and version", kind: graph, unit: "percentunit", about: "Of what the engine took. Failures carry no domain, so there is no such ratio by domain.",
				queries: one(ratio(rate("successful_inferences_total", ofModel, "model, version"), rate("successful_inferences_total", ofModel, "model, version")+" + "+rate("failed_inferences_total", ofModel, "model, version")), "{{model}}@{{version}}")},
			{title: "Tokens by model", kind: graph, unit: "none", stacked: true, queries: one(rate("tokens_generated_total", ofModel, "model"), "{{model}}")},
			{title: "Inferences of today by domain", kind: graph, unit: "none", about: "Sum over the last 24 hours.", queries: one(`sum by (domain) (increase(successful_inferences_total{`+ofModel+`}[1d]))`, "{{domain}}")},
			{title: "How answers ended", kind: graph, unit: "reqps", stacked: true, about: "length: cut off by max_new_tokens or the context.", queries: one(rate("llm_request_finish_total", ofModel, "reason"), "{{reason}}")},
			{title: "Tokens of prompts", kind: graph, unit: "none", queries: percentiles("llm_request_prompt_tokens", ofModel)},
			{title: "Tokens of answers", kind: graph, unit: "none", queries: percentiles("llm_request_output_tokens", ofModel)},
		}},
	},
}
