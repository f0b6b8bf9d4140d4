package main

import (
	"strings"
	"time"
)

// dashboard is one page of Grafana.
type dashboard struct {
	name  string // of the file and of the page's address
	title string
	about string
	rows  []row
}

type row struct {
	title  string
	panels []panel
}

// panel shows one question's answer.
type panel struct {
	title   string
	about   string // how to read it
	kind    kind
	unit    string // Grafana's name of it
	width   int    // of 24; 0: that of the kind
	queries []query
	limits  []limit // coloured from the lowest up
	stacked bool
}

type kind string

// Kinds of panels, by Grafana's names.
const (
	graph   kind = "timeseries"
	number  kind = "stat"
	heatmap kind = "heatmap"
	table   kind = "table"
)

// query is one expression of a panel. Its variables are $job, $instance, $model and $__rate_interval.
type query struct {
	expr   string
	legend string
	needs  string // what must be there for it to give data; empty: it gives data as soon as a request was answered
}

// What a query may need.
const (
	needsNative = "native histograms"
	needsGPU    = "a GPU with NVML"
	needsRules  = "the recording rules"
	needsMonth  = "traffic"
	needsModel  = "a real model"
)

// limit colours a value from there on.
type limit struct {
	from   float64
	colour string
}

const (
	green  = "green"
	yellow = "yellow"
	red    = "red"
)

// below colours a figure that should stay under its target.
func below(target float64) []limit { return []limit{{0, green}, {target, red}} }

// above colours a figure that should stay over its target.
func above(target float64) []limit { return []limit{{0, red}, {target, green}} }

// Selectors of the panels.
const (
	ofJob        = `job=~"$job"`
	ofInstance   = `job=~"$job",instance=~"$instance"`
	ofModel      = `job=~"$job",model=~"$model"`
	ofInference  = `job=~"$job",endpoint="/infer"`
	ofReached    = `job=~"$job",endpoint="/infer",model!~"none|unknown",model=~"$model"`
	ofEngineWork = `job=~"$job",instance=~"$instance",model=~"$model"`
)

// rate is the speed of a counter, summed over everything but the labels in by.
func rate(metric, matchers, by string) string {
	return sum(by) + "(rate(" + selector(metric, matchers) + "[$__rate_interval]))"
}

func sum(by string) string {
	if by == "" {
		return "sum "
	}
	return "sum by (" + by + ") "
}

// ratio divides, and gives nothing rather than NaN where there is nothing to divide by.
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

// one is a panel's only query.
func one(expr, legend string) []query { return []query{{expr: expr, legend: legend}} }

// percentiles are the three that one looks at together.
func percentiles(metric, matchers string) []query {
	return []query{
		{expr: quantile("0.5", metric, matchers, ""), legend: "p50"},
		{expr: quantile("0.95", metric, matchers, ""), legend: "p95"},
		{expr: quantile("0.99", metric, matchers, ""), legend: "p99"},
	}
}

// fill puts values in the place of Grafana's variables.
func fill(expr string, rateWindow time.Duration) string {
	return strings.NewReplacer("$__rate_interval", duration(rateWindow), "$job", ".*", "$instance", ".*", "$model", ".*").Replace(expr)
}
