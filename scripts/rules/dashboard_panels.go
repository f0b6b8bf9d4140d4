package main

import (
	"strings"
	"time"
)

// dashboard is a Grafana dashboard.
type dashboard struct {
	name        string // of the file; part of the UID
	title       string
	description string
	rows        []row
}

type row struct {
	title  string
	panels []panel
}

// panel is a Grafana panel.
type panel struct {
	title       string
	description string // how to read it
	kind        panelKind
	unit        string // by Grafana's name
	width       int    // in 24ths of the page; 0: the default of the kind
	queries     []query
	thresholds  []threshold // from the lowest up
	stacked     bool
}

type panelKind string

// Kinds of panels, by Grafana's names.
const (
	timeSeriesPanel panelKind = "timeseries"
	statPanel       panelKind = "stat"
	heatmapPanel    panelKind = "heatmap"
	tablePanel      panelKind = "table"
)

// query is one expression of a panel. Its variables are $job, $instance, $model and $__rate_interval.
type query struct {
	expr   string
	legend string
	needs  string // what it needs to return data; empty: one answered request
}

// What a query may need.
const (
	needsNative  = "native histograms"
	needsGPU     = "a GPU with NVML"
	needsRules   = "the recording rules"
	needsTraffic = "traffic"
	needsModel   = "a real model"
)

// threshold colours values from a limit on.
type threshold struct {
	from   float64
	colour string
}

const (
	green  = "green"
	yellow = "yellow"
	red    = "red"
)

// thresholdBelow colours a value that should stay under its target.
func thresholdBelow(target float64) []threshold { return []threshold{{0, green}, {target, red}} }

// thresholdAbove colours a value that should stay over its target.
func thresholdAbove(target float64) []threshold { return []threshold{{0, red}, {target, green}} }

// Selectors of the panels.
const (
	selectJob        = `job=~"$job"`
	selectInstance   = `job=~"$job",instance=~"$instance"`
	selectModel      = `job=~"$job",model=~"$model"`
	selectEngineWork = `job=~"$job",instance=~"$instance",model=~"$model"`
)

// Selectors of inference requests.
var (
	selectInference     = `job=~"$job",` + inferenceRequests
	selectReachedAModel = `job=~"$job",` + reachedAModel + `,model=~"$model"`
)

// rate is the rate of a counter, summed over all labels but those in by.
func rate(metric, matchers, by string) string {
	return sum(by) + "(rate(" + selector(metric, matchers) + "[$__rate_interval]))"
}

func sum(by string) string {
	if by == "" {
		return "sum "
	}
	return "sum by (" + by + ") "
}

// ratio divides; where the divisor is 0 it returns no sample instead of NaN.
func ratio(above, below string) string { return above + "\n/\n(" + below + " > 0)" }

// quantile of a classic histogram.
func quantile(q, metric, matchers, by string) string {
	if by != "" {
		by += ", "
	}
	return "histogram_quantile(" + q + ", " + rate(metric+"_bucket", matchers, by+"le") + ")"
}

// mean of a classic histogram.
func mean(metric, matchers, by string) string {
	return ratio(rate(metric+"_sum", matchers, by), rate(metric+"_count", matchers, by))
}

// singleQuery returns the queries of a panel that has only one.
func singleQuery(expr, legend string) []query { return []query{{expr: expr, legend: legend}} }

// p50p95p99 returns queries for three percentiles.
func p50p95p99(metric, matchers string) []query {
	return []query{
		{expr: quantile("0.5", metric, matchers, ""), legend: "p50"},
		{expr: quantile("0.95", metric, matchers, ""), legend: "p95"},
		{expr: quantile("0.99", metric, matchers, ""), legend: "p99"},
	}
}

// substituteVariables replaces Grafana's variables by values.
func substituteVariables(expr string, rateWindow time.Duration) string {
	return strings.NewReplacer("$__rate_interval", formatDuration(rateWindow), "$job", ".*", "$instance", ".*", "$model", ".*").Replace(expr)
}
