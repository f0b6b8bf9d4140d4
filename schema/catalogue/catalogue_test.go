package catalogue

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestDocumentedMetrics(t *testing.T) {
	documented := map[string]struct {
		kind   Kind
		labels string
	}{
		"api_requests_total":            {Counter, "endpoint,status,model,version"},
		"api_response_time_seconds":     {Histogram, "endpoint,model,version"},
		"api_request_size_bytes":        {Histogram, "endpoint"},
		"api_response_size_bytes":       {Histogram, "endpoint"},
		"model_load_time_seconds":       {Histogram, "model,version"},
		"model_memory_usage_bytes":      {Gauge, "model,version"},
		"token_generation_time_seconds": {Histogram, "model,version"},
		"tokens_generated_total":        {Counter, "model,version"},
		"model_cache_hits_total":        {Counter, "model,version"},
		"model_cache_misses_total":      {Counter, "model,version"},
		"successful_inferences_total":   {Counter, "model,version,domain"},
		"failed_inferences_total":       {Counter, "model,version,error_type"},
	}
	found := 0
	for _, m := range All() {
		if m.Group != Documented {
			continue
		}
		found++
		want := documented[m.Name]
		if m.Kind != want.kind || strings.Join(m.LabelNames(), ",") != want.labels || m.Owner != Proxy {
			t.Errorf("%s: %s%v of %s", m.Name, m.Kind, m.LabelNames(), m.Owner)
		}
	}
	if found != len(documented) {
		t.Errorf("%d documented metrics, want %d", found, len(documented))
	}
	for name, help := range map[string]string{"api_requests_total": "Total API requests", "api_response_time_seconds": "Response time in seconds"} {
		if got := Find(name).Help; got != help {
			t.Errorf("%s: help %q, documented is %q", name, got, help)
		}
	}
	for _, edge := range []float64{0.1, 0.5, 1, 2} {
		if !slices.Contains(Find("api_response_time_seconds").Bounds.Edges, edge) {
			t.Errorf("response times have no edge at %v s", edge)
		}
	}
}

func TestEveryMetricIsSound(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := make(map[string]bool)
	for _, m := range All() {
		if seen[m.Name] || !name.MatchString(m.Name) || m.Help == "" {
			t.Errorf("%s: there twice, badly named or without help", m.Name)
		}
		seen[m.Name] = true
		if (m.Kind == Counter) != strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%s is a %s", m.Name, m.Kind)
		}
		if (m.Kind == Histogram) != (m.Bounds != nil) {
			t.Errorf("%s: bounds %v", m.Name, m.Bounds)
		}
		if m.Bounds != nil && !slices.IsSortedFunc(m.Bounds.Edges, func(a, b float64) int {
			if a < b {
				return -1
			}
			return 1
		}) {
			t.Errorf("%s: bounds don't ascend", m.Name)
		}
		for _, l := range m.Labels {
			if !name.MatchString(l.Name) || l.Values != nil && !slices.Contains(l.Values, l.Fallback) {
				t.Errorf("%s: label %s with fallback %q", m.Name, l.Name, l.Fallback)
			}
		}
		if m.Owner == Engine && !strings.HasPrefix(m.Name, "llm_") {
			t.Errorf("%s is the engine's and could meet another family", m.Name)
		}
	}
}

func TestEngineRuntimeIsRenamed(t *testing.T) {
	for _, n := range EngineRuntimeNames() {
		m, ok := EngineRuntime(n)
		if !ok || m.Name != "llm_engine_"+n || m.Help == "" || Find(m.Name) != nil {
			t.Errorf("%s became %q", n, m.Name)
		}
	}
	if _, ok := EngineRuntime("go_gc_forced_count"); ok {
		t.Error("a family that isn't listed is kept")
	}
}
