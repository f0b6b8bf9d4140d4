package e2e

import (
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metrics are the metric families of one scrape, by name.
type metrics map[string]*dto.MetricFamily

func (s *testServer) scrape() metrics {
	s.t.Helper()
	status, text, err := s.get("/prometheus")
	if err != nil || status != 200 {
		s.t.Fatalf("scrape: status %d, %v", status, err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		s.t.Fatalf("the page isn't valid: %v", err)
	}
	return families
}

// sumInference is sum over the endpoints of inference.
func (scraped metrics) sumInference(name string, pairs ...string) float64 {
	total := 0.0
	for _, endpoint := range []string{"/infer", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/rerank"} {
		total += scraped.sum(name, append([]string{"endpoint", endpoint}, pairs...)...)
	}
	return total
}

// sum adds up the samples of a family whose labels match the pairs; "count" and "sum" suffixes select a histogram's.
func (scraped metrics) sum(name string, pairs ...string) float64 {
	part := ""
	family := scraped[name]
	for _, suffix := range []string{"_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, suffix); family == nil && ok {
			family, part = scraped[base], suffix
		}
	}
	if family == nil {
		return math.NaN()
	}
	total := 0.0
	for _, m := range family.Metric {
		if !matches(m.Label, pairs) {
			continue
		}
		switch {
		case part == "_count":
			total += float64(m.GetHistogram().GetSampleCount())
		case part == "_sum":
			total += m.GetHistogram().GetSampleSum()
		case m.Counter != nil:
			total += m.Counter.GetValue()
		case m.Gauge != nil:
			total += m.Gauge.GetValue()
		}
	}
	return total
}

func matches(labels []*dto.LabelPair, pairs []string) bool {
	for i := 0; i+1 < len(pairs); i += 2 {
		if !slices.ContainsFunc(labels, func(l *dto.LabelPair) bool { return l.GetName() == pairs[i] && l.GetValue() == pairs[i+1] }) {
			return false
		}
	}
	return true
}

// documentedLabels are the exact labels of the documented metrics.
var documentedLabels = map[string]string{
	"api_requests_total":            "endpoint,model,status,version",
	"api_response_time_seconds":     "endpoint,model,version",
	"api_request_size_bytes":        "endpoint",
	"api_response_size_bytes":       "endpoint",
	"model_load_time_seconds":       "model,version",
	"model_memory_usage_bytes":      "model,version",
	"token_generation_time_seconds": "model,version",
	"tokens_generated_total":        "model,version",
	"model_cache_hits_total":        "model,version",
	"model_cache_misses_total":      "model,version",
	"successful_inferences_total":   "domain,model,version",
	"failed_inferences_total":       "error_type,model,version",
}

func TestDocumentedMetricsExistWithTheirLabels(t *testing.T) {
	s := startServer(t)
	s.mustInfer(question("What is the capital of France?", "v1.0"))
	scraped := s.scrape()
	for _, name := range slices.Sorted(maps.Keys(documentedLabels)) {
		family := scraped[name]
		if family == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName())
			}
			slices.Sort(labels)
			if got := strings.Join(labels, ","); got != documentedLabels[name] {
				t.Errorf("%s has labels %s, documented are %s", name, got, documentedLabels[name])
			}
		}
	}
}

// checkInvariants asserts what must hold of every scrape of an idle server.
func checkInvariants(t *testing.T, scraped metrics) {
	t.Helper()
	equal := func(what string, a, b float64) {
		t.Helper()
		if a != b {
			t.Errorf("%s: %v and %v", what, a, b)
		}
	}
	succeeded := scraped.sumInference("api_requests_total", "status", "success")
	equal("successful answers and inferences", succeeded, scraped.sum("successful_inferences_total"))
	equal("successful answers and finished generations", succeeded,
		scraped.sum("llm_request_finish_total", "reason", "stop")+scraped.sum("llm_request_finish_total", "reason", "length"))
	equal("tokens generated and output lengths", scraped.sum("tokens_generated_total"), scraped.sum("llm_request_output_tokens_sum"))
	equal("tokens generated and tokens timed", scraped.sum("tokens_generated_total"), scraped.sum("token_generation_time_seconds_count"))
	equal("requests in flight", scraped.sumInference("llm_requests_in_flight"), 0)
	equal("requests waiting", scraped.sum("llm_requests_waiting"), 0)
	equal("requests running", scraped.sum("llm_requests_running"), 0)
}

func (s *testServer) waitIdle() metrics {
	s.t.Helper()
	var scraped metrics
	s.waitFor(failureLimit, "an idle server", func() bool {
		scraped = s.scrape()
		return scraped.sumInference("llm_requests_in_flight") == 0 && scraped.sum("llm_requests_running") == 0 &&
			scraped.sum("llm_requests_waiting") == 0
	})
	return scraped
}

func TestGenerationTimeIsTheSumOfTheTokenTimes(t *testing.T) {
	onceWithMock(t)
	s := startServer(t)
	total := 0.0
	for i := range 5 {
		total += s.mustInfer(question(fmt.Sprintf("What is the capital of Italy? %d", i), "v1.0")).Metadata.GenerationTime
	}
	scraped := s.waitIdle()
	// the answer rounds to milliseconds
	if sum := scraped.sum("token_generation_time_seconds_sum"); math.Abs(sum-total) > 0.005*5 {
		t.Errorf("token times sum up to %v, generation times to %v", sum, total)
	}
	checkInvariants(t, scraped)
}

func TestPageIsValidForPromtool(t *testing.T) {
	promtool := os.Getenv("PROMTOOL")
	if promtool == "" {
		t.Skip("PROMTOOL names no promtool; make test builds one")
	}
	s := startServer(t)
	s.mustInfer(question("What is the capital of France?", "v1.0"))
	_, text, err := s.get("/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
