package main

import (
	"fmt"
	"strings"
	"time"

	"tandem/schema/catalogue"
)

// Which requests the service is judged by: those for inference, and for figures of a model only those that reached one.
// Probes, scrapes and refusals would make every ratio look better than it is.
var (
	inferenceRequests = `endpoint=~"` + strings.Join(catalogue.InferenceEndpoints, "|") + `"`
	reachedAModel     = inferenceRequests + `,model!~"none|unknown"`
)

// evaluationInterval is how often rules over a window are evaluated: long windows change slowly.
func evaluationInterval(window time.Duration) time.Duration {
	if window > time.Hour {
		return 2 * time.Minute
	}
	return 30 * time.Second
}

func recordingGroups() []group {
	var groups []group
	for _, w := range burnWindows() {
		name := formatDuration(w)
		groups = append(groups, group{name: "llm-inference-errors-" + name, interval: evaluationInterval(w), recordings: []recording{
			{"job:api_requests_valid:increase" + name,
				fmt.Sprintf(`sum by (job) (increase(api_requests_total{%s,status=~"success|error"}[%s]))`, inferenceRequests, name)},
			{"job:api_requests_error:ratio_rate" + name,
				fmt.Sprintf("sum by (job) (increase(api_requests_total{%s,status=\"error\"}[%s]))\n/\n(job:api_requests_valid:increase%s > 0)", inferenceRequests, name, name)},
		}})
	}
	return append(groups, group{name: "llm-inference-kpi", interval: 30 * time.Second, recordings: kpiRecordings})
}

var kpiRecordings = []recording{
	{"job:api_requests_success:rate5m", `sum by (job) (rate(api_requests_total{` + inferenceRequests + `,status="success"}[5m]))`},
	{"job:tokens_generated:rate5m", `sum by (job) (rate(tokens_generated_total[5m]))`},
	{"job:model_cache_lookups:increase15m", `sum by (job) (increase(model_cache_hits_total[15m]))
+
sum by (job) (increase(model_cache_misses_total[15m]))`},
	{"job:model_cache_hit:ratio_rate15m", `sum by (job) (increase(model_cache_hits_total[15m]))
/
(job:model_cache_lookups:increase15m > 0)`},
	{"job_model_version:inferences_failed:ratio_rate15m", `sum by (job, model, version) (rate(failed_inferences_total{` + serverFaults + `}[15m]))
/
(
  sum by (job, model, version) (rate(failed_inferences_total{` + serverFaults + `}[15m]))
  +
  sum by (job, model, version) (rate(successful_inferences_total[15m]))
  > 0
)`},
	{"instance_device:llm_device_memory:usage_ratio", `sum by (job, instance, device) (llm_device_memory_used_bytes)
/
(sum by (job, instance, device) (llm_device_memory_total_bytes) > 0)`},
}

// serverFaults selects failures without those that the request itself caused.
const serverFaults = `error_type!~"cancelled|model_not_found|context_length_exceeded|grammar_too_complex|quarantined"`
