package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tandem/schema/catalogue"
)

// knownSeries is which labels and values may be written with a series name.
type knownSeries struct {
	labels      map[string]*catalogue.Label // nil: any value
	bucketEdges []float64                   // of a histogram's buckets
}

// targetLabels are on every series, set by the scrape.
var targetLabels = []string{"job", "instance"}

// externalSeries are the series that the catalogue and our rules lack, with their labels: those of Prometheus, and
// those that client_golang adds to every scrape.
var externalSeries = map[string][]string{
	"up":                            nil,
	"ALERTS":                        {"alertname", "alertstate", "severity"},
	"process_resident_memory_bytes": nil,
	"process_cpu_seconds_total":     nil,
	"process_open_fds":              nil,
	"process_max_fds":               nil,
	"go_goroutines":                 nil,
	"scrape_duration_seconds":       nil,
	"scrape_samples_scraped":        nil,
}

// findSeries looks a name up in the catalogue, among the recorded series and among the external ones.
func findSeries(name string) (knownSeries, error) {
	if names, ok := externalSeries[name]; ok {
		return newSeries(names), nil
	}
	if before, _, ok := strings.Cut(name, ":"); ok {
		if !recordedNames()[name] {
			return knownSeries{}, fmt.Errorf("no rule records %s", name)
		}
		return newSeries(strings.Split(before, "_")), nil
	}
	for _, runtime := range catalogue.EngineRuntimeNames() {
		if m, _ := catalogue.EngineRuntime(runtime); m.Name == name {
			return newSeries(nil), nil
		}
	}
	m, part := findMetric(name)
	if m == nil {
		return knownSeries{}, fmt.Errorf("the catalogue has no metric %s", name)
	}
	if m.RouterOnly {
		return knownSeries{}, fmt.Errorf("%s is on /metrics/router only, which Prometheus doesn't scrape", name)
	}
	s := newSeries(nil)
	for i := range m.Labels {
		s.labels[m.Labels[i].Name] = &m.Labels[i]
	}
	if part == "_bucket" {
		s.labels["le"], s.bucketEdges = nil, m.Bounds.Edges
	}
	return s, nil
}

func newSeries(names []string) knownSeries {
	s := knownSeries{labels: make(map[string]*catalogue.Label)}
	for _, n := range append(names, targetLabels...) {
		s.labels[n] = nil
	}
	return s
}

// findMetric returns the metric of a series, and which part of a histogram the series is.
func findMetric(name string) (*catalogue.Metric, string) {
	if m := catalogue.Find(name); m != nil {
		return m, ""
	}
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, part); ok {
			if m := catalogue.Find(base); m != nil && m.Kind == catalogue.Histogram {
				return m, part
			}
		}
	}
	return nil, ""
}

// recordedNames returns the names of the recording rules.
func recordedNames() map[string]bool {
	names := make(map[string]bool)
	for _, g := range append(recordingGroups(), latencyGroups(classicHistograms)...) {
		for _, r := range g.recordings {
			names[r.name] = true
		}
	}
	return names
}

