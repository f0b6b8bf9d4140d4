package metrics

import (
	"bytes"
	"strconv"
	"strings"

	"tandem/schema/catalogue"
)

// WriteRouterPage writes the page for endpoint pickers, which poll it many times a second: one series without labels
// for each of the gauges they need, and the info metrics of adapters and cache. It is Prometheus text 0.0.4, and needs
// no call to the engine.
func (m *Metrics) WriteRouterPage(b *bytes.Buffer) {
	writeGauge(b, "llm_requests_waiting", float64(m.waiting()))
	writeGauge(b, "llm_requests_running", float64(m.scraped.engineRunning.Load()))
	writeGauge(b, "llm_kv_cache_usage_ratio", m.scraped.kvUsage.load())
	writeInfo(b, "llm_cache_config_info", &m.cacheConfigInfo)
	writeInfo(b, "llm_lora_requests_info", &m.adaptersInfo)
}

// RouterContentType is that of WriteRouterPage.
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

func writeInfo(b *bytes.Buffer, name string, i *infoMetric) {
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

// escape escapes what the text format demands inside of label values, and no more.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
