package metrics

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"

	"tandem/schema/catalogue"
)

// Limits of reading the engine's metrics. The fetch must end well before a scrape gives up (5 s). An engine on a busy
// machine has the longer time; of one that hangs, only the first scrape waits that long.
const (
	fetchTimeout       = time.Second
	refetchTimeout     = 300 * time.Millisecond // after a fetch that failed
	fetchCacheTTL      = time.Second            // so that two scrapers share one fetch
	maxEngineTextBytes = 4 << 20                // bytes
)

// engineGatherer makes the engine's metrics part of the scrape. Stale values would hide an outage, so after a failed
// fetch it has none.
type engineGatherer struct {
	fetch  func(ctx context.Context) ([]byte, error)
	errors prometheus.Counter
	log    *slog.Logger
	now    func() time.Time

	mu       sync.Mutex // held during a fetch; guards what follows
	families []*dto.MetricFamily
	at       time.Time
	failed   bool // the last fetch
}

func newEngineGatherer(fetch func(context.Context) ([]byte, error), errors prometheus.Counter, log *slog.Logger) *engineGatherer {
	return &engineGatherer{fetch: fetch, errors: errors, log: log, now: time.Now}
}

// Gather implements prometheus.Gatherer. It returns no error, since a failing engine must not spoil the proxy's own
// page.
func (j *engineGatherer) Gather() ([]*dto.MetricFamily, error) {
	if j.fetch == nil {
		return nil, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if now := j.now(); j.at.IsZero() || now.Sub(j.at) >= fetchCacheTTL {
		families, err := j.fetchFamilies()
		if err != nil {
			j.errors.Inc()
			j.log.Debug("engine metrics are left out of this scrape", "error", err)
		}
		j.families, j.at, j.failed = families, j.now(), err != nil
	}
	return j.families, nil
}

func (j *engineGatherer) fetchFamilies() ([]*dto.MetricFamily, error) {
	timeout := fetchTimeout
	if j.failed {
		timeout = refetchTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	text, err := j.fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch engine metrics: %w", err)
	}
	if len(text) > maxEngineTextBytes {
		return nil, fmt.Errorf("fetch engine metrics: %d bytes are more than %d", len(text), maxEngineTextBytes)
	}
	return parseEngineMetrics(text)
}

// parseEngineMetrics keeps the families that the catalogue lists for the engine, adds the help text, and renames those
// of its process so that they don't collide with the proxy's. The result is sorted and is never changed again.
func parseEngineMetrics(text []byte) ([]*dto.MetricFamily, error) {
	parsed, ok := parseSimpleText(string(text), isEngineMetric) // a copy, into which names and labels may point
	if !ok {
		var err error
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if parsed, err = parser.TextToMetricFamilies(bytes.NewReader(text)); err != nil {
			return nil, fmt.Errorf("parse engine metrics: %w", err)
		}
	}
	families := make([]*dto.MetricFamily, 0, len(parsed))
	for name, f := range parsed {
		c, ok := findEngineMetric(name)
		if !ok || !setCatalogueType(f, c.Kind) {
			continue
		}
		f.Name, f.Help = proto.String(c.Name), proto.String(c.Help)
		for _, m := range f.Metric {
			sortLabels(m)
		}
		slices.SortFunc(f.Metric, compareLabels)
		families = append(families, f)
	}
	if !ok { // parseSimpleText accepts no duplicate series
		check := prometheus.Gatherers{prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })}
		if _, err := check.Gather(); err != nil {
			return nil, fmt.Errorf("check engine metrics: %w", err)
		}
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return families, nil
}

// findEngineMetric finds the metric that the engine may expose under that name.
func findEngineMetric(name string) (catalogue.Metric, bool) {
	if c := catalogue.Find(name); c != nil && c.Owner == catalogue.Engine {
		return *c, true
	}
	return catalogue.EngineRuntime(name)
}

func isEngineMetric(name string) bool {
	_, ok := findEngineMetric(name)
	return ok
}

// sortLabels spares client_golang doing it in place, which would be a data race between two scrapes of the cached
// families.
func sortLabels(m *dto.Metric) {
	slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
}

// compareLabels is the order in which client_golang lists a family's series.
func compareLabels(a, b *dto.Metric) int {
	return slices.CompareFunc(a.Label, b.Label, func(x, y *dto.LabelPair) int { return strings.Compare(x.GetValue(), y.GetValue()) })
}

// setCatalogueType sets a family's type to that of the catalogue: the engine's library calls some counters gauges and
// leaves others untyped. False means that the values don't fit the type.
func setCatalogueType(f *dto.MetricFamily, kind catalogue.Kind) bool {
	if kind == catalogue.Histogram {
		return f.GetType() == dto.MetricType_HISTOGRAM
	}
	want := dto.MetricType_GAUGE
	if kind == catalogue.Counter {
		want = dto.MetricType_COUNTER
	}
	for _, m := range f.Metric {
		v, ok := scalarValue(m)
		if !ok {
			return false
		}
		m.Counter, m.Gauge, m.Untyped = nil, nil, nil
		if kind == catalogue.Counter {
			m.Counter = &dto.Counter{Value: proto.Float64(v)}
		} else {
			m.Gauge = &dto.Gauge{Value: proto.Float64(v)}
		}
	}
	f.Type = &want
	return true
}

func scalarValue(m *dto.Metric) (float64, bool) {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue(), true
	case m.Gauge != nil:
		return m.Gauge.GetValue(), true
	case m.Untyped != nil:
		return m.Untyped.GetValue(), true
	}
	return 0, false
}
