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

// quickParse reads what the engine's library writes: a TYPE line before each family, its samples behind it, labels without escapes, no
// help text, no timestamps. Of anything else it says false and leaves it to the standard parser, which took a third of a scrape's time.
// Families that aren't wanted are not looked into.
func quickParse(text string, wanted func(name string) bool) (map[string]*dto.MetricFamily, bool) {
	q := quick{wanted: wanted, families: make(map[string]*dto.MetricFamily)}
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
			if !q.begin(name, kind) {
				return nil, false
			}
		case !q.sample(line):
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

// quick is the state of quickParse.
type quick struct {
	wanted   func(name string) bool
	families map[string]*dto.MetricFamily
	family   *dto.MetricFamily // nil while what comes isn't wanted
	name     string
	kind     dto.MetricType

	histogram *dto.Metric     // the last one
	labels    string          // of it, without le
	seen      map[string]bool // labels of the family's series
}

var partsOfHistogram = []string{"_bucket", "_sum", "_count"}

func (q *quick) begin(name, kind string) bool {
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
	for _, part := range partsOfHistogram { // whose sample would x_count be?
		if q.families[name+part] != nil || q.families[strings.TrimSuffix(name, part)] != nil {
			return false
		}
	}
	q.family, q.kind = &dto.MetricFamily{Name: proto.String(name), Type: of.Enum()}, of
	q.families[name] = q.family
	q.histogram, q.seen = nil, make(map[string]bool)
	return true
}

func (q *quick) sample(line string) bool {
	end := strings.LastIndexByte(line, ' ')
	if end < len(q.name) || q.name == "" || !strings.HasPrefix(line, q.name) {
		return false
	}
	part, labels, braces := strings.Cut(line[len(q.name):end], "{")
	if q.family == nil {
		return part == "" || slices.Contains(partsOfHistogram, part)
	}
	value, ok := float(line[end+1:])
	if !ok {
		return false
	}
	if braces {
		if labels, ok = strings.CutSuffix(labels, "}"); !ok || labels == "" {
			return false
		}
	}
	if q.kind == dto.MetricType_HISTOGRAM {
		return q.observe(part, labels, value)
	}
	pairs, ok := quickLabels(labels)
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

// observe takes one line of a histogram; those of the same labels follow each other, and le is the last label.
func (q *quick) observe(part, labels string, value float64) bool {
	bound, isBucket := 0.0, part == "_bucket"
	if isBucket {
		at := strings.LastIndex(labels, `le="`)
		if at < 0 || at > 0 && labels[at-1] != ',' {
			return false
		}
		le, ok := strings.CutSuffix(labels[at+len(`le="`):], `"`)
		if bound, isBucket = float(le); !ok || !isBucket || math.IsNaN(bound) {
			return false
		}
		labels = labels[:max(0, at-1)]
	}
	if q.histogram == nil || q.labels != labels {
		pairs, ok := quickLabels(labels)
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

// quickLabels reads a="1",b="2", or nothing.
func quickLabels(s string) ([]*dto.LabelPair, bool) {
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

func float(s string) (float64, bool) {
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil && !strings.ContainsAny(s, "pP_")
}
