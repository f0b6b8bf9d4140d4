package main

import (
	"fmt"
	"time"
)

// histogramForm is the kind of histogram that the rules about response times read.
type histogramForm bool

const (
	classicHistograms histogramForm = false
	nativeHistograms  histogramForm = true
)

func latencyGroups(f histogramForm) []group {
	var groups []group
	for _, w := range burnWindows() {
		name := formatDuration(w)
		g := group{name: "llm-inference-slow-" + name, interval: evaluationInterval(w)}
		for _, limit := range []int{1, 2} {
			g.recordings = append(g.recordings, recording{fmt.Sprintf("job:api_response_time_slow%ds:ratio_rate%s", limit, name), f.slower(limit, name)})
		}
		groups = append(groups, g)
	}
	const response, byVersion = "api_response_time_seconds", "job, model, version"
	return append(groups, group{name: "llm-inference-latency", interval: 30 * time.Second, recordings: []recording{
		{"job_model_version:api_response_time_seconds:mean5m", f.mean(response, reachedAModel, byVersion)},
		{"job_model_version:api_response_time_seconds:p95_5m", f.quantile(0.95, response, reachedAModel, byVersion)},
		{"job_model_version:api_response_time_seconds:p99_5m", f.quantile(0.99, response, reachedAModel, byVersion)},
		{"job_model:llm_time_to_first_token_seconds:p95_5m", f.quantile(0.95, "llm_time_to_first_token_seconds", "", "job, model")},
		{"job_model:llm_inter_token_latency_seconds:p95_5m", f.quantile(0.95, "llm_inter_token_latency_seconds", "", "job, model")},
	}})
}

// slower is the share of answers that took longer than a limit in seconds, which must be a bucket edge. A server before
// version 3 may store the edge 1 as 1.0.
func (f histogramForm) slower(limit int, window string) string {
	if f == nativeHistograms {
		rate := fmt.Sprintf("sum by (job) (rate(api_response_time_seconds{%s}[%s]))", reachedAModel, window)
		return fmt.Sprintf("1 - histogram_fraction(-Inf, %d, %s)\nand\nhistogram_count(%s) > 0", limit, rate, rate)
	}
	return fmt.Sprintf(`1 - (
  sum by (job) (rate(api_response_time_seconds_bucket{%[1]s,le=~"%[2]d([.]0)?"}[%[3]s]))
  /
  (sum by (job) (rate(api_response_time_seconds_count{%[1]s}[%[3]s])) > 0)
)`, reachedAModel, limit, window)
}

func (f histogramForm) mean(metric, matchers, by string) string {
	if f == nativeHistograms {
		return fmt.Sprintf("histogram_avg(sum by (%s) (rate(%s[5m])))", by, selector(metric, matchers))
	}
	return fmt.Sprintf("sum by (%[1]s) (rate(%[2]s[5m]))\n/\n(sum by (%[1]s) (rate(%[3]s[5m])) > 0)",
		by, selector(metric+"_sum", matchers), selector(metric+"_count", matchers))
}

func (f histogramForm) quantile(q float64, metric, matchers, by string) string {
	if f == nativeHistograms {
		return fmt.Sprintf("histogram_quantile(%g, sum by (%s) (rate(%s[5m])))", q, by, selector(metric, matchers))
	}
	return fmt.Sprintf("histogram_quantile(%g, sum by (%s, le) (rate(%s[5m])))", q, by, selector(metric+"_bucket", matchers))
}

func selector(metric, matchers string) string {
	if matchers == "" {
		return metric
	}
	return metric + "{" + matchers + "}"
}
