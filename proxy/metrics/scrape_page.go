package metrics

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"tandem/schema/catalogue"
)

// maxConcurrentScrapes bounds how many scrapes are answered at a time; further ones get 503.
const maxConcurrentScrapes = 4

// Handler serves the scrape page of proxy and engine: text, OpenMetrics or protobuf as asked for, gzip, name[] filter.
// Call it once.
//
// It has no timeout on purpose: promhttp's would let the handler outlive the request whose buffers it reads.
func (m *Metrics) Handler() http.Handler {
	return compressHandler(promhttp.HandlerFor(m.gatherer(), promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            promhttpLog{m.opts.Log},
		Registry:            m.registry,
		MaxRequestsInFlight: maxConcurrentScrapes,
		DisableCompression:  true, // compressHandler is cheaper
	}))
}

// Gather returns the families that Handler serves.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) { return m.gatherer().Gather() }

func (m *Metrics) gatherer() prometheus.Gatherer {
	if m.opts.HideCustom {
		return documentedGatherer{m.registry}
	}
	return mergedGatherer{m.engine, m.registry} // the engine first, so that a failed fetch is on the page it concerns
}

// mergedGatherer merges the families of two gatherers. prometheus.Gatherers would check each series twice for
// contradictions; here the catalogue assigns every name to one of the two, and each has checked its own. If they share
// a name nevertheless, the family of the second one is shown.
type mergedGatherer [2]prometheus.Gatherer

func (j mergedGatherer) Gather() ([]*dto.MetricFamily, error) {
	first, err1 := j[0].Gather()
	second, err2 := j[1].Gather()
	all := slices.Concat(second, first)
	byName := func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) }
	slices.SortStableFunc(all, byName)
	return slices.CompactFunc(all, func(a, b *dto.MetricFamily) bool { return byName(a, b) == 0 }), errors.Join(err1, err2)
}

// documentedGatherer hides the families that are neither documented nor needed by a documented alert (F26).
type documentedGatherer struct{ from prometheus.Gatherer }

func (d documentedGatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := d.from.Gather()
	var kept []*dto.MetricFamily
	for _, f := range families {
		if c := catalogue.Find(f.GetName()); c != nil && c.Core() {
			kept = append(kept, f)
		}
	}
	return kept, err
}

type promhttpLog struct{ log *slog.Logger }

func (l promhttpLog) Println(v ...any) { l.log.Warn("scrape is incomplete", "error", v) }
