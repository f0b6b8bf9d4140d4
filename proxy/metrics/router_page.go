package metrics

import (
	"bytes"
	"strconv"
	"strings"

	"tandem/schema/catalogue"
)

// WriteRouterPage writes the page for endpoint pickers, which poll it many times a second: one series for each of the
// gauges they need, and the info metrics of adapters and cache. Each stands there under its own name and the one that
// pickers ask for when nobody tells them another. None is ever missing, also while there is no engine, since a picker
// may take a server without one for broken. It is Prometheus text 0.0.4, and needs no call to the engine.
func (m *Metrics) WriteRouterPage(b *bytes.Buffer) {
	writeGauges(b, float64(m.waiting()), "llm_requests_waiting", "vllm:num_requests_waiting")
	writeGauges(b, float64(m.scraped.engineRunning.Load()), "llm_requests_running", "vllm:num_requests_running")
	writeGauges(b, m.scraped.kvUsage.load(), "llm_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc")
	cache := m.cacheConfigInfo.orElse(infoValue{1, []string{"1", "0"}})
	cacheLabels := catalogue.Find("llm_cache_config_info").LabelNames()
	writeInfo(b, "llm_cache_config_info", cacheLabels, cache)
	writeInfo(b, "vllm:cache_config_info", []string{"block_size", "num_gpu_blocks"}, cache)
	adapters := m.adaptersInfo.orElse(infoValue{0, []string{"0", "", ""}})
	adapterLabels := catalogue.Find("llm_lora_requests_info").LabelNames()
	writeInfo(b, "llm_lora_requests_info", adapterLabels, adapters)
	writeInfo(b, "vllm:lora_requests_info", adapterLabels, adapters)
}

// RouterContentType is that of WriteRouterPage.
const RouterContentType = "text/plain; version=0.0.4; charset=utf-8"

func writeType(b *bytes.Buffer, name string) {
	b.WriteString("# TYPE ")
	b.WriteString(name)
	b.WriteString(" gauge\n")
	b.WriteString(name)
}

func writeGauges(b *bytes.Buffer, value float64, names ...string) {
	for _, name := range names {
		writeType(b, name)
		writeValue(b, value)
	}
}

func writeValue(b *bytes.Buffer, value float64) {
	b.WriteByte(' ')
	b.Write(strconv.AppendFloat(b.AvailableBuffer(), value, 'f', -1, 64))
	b.WriteByte('\n')
}

func writeInfo(b *bytes.Buffer, name string, labels []string, v infoValue) {
	writeType(b, name)
	for i, label := range labels {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(label)
		b.WriteString(`="`)
		b.WriteString(escape.Replace(v.labels[i]))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	writeValue(b, v.value)
}

// escape escapes what the text format demands inside of label values, and no more.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
