package metrics

import (
	"strings"
	"testing"
	"time"
)

const sampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestSampled(t *testing.T) {
	for parent, want := range map[string]string{
		sampledParent:                   "0af7651916cd43dd8448eb211c80319c",
		sampledParent[:54] + "3":        "0af7651916cd43dd8448eb211c80319c", // other flags besides
		sampledParent[:54] + "b":        "0af7651916cd43dd8448eb211c80319c",
		sampledParent[:54] + "0":        "",
		sampledParent[:54] + "c":        "",
		"":                              "",
		"00-0af7651916cd43dd8448eb2-01": "",
	} {
		if got := SampledTraceID(parent); got != want {
			t.Errorf("%q gives %q, want %q", parent, got, want)
		}
	}
}

func TestExemplarsLeadToSampledTraces(t *testing.T) {
	m := newTestMetrics(t, nil)
	mm, e := m.Model(testModel, testVersion), m.Endpoint("/infer")
	ask := func(trace string) {
		e.Begin()
		mm.FirstToken(20*time.Millisecond, trace)
		mm.Finish(Outcome{Reason: "error", ErrorType: "internal", TraceID: trace})
		e.Record(Reply{Status: "error", Model: mm, Took: 300 * time.Millisecond, TraceID: trace})
	}
	ask("") // not sampled
	openMetrics := func() string {
		_, body := scrape(t, m.Handler(), "application/openmetrics-text; version=1.0.0")
		return body
	}
	if strings.Contains(openMetrics(), "trace_id") {
		t.Error("a request that isn't sampled gave an exemplar")
	}
	id := []byte(SampledTraceID(sampledParent))
	ask(string(id))
	var with []string
	for line := range strings.Lines(openMetrics()) {
		if strings.Contains(line, `# {trace_id="0af7651916cd43dd8448eb211c80319c"}`) {
			with = append(with, line[:strings.Index(line, "{")])
		}
	}
	want := "api_response_time_seconds_bucket failed_inferences_total llm_time_to_first_token_seconds_bucket"
	if got := strings.Join(with, " "); got != want {
		t.Errorf("exemplars at %s, want them at %s", got, want)
	}
	if _, plain := scrape(t, m.Handler(), ""); strings.Contains(plain, "trace_id") {
		t.Error("the plain text format has no exemplars")
	}
}
