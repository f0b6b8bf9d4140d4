package selftest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"tandem/schema/catalogue"
)

// scrapedMetrics is a metrics page that was read, by the names of the families.
type scrapedMetrics map[string]*dto.MetricFamily

// checkDocumented checks the families of the group Documented: that they are there, with their type and labels.
func (s scrapedMetrics) checkDocumented() error {
	var wrong []error
	for _, c := range catalogue.All() {
		if c.Group != catalogue.Documented {
			continue
		}
		f := s[c.Name]
		if f == nil {
			if c.Name != "model_memory_usage_bytes" { // has a series only while something is loaded
				wrong = append(wrong, fmt.Errorf("%s is missing", c.Name))
			}
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != c.Kind.String() {
			wrong = append(wrong, fmt.Errorf("%s is a %s, want a %s", c.Name, got, c.Kind))
		}
		if got, want := labelNames(f.GetMetric()[0]), slices.Sorted(slices.Values(c.LabelNames())); !slices.Equal(got, want) {
			wrong = append(wrong, fmt.Errorf("%s has labels %v, want %v", c.Name, got, want))
		}
	}
	return errors.Join(wrong...)
}

func labelNames(m *dto.Metric) []string {
	var names []string
	for _, l := range m.GetLabel() {
		names = append(names, l.GetName())
	}
	slices.Sort(names)
	return names
}

// sum adds the series of a family that have the labels: counters and gauges by value, histograms by number of
// observations.
func (s scrapedMetrics) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, m := range s[name].GetMetric() {
		if hasLabels(m, labels) {
			total += seriesValue(m)
		}
	}
	return total
}

// sumInference is sum over the endpoints of inference.
func (s scrapedMetrics) sumInference(name string, labels ...string) float64 {
	total := 0.0
	for _, endpoint := range catalogue.InferenceEndpoints {
		total += s.sum(name, append([]string{"endpoint", endpoint}, labels...)...)
	}
	return total
}

func hasLabels(m *dto.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
			return false
		}
	}
	return true
}

func seriesValue(m *dto.Metric) float64 {
	if m.Histogram != nil {
		return float64(m.Histogram.GetSampleCount())
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// checkNotFallen checks that no counter or histogram of the proxy is lower later. Those of the engine start at 0 with
// each engine.
func (s scrapedMetrics) checkNotFallen(later scrapedMetrics) error {
	var wrong []error
	for name, f := range s {
		if f.GetType() == dto.MetricType_GAUGE || f.GetType() == dto.MetricType_UNTYPED || strings.HasPrefix(name, "llm_engine_") {
			continue
		}
		if was, is := s.sum(name), later.sum(name); is < was {
			wrong = append(wrong, fmt.Errorf("%s went from %v to %v", name, was, is))
		}
	}
	return errors.Join(wrong...)
}
