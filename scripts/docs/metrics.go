package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"tandem/schema/catalogue"
)

var metricsHead = `# Metrics

<!-- Made by go run ./scripts/docs from schema/catalogue. Change it there. -->

The proxy serves everything on one page, ` + "`/prometheus`" + ` (` + "`METRICS_PATH`" + `): its own metrics, and those of the
engine, which it fetches when somebody scrapes. While the engine is away its own families (groups X and G) are missing;
all others stay, since what must survive an engine belongs to the proxy. Of two engines, as during an upgrade, it shows
the older one until that drains or goes. ` + "`CUSTOM_METRICS=false`" + ` leaves only
group D, ` + "`model_load_failures_total` and `llm_engine_up`" + `.

` + "`model` and `version`" + ` are names of installed models, ` + "`unknown`" + ` for one that isn't installed, ` + "`none`" + ` where a
model does not apply, and ` + "`other`" + ` beyond 256 pairs. ` + "`endpoint`" + ` is a route, or ` + "`other`" + `; inference is
` + inferenceEndpoints() + `.
` + "`domain`" + ` is one of at most 32 configured names, ` + "`general` or `other`" + `. No label comes from a client.
In the engine's own families about steps, places and the KV cache ` + "`model`" + ` names loaded weights: a version that is a full
model is ` + "`model@version`" + ` there, and while a changed model is replaced the gauges are the sum of both.
Counters exist at 0 before their first event, so that ` + "`increase()`" + ` sees it; histograms of a model exist once
it is asked for or loaded, those of its response times at other endpoints than ` + "`/infer`" + ` with the first request there.
The series of a model that no engine has any more stay for an hour (` + "`METRICS_KEEP_REMOVED`" + `), so that their last values
are scraped, and while a request counts there; then they go (those of ` + "`DEFAULT_MODEL`" + ` never), and a model that
comes back counts from 0.

` + "`/metrics/router`" + ` is a small page for endpoint pickers that poll many times a second:
` + "`llm_requests_waiting`, `llm_requests_running`, `llm_kv_cache_usage_ratio`, `llm_cache_config_info`" + ` and
` + "`llm_lora_requests_info`" + `, one series each, and none ever missing. Each stands there a second time under the name
that pickers ask for by themselves: ` + "`vllm:num_requests_waiting`, `vllm:num_requests_running`" + `,
` + "`vllm:kv_cache_usage_perc`, `vllm:cache_config_info` and `vllm:lora_requests_info`" + `; see
[deploy.md](deploy.md#gateway-and-endpoint-picker).
`

// inferenceEndpoints lists them as text, in lines that are short enough.
func inferenceEndpoints() string {
	var b strings.Builder
	column := 0
	for i, path := range catalogue.InferenceEndpoints {
		word := "`" + path + "`"
		if i < len(catalogue.InferenceEndpoints)-1 {
			word += ","
		}
		switch {
		case i == 0:
		case column+1+len(word) > maxWidth:
			b.WriteString("\n")
			column = 0
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

func metricsPage() []byte {
	var b bytes.Buffer
	b.WriteString(metricsHead)
	for _, g := range catalogue.Groups() {
		fmt.Fprintf(&b, "\n## %s (%s)\n\n| Metric | Type | Labels | Buckets | Measured by | What it is |\n|---|---|---|---|---|---|\n", g.Title, g.Group)
		for _, m := range catalogue.All() {
			if m.Group == g.Group {
				metricRow(&b, m)
			}
		}
	}
	labelValues(&b)
	buckets(&b)
	runtimeFamilies(&b)
	return b.Bytes()
}

func metricRow(b *bytes.Buffer, m *catalogue.Metric) {
	bounds := ""
	if m.Bounds != nil {
		bounds = m.Bounds.Name
	}
	help := m.Help
	if m.RouterOnly {
		help += " (on `/metrics/router` only)"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.LabelNames(), ", "), bounds, m.Owner, cell(help))
}

func labelValues(b *bytes.Buffer) {
	b.WriteString("\n## Values of labels\n\n| Metric | Label | Values |\n|---|---|---|\n")
	for _, m := range catalogue.All() {
		for _, l := range m.Labels {
			if l.Values != nil {
				fmt.Fprintf(b, "| `%s` | %s | %s |\n", m.Name, l.Name, strings.Join(l.Values, ", "))
			}
		}
	}
}

func buckets(b *bytes.Buffer) {
	b.WriteString("\n## Buckets\n\n| Name | Upper edges | For |\n|---|---|---|\n")
	for _, bounds := range catalogue.AllBounds() {
		edges := make([]string, len(bounds.Edges))
		for i, e := range bounds.Edges {
			edges[i] = strconv.FormatFloat(e, 'f', -1, 64)
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", bounds.Name, strings.Join(edges, " "), bounds.Why)
	}
}

func runtimeFamilies(b *bytes.Buffer) {
	b.WriteString("\n## Processes\n\nThe proxy's own `process_*`, `go_*` and `promhttp_metric_handler_*` families come from client_golang. Of the engine's\nthe page has these, renamed:\n\n" +
		"| Metric | Type | What it is |\n|---|---|---|\n")
	for _, name := range catalogue.EngineRuntimeNames() {
		m, _ := catalogue.EngineRuntime(name)
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", m.Name, m.Kind, cell(m.Help))
	}
}
