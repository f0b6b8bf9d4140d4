package metrics

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
)

// parseSimpleText parses the subset of the text format that the engine's library writes: a TYPE line before each
// family, its samples after it, labels without escapes, no help text, no timestamps. For anything else it returns
// false, and the caller uses the standard parser, which took a third of a scrape's time. Families that aren't wanted
// are skipped.
func parseSimpleText(text string, wanted func(name string) bool) (map[string]*dto.MetricFamily, bool) {
	q := simpleTextParser{wanted: wanted, families: make(map[string]*dto.MetricFamily)}
	for line := range strings.Lines(text) {
		line, whole := strings.CutSuffix(line, "\n")
		switch {
		case !whole:
			return nil, false
		case strings.HasPrefix(line, "# HELP "):
			if !model.LegacyValidation.IsValidMetricName(line[len("# HELP "):]) {
				return nil, false
			}
		case strings.HasPrefix(line, "# TYPE "):
			name, kind, _ := strings.Cut(line[len("# TYPE "):], " ")
			if !q.startFamily(name, kind) {
				return nil, false
			}
		case !q.addSample(line):
			return nil, false
		}
	}
	for name, f := range q.families {
		if len(f.Metric) == 0 {
			delete(q.families, name)
		}
	}
	return q.families, true
}

// simpleTextParser is the state of parseSimpleText.
type simpleTextParser struct {
	wanted   func(name string) bool
	families map[string]*dto.MetricFamily
	family   *dto.MetricFamily // nil while the current family isn't wanted
	name     string
	kind     dto.MetricType

	histogram *dto.Metric     // the latest one
	labels    string          // of histogram, without le
	seen      map[string]bool // labels of the family's series
}

var histogramSuffixes = []string{"_bucket", "_sum", "_count"}

func (q *simpleTextParser) startFamily(name, kind string) bool {
	kinds := map[string]dto.MetricType{"counter": dto.MetricType_COUNTER, "gauge": dto.MetricType_GAUGE,
		"untyped": dto.MetricType_UNTYPED, "histogram": dto.MetricType_HISTOGRAM}
	q.family, q.name = nil, name
	if !q.wanted(name) {
		return name != ""
	}
	of, known := kinds[kind]
	if !known || q.families[name] != nil || !model.LegacyValidation.IsValidMetricName(name) {
		return false
	}
	for _, part := range histogramSuffixes { // otherwise x_count could belong to either family
		if q.families[name+part] != nil || q.families[strings.TrimSuffix(name, part)] != nil {
			return false
		}
	}
	q.family, q.kind = &dto.MetricFamily{Name: proto.String(name), Type: of.Enum()}, of
	q.families[name] = q.family
	q.histogram, q.seen = nil, make(map[string]bool)
	return true
}

func (q *simpleTextParser) addSample(line string) bool {
	end := strings.LastIndexByte(line, ' ')
	if end < len(q.name) || q.name == "" || !strings.HasPrefix(line, q.name) {
		return false
	}
	part, labels, braces := strings.Cut(line[len(q.name):end], "{")
	if q.family == nil {
		return part == "" || slices.Contains(histogramSuffixes, part)
	}
	value, ok := parseFloat(line[end+1:])
	if !ok {
		return false
	}
	if braces {
		if labels, ok = strings.CutSuffix(labels, "}"); !ok || labels == "" {
			return false
		}
	}
	if q.kind == dto.MetricType_HISTOGRAM {
		return q.addHistogramLine(part, labels, value)
	}
	pairs, ok := parseLabels(labels)
	if !ok || part != "" || q.seen[labels] {
		return false
	}
	q.seen[labels] = true
	m := &dto.Metric{Label: pairs}
	switch q.kind {
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: &value}
	case dto.MetricType_GAUGE:
		m.Gauge = &dto.Gauge{Value: &value}
	default:
		m.Untyped = &dto.Untyped{Value: &value}
	}
	q.family.Metric = append(q.family.Metric, m)
	return true
}

// addHistogramLine adds one line of a histogram. Lines with the same labels must follow each other, and le must be the
// last label.
func (q *simpleTextParser) addHistogramLine(part, labels string, value float64) bool {
	bound, isBucket := 0.0, part == "_bucket"
	if isBucket {
		at := strings.LastIndex(labels, `le="`)
		if at < 0 || at > 0 && labels[at-1] != ',' {
			return false
		}
		le, ok := strings.CutSuffix(labels[at+len(`le="`):], `"`)
		if bound, isBucket = parseFloat(le); !ok || !isBucket || math.IsNaN(bound) {
			return false
		}
		labels = labels[:max(0, at-1)]
	}
	if q.histogram == nil || q.labels != labels {
		pairs, ok := parseLabels(labels)
		if !ok || q.seen[labels] {
			return false
		}
		q.histogram, q.labels, q.seen[labels] = &dto.Metric{Label: pairs, Histogram: &dto.Histogram{}}, labels, true
		q.family.Metric = append(q.family.Metric, q.histogram)
	}
	h := q.histogram.Histogram
	if part == "_sum" {
		h.SampleSum = &value
		return true
	}
	n := uint64(value)
	if float64(n) != value {
		return false
	}
	switch part {
	case "_bucket":
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCount: &n})
	case "_count":
		h.SampleCount = &n
	default:
		return false
	}
	return true
}

// parseLabels reads a="1",b="2", or nothing.
func parseLabels(s string) ([]*dto.LabelPair, bool) {
	if strings.Contains(s, `\`) || !utf8.ValidString(s) {
		return nil, false
	}
	var pairs []*dto.LabelPair
	for more := s != ""; more; {
		name, rest, ok := strings.Cut(s, `="`)
		if !ok || name == model.MetricNameLabel || name == model.BucketLabel || !model.LegacyValidation.IsValidLabelName(name) {
			return nil, false
		}
		value, rest, ok := strings.Cut(rest, `"`)
		if !ok {
			return nil, false
		}
		for _, p := range pairs {
			if p.GetName() == name {
				return nil, false
			}
		}
		pairs = append(pairs, &dto.LabelPair{Name: &name, Value: &value})
		if s, more = strings.CutPrefix(rest, ","); !more && rest != "" {
			return nil, false
		}
	}
	return pairs, true
}

func parseFloat(s string) (float64, bool) {
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil && !strings.ContainsAny(s, "pP_")
}
