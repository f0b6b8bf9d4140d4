package metrics

import (
	"bytes"
	"log/slog"
	"net/http"
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
	return promhttp.HandlerFor(m.gatherer(), promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            scrapeLog{m.o.Log},
		Registry:            m.registry,
		MaxRequestsInFlight: scrapesAtOnce,
	})
}

// Gather gives what Handler serves, for pages that show numbers.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) { return m.gatherer().Gather() }

func (m *Metrics) gatherer() prometheus.Gatherer {
	if m.o.HideCustom {
		return documentedOnly{m.registry}
	}
	return prometheus.Gatherers{m.join, m.registry} // the engine first, so that a failed fetch is on the page it concerns
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