// tokenPattern matches a token of an expression: strings, names, numbers with their units, and single characters.
var tokenPattern = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[A-Za-z_:][A-Za-z0-9_:]*|[0-9][0-9.a-z]*|[=!]~|[!=<>]=|\S`)

var namePattern = regexp.MustCompile(`^[A-Za-z_:]`)

var keywords = map[string]bool{"and": true, "or": true, "unless": true, "bool": true, "offset": true, "Inf": true, "NaN": true}

// expressionChecker reads one expression and collects which metrics and labels it names. It isn't a parser: what
// promtool refuses may pass here.
type expressionChecker struct {
	histograms histogramForm
	tokens     []string
	labels     map[string]bool // of all series in the expression
	labelLists []labelList
	problems   []error
}

// labelList is the labels of a by or on clause, and those of the series to which it applies.
type labelList struct {
	names []string
	scope map[string]bool // nil: the whole expression
}

// checkExpression returns the labels of the series in an expression, and an error for what is wrong with it. Only an
// expression over native histograms may name a histogram without _bucket, _sum or _count.
func checkExpression(text string, f histogramForm) (map[string]bool, error) {
	e := expressionChecker{histograms: f, tokens: tokenPattern.FindAllString(text, -1), labels: make(map[string]bool)}
	for i := 0; i < len(e.tokens); {
		i = e.checkAt(i)
	}
	for _, l := range e.labelLists {
		scope := l.scope
		if scope == nil {
			scope = e.labels
		}
		for _, n := range l.names {
			if !scope[n] {
				e.addProblem("no metric there has a label %s", n)
			}
		}
	}
	return e.labels, errors.Join(e.problems...)
}

func (e *expressionChecker) addProblem(format string, args ...any) {
	e.problems = append(e.problems, fmt.Errorf(format, args...))
}

func (e *expressionChecker) tokenAt(i int) string {
	if i < len(e.tokens) {
		return e.tokens[i]
	}
	return ""
}

// checkAt checks what begins at token i and returns the index of the token after it.
func (e *expressionChecker) checkAt(i int) int {
	token, next := e.tokens[i], e.tokenAt(i+1)
	switch {
	case token == "[":
		return e.skipPast("]", i)
	case token == "by" || token == "without":
		names, end := e.nameList(i + 1)
		inner, err := checkExpression(strings.Join(e.parenthesized(end), " "), e.histograms)
		if err != nil {
			inner = nil // reported when the walk gets there
		}
		e.labelLists = append(e.labelLists, labelList{names, inner})
		return end
	case slices.Contains([]string{"on", "ignoring", "group_left", "group_right"}, token):
		if next != "(" {
			return i + 1
		}
		names, end := e.nameList(i + 1)
		e.labelLists = append(e.labelLists, labelList{names, nil})
		return end
	case !namePattern.MatchString(token) || keywords[token] || next == "(" || next == "by" || next == "without":
		return i + 1
	}
	s, err := findSeries(token)
	if err != nil {
		e.problems = append(e.problems, err)
		return i + 1
	}
	if m := catalogue.Find(token); m != nil && m.Kind == catalogue.Histogram && e.histograms == classicHistograms {
		e.addProblem("%s is a histogram: no classic series has its bare name", token)
	}
	for l := range maps.Keys(s.labels) {
		e.labels[l] = true
	}
	if next == "{" {
		return e.checkMatchers(token, s, i+2)
	}
	return i + 1
}

// skipPast returns the index after the next closing token.
func (e *expressionChecker) skipPast(closing string, i int) int {
	for ; i < len(e.tokens); i++ {
		if e.tokens[i] == closing {
			return i + 1
		}
	}
	return i
}

// nameList returns the names in the parentheses after token i, and the index after them.
func (e *expressionChecker) nameList(i int) ([]string, int) {
	end := e.skipPast(")", i)
	var names []string
	for _, t := range e.tokens[min(i, end):end] {
		if namePattern.MatchString(t) {
			names = append(names, t)
		}
	}
	return names, end
}

// parenthesized returns the tokens in the parentheses that open at i.
func (e *expressionChecker) parenthesized(i int) []string {
	depth := 0
	for j := i; j < len(e.tokens); j++ {
		switch e.tokens[j] {
		case "(":
			depth++
		case ")":
			depth--
		}
		if depth == 0 {
			return e.tokens[i:j]
		}
	}
	return nil
}

// checkMatchers checks the label matchers after a metric, which begin at i.
func (e *expressionChecker) checkMatchers(metric string, s knownSeries, i int) int {
	for ; i+2 < len(e.tokens) && e.tokens[i] != "}"; i++ {
		if e.tokens[i] == "," {
			continue
		}
		label, value := e.tokens[i], strings.Trim(e.tokens[i+2], `"`)
		allowed, ok := s.labels[label]
		switch {
		case !ok:
			e.addProblem("%s has no label %s", metric, label)
		case label == "le":
			e.checkBucketEdge(metric, s, value)
		case allowed != nil && allowed.Values != nil && !strings.Contains(value, "$"):
			e.checkLabelValues(metric, allowed, value)
		}
		i += 2
	}
	return i + 1
}

// checkBucketEdge checks that a bucket exists: a selector of any other would match nothing.
func (e *expressionChecker) checkBucketEdge(metric string, s knownSeries, value string) {
	edge, err := strconv.ParseFloat(strings.TrimSuffix(value, "([.]0)?"), 64)
	if err != nil || !slices.Contains(s.bucketEdges, edge) {
		e.addProblem("%s has no bucket with the upper edge %s", metric, value)
	}
}

func (e *expressionChecker) checkLabelValues(metric string, l *catalogue.Label, value string) {
	for _, v := range strings.Split(value, "|") {
		if v != l.Fallback && !slices.Contains(l.Values, v) {
			e.addProblem("%s: label %s never has the value %s", metric, l.Name, v)
		}
	}
}

var mentionedLabels = regexp.MustCompile(`\$labels\.([a-z_]+)|\{\{ *([a-z_]+) *\}\}`)

// checkMentionedLabels checks that every label in a text is among the given ones: {{ $labels.x }} in an alert, {{x}} in
// a legend.
func checkMentionedLabels(text string, labels map[string]bool) error {
	for _, m := range mentionedLabels.FindAllStringSubmatch(text, -1) {
		if l := m[1] + m[2]; !labels[l] {
			return fmt.Errorf("no metric there has the label %s of %q", l, text)
		}
	}
	return nil
}

// checkAllTables checks every rule and panel.
func checkAllTables() error {
	var problems []error
	add := func(what string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, g := range slices.Concat(recordingGroups(), latencyGroups(classicHistograms), alertGroups()) {
		for _, r := range g.recordings {
			_, err := checkExpression(r.expr, classicHistograms)
			add(r.name, err)
		}
		for _, a := range g.alerts {
			labels, err := checkExpression(a.expr, classicHistograms)
			add(a.name, errors.Join(err, checkMentionedLabels(a.description, labels)))
		}
	}
	for _, g := range latencyGroups(nativeHistograms) {
		for _, r := range g.recordings {
			_, err := checkExpression(r.expr, nativeHistograms)
			add(r.name+" (native)", err)
		}
	}
	for _, a := range annotations() {
		labels, err := checkExpression(a.Expr, classicHistograms)
		add("annotation "+a.Name, errors.Join(err, checkMentionedLabels(a.TitleFormat, labels)))
	}
	for i := range dashboards {
		for _, r := range dashboards[i].rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					labels, err := checkExpression(q.expr, q.needs == needsNative)
					add(dashboards[i].name+", "+p.title, errors.Join(err, checkMentionedLabels(q.legend, labels)))
				}
			}
		}
	}
	return errors.Join(problems...)
}
