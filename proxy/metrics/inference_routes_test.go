package metrics

import (
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"tandem/schema/catalogue"
)

// Every way to ask for inference counts in the same way: its counters are there before its first request, and the live
// figures see it.
func TestEveryInferenceRouteCounts(t *testing.T) {
	m := New(Options{DefaultModel: "demo", DefaultVersion: "v1.0"})
	counters := scrapeFamilies(t, m)["api_requests_total"].GetMetric()
	for _, route := range catalogue.InferenceEndpoints {
		for _, status := range []string{"success", "error", "client_error", "rate_limited", "cancelled"} {
			for _, model := range []string{"model=demo", "model=unknown", "model=none"} {
				want := []string{"endpoint=" + route, "status=" + status, model}
				if !slices.ContainsFunc(counters, func(m *dto.Metric) bool { return hasLabels(m, want) }) {
					t.Errorf("no counter of %s, status %s, %s", route, status, model)
				}
			}
		}
		e := m.Endpoint(route)
		e.Begin()
		e.Record(Reply{Status: "success", Model: m.Model("demo", "v1.0"), Took: time.Second})
	}
	e := m.Endpoint("/health")
	e.Begin()
	e.Record(Reply{Status: "success", Took: time.Second})
	sample := newLiveSample()
	for _, f := range scrapeFamilies(t, m) {
		sample.add(f)
	}
	if want := float64(len(catalogue.InferenceEndpoints)); sample.status["success"] != want {
		t.Errorf("the live figures count %v requests, want %v", sample.status["success"], want)
	}
}
