package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// page is one scrape.
type page map[string]*dto.MetricFamily

func (s *stack) scrape() page {
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

// sum adds up the samples of a family whose labels match the pairs; "count" and "sum" suffixes select a histogram's.
func (p page) sum(name string, pairs ...string) float64 {
	part := ""
	family := p[name]
	for _, suffix := range []string{"_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, suffix); family == nil && ok {
			family, part = p[base], suffix
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

// documented are the owner's metrics with their exact labels.
var documented = map[string]string{
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
	s := newStack(t)
	s.mustInfer(question("What is the capital of France?", "v1.0"))
	p := s.scrape()
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		family := p[name]
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
			if got := strings.Join(labels, ","); got != documented[name] {
				t.Errorf("%s has labels %s, documented are %s", name, got, documented[name])
			}
		}
	}
}

// checkInvariants asserts what must hold of any page of an idle server.
func checkInvariants(t *testing.T, p page) {
	t.Helper()
	equal := func(what string, a, b float64) {
		t.Helper()
		if a != b {
			t.Errorf("%s: %v and %v", what, a, b)
		}
	}
	succeeded := p.sum("api_requests_total", "endpoint", "/infer", "status", "success")
	equal("successful answers and inferences", succeeded, p.sum("successful_inferences_total"))
	equal("successful answers and finished generations", succeeded,
		p.sum("llm_request_finish_total", "reason", "stop")+p.sum("llm_request_finish_total", "reason", "length"))
	equal("tokens generated and output lengths", p.sum("tokens_generated_total"), p.sum("llm_request_output_tokens_sum"))
	equal("tokens generated and tokens timed", p.sum("tokens_generated_total"), p.sum("token_generation_time_seconds_count"))
	equal("requests in flight", p.sum("llm_requests_in_flight", "endpoint", "/infer"), 0)
	equal("requests waiting", p.sum("llm_requests_waiting"), 0)
	equal("requests running", p.sum("llm_requests_running"), 0)
}

func (s *stack) waitIdle() page {
	s.t.Helper()
	var p page
	s.waitFor(10*time.Second, "an idle server", func() bool {
		p = s.scrape()
		return p.sum("llm_requests_in_flight", "endpoint", "/infer") == 0 && p.sum("llm_requests_running") == 0 &&
			p.sum("llm_requests_waiting") == 0
	})
	return p
}

func TestGenerationTimeIsTheSumOfTheTokenTimes(t *testing.T) {
	s := newStack(t)
	total := 0.0
	for i := range 5 {
		total += s.mustInfer(question(fmt.Sprintf("What is the capital of Italy? %d", i), "v1.0")).Metadata.GenerationTime
	}
	p := s.waitIdle()
	if sum := p.sum("token_generation_time_seconds_sum"); math.Abs(sum-total) > 0.005*5 { // the answer rounds to milliseconds
		t.Errorf("token times sum up to %v, generation times to %v", sum, total)
	}
	checkInvariants(t, p)
}

func TestPageIsValidForPromtool(t *testing.T) {
	promtool := os.Getenv("PROMTOOL")
	if promtool == "" {
		t.Skip("PROMTOOL names no promtool; make test builds one")
	}
	s := newStack(t)
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

func TestDocumentedEndpointsHaveTheirShape(t *testing.T) {
	s := newStack(t)
	s.mustInfer(question("What is the capital of France?", "v1.0"))
	shapes := map[string][]string{
		"/health": {"status", "timestamp"},
		"/status": {"service", "version", "status", "timestamp", "prometheus_available", "cached_models", "device", "cached_model_info"},
		"/models": {"models"},
	}
	for path, fields := range shapes {
		status, body, err := s.get(path)
		var object map[string]any
		if err != nil || status != 200 || json.Unmarshal([]byte(body), &object) != nil {
			t.Errorf("%s: %d %s %v", path, status, body, err)
			continue
		}
		for _, field := range fields {
			if _, ok := object[field]; !ok {
				t.Errorf("%s has no %s: %s", path, field, body)
			}
		}
	}
	_, body, _ := s.get("/status")
	var status struct {
		Service string `json:"service"`
		Status  string `json:"status"`
		Device  string `json:"device"`
		Cached  int    `json:"cached_models"`
		Info    []struct {
			Base    string `json:"base_model"`
			Version string `json:"version"`
			Loaded  bool   `json:"loaded"`
		} `json:"cached_model_info"`
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	wantDevice := "mock"
	if realModel {
		wantDevice = "cpu"
	}
	if status.Service != "LLM Inference API" || status.Status != "healthy" || status.Device != wantDevice {
		t.Errorf("/status: %s", body)
	}
	if status.Cached == 0 || status.Cached != len(status.Info) || status.Info[0].Base != "demo" || !status.Info[0].Loaded {
		t.Errorf("/status lists %s", body)
	}
	var models struct {
		Models []struct {
			Base        string   `json:"base_model"`
			Versions    []string `json:"versions"`
			Description string   `json:"description"`
		} `json:"models"`
	}
	_, body, _ = s.get("/models")
	if err := json.Unmarshal([]byte(body), &models); err != nil {
		t.Fatal(err)
	}
	if len(models.Models) != 1 || models.Models[0].Base != "demo" || models.Models[0].Description == "" {
		t.Fatalf("/models: %s", body)
	}
	for _, v := range []string{"base", "v1.0", "v1.1", "v2.0"} {
		if !slices.Contains(models.Models[0].Versions, v) {
			t.Errorf("/models lists no %s: %s", v, body)
		}
	}
}
