package metrics

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"tandem/schema/catalogue"
)

// scrapesAtOnce bounds how many scrapes are answered at a time; more get 503.
const scrapesAtOnce = 4

// Handler serves the joined scrape: text, OpenMetrics or protobuf as asked for, gzip, name[] filter. Call it once.
//
// It has no timeout on purpose: promhttp's would let the handler outlive the request whose buffers it reads.
func (m *Metrics) Handler() http.Handler {
	return compressed(promhttp.HandlerFor(m.gatherer(), promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            scrapeLog{m.o.Log},
		Registry:            m.registry,
		MaxRequestsInFlight: scrapesAtOnce,
		DisableCompression:  true, // ours is cheaper
	}))
}

// Gather gives what Handler serves, for pages that show numbers.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) { return m.gatherer().Gather() }

func (m *Metrics) gatherer() prometheus.Gatherer {
	if m.o.HideCustom {
		return documentedOnly{m.registry}
	}
	return bothPages{m.join, m.registry} // the engine first, so that a failed fetch is on the page it concerns
}

// bothPages puts the families of two gatherers on one page. prometheus.Gatherers would look for each series twice whether it contradicts
// another one; here the catalogue gives every name to one of both, and each has looked at its own. Should they share a name after all,
// the second one's family is shown.
type bothPages [2]prometheus.Gatherer

func (j bothPages) Gather() ([]*dto.MetricFamily, error) {
	first, err1 := j[0].Gather()
	second, err2 := j[1].Gather()
	all := slices.Concat(second, first)
	byName := func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) }
	slices.SortStableFunc(all, byName)
	return slices.CompactFunc(all, func(a, b *dto.MetricFamily) bool { return byName(a, b) == 0 }), errors.Join(err1, err2)
}

// documentedOnly hides whatever isn't documented or needed by a documented alert (F26).
type documentedOnly struct{ from prometheus.Gatherer }

func (d documentedOnly) Gather() ([]*dto.MetricFamily, error) {
	families, err := d.from.Gather()
	var kept []*dto.MetricFamily
	for _, f := range families {
		if c := catalogue.Find(f.GetName()); c != nil && c.Core() {
			kept = append(kept, f)
		}
	}
	return kept, err
}

type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) { l.log.Warn("scrape is incomplete", "error", v) }

// WriteRouter writes the page for endpoint pickers, which poll it many times a second: one series without labels for each of the
// gauges they need, and the facts about adapters and cache. Prometheus text 0.0.4; it doesn't ask the engine.
func (m *Metrics) WriteRouter(b *bytes.Buffer) {
	writeGauge(b, "llm_requests_waiting", float64(m.waiting()))
	writeGauge(b, "llm_requests_running", float64(m.state.engineRunning.Load()))
	writeGauge(b, "llm_kv_cache_usage_ratio", m.state.kvUsage.load())
	writeInfo(b, "llm_cache_config_info", &m.cache)
	writeInfo(b, "llm_lora_requests_info", &m.adapters)
}

// RouterContentType is that of WriteRouter.
const RouterContentType = "text/plain; version=0.0.4; charset=utf-8"

func writeType(b *bytes.Buffer, name string) {
	b.WriteString("# TYPE ")
	b.WriteString(name)
	b.WriteString(" gauge\n")
	b.WriteString(name)
}

func writeGauge(b *bytes.Buffer, name string, value float64) {
	writeType(b, name)
	writeValue(b, value)
}

func writeValue(b *bytes.Buffer, value float64) {
	b.WriteByte(' ')
	b.Write(strconv.AppendFloat(b.AvailableBuffer(), value, 'f', -1, 64))
	b.WriteByte('\n')
}

func writeInfo(b *bytes.Buffer, name string, i *info) {
	v := i.current.Load()
	if v == nil {
		return
	}
	writeType(b, name)
	for n, label := range catalogue.Find(name).Labels {
		b.WriteByte("{,"[min(n, 1)])
		b.WriteString(label.Name)
		b.WriteString(`="`)
		b.WriteString(escape.Replace(v.labels[n]))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	writeValue(b, v.value)
}

// escape is what the text format asks for inside of label values, and no more.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
