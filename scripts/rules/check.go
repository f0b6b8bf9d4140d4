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

// series is what may be written about a metric name.
type series struct {
	labels map[string]*catalogue.Label // nil: values are open
	edges  []float64                   // of a histogram's buckets
}

// targetLabels are on every series, set by the scrape.
var targetLabels = []string{"job", "instance"}

// foreign are the series that no table of ours makes: those of Prometheus, and what client_golang adds to the page.
var foreign = map[string][]string{
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

// find looks a name up: in the catalogue, among the recorded series, among the foreign ones.
func find(name string) (series, error) {
	if names, ok := foreign[name]; ok {
		return newSeries(names), nil
	}
	if before, _, ok := strings.Cut(name, ":"); ok {
		if !recorded()[name] {
			return series{}, fmt.Errorf("no rule records %s", name)
		}
		return newSeries(strings.Split(before, "_")), nil
	}
	for _, runtime := range catalogue.EngineRuntimeNames() {
		if m, _ := catalogue.EngineRuntime(runtime); m.Name == name {
			return newSeries(nil), nil
		}
	}
	m, part := family(name)
	if m == nil {
		return series{}, fmt.Errorf("the catalogue has no metric %s", name)
	}
	if m.RouterOnly {
		return series{}, fmt.Errorf("%s is on /metrics/router only, which Prometheus doesn't scrape", name)
	}
	s := newSeries(nil)
	for i := range m.Labels {
		s.labels[m.Labels[i].Name] = &m.Labels[i]
	}
	if part == "_bucket" {
		s.labels["le"], s.edges = nil, m.Bounds.Edges
	}
	return s, nil
}

func newSeries(names []string) series {
	s := series{labels: make(map[string]*catalogue.Label)}
	for _, n := range append(names, targetLabels...) {
		s.labels[n] = nil
	}
	return s
}

// family finds the metric of a series, and which part of a histogram the series is.
func family(name string) (*catalogue.Metric, string) {
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

// recorded are the names of the recording rules.
func recorded() map[string]bool {
	names := make(map[string]bool)
	for _, g := range append(recordingGroups(), latencyGroups(classic)...) {
		for _, r := range g.recordings {
			names[r.name] = true
		}
	}
	return names
}

// tokens of an expression: strings, names, numbers with their units, and single characters.
var tokens = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[A-Za-z_:][A-Za-z0-9_:]*|[0-9][0-9.a-z]*|[=!]~|[!=<>]=|\S`)

var name = regexp.MustCompile(`^[A-Za-z_:]`)

var words = map[string]bool{"and": true, "or": true, "unless": true, "bool": true, "offset": true, "Inf": true, "NaN": true}

// expression reads one expression and collects what it says of metrics and labels. It isn't a parser: what promtool refuses anyway
// may pass here.
type expression struct {
	form     form
	tokens   []string
	labels   map[string]bool // of every series named
	lists    []labelList
	problems []error
}

// labelList is the labels of a by or on, with the part of the expression that must have them.
type labelList struct {
	names []string
	scope map[string]bool // nil: the whole expression
}

// checkExpression gives the labels of the series in an expression, or what is wrong with it. Only a native one may name a histogram
// without _bucket, _sum or _count.
func checkExpression(text string, f form) (map[string]bool, error) {
	e := expression{form: f, tokens: tokens.FindAllString(text, -1), labels: make(map[string]bool)}
	for i := 0; i < len(e.tokens); {
		i = e.step(i)
	}
	for _, l := range e.lists {
		scope := l.scope
		if scope == nil {
			scope = e.labels
		}
		for _, n := range l.names {
			if !scope[n] {
				e.problem("no metric there has a label %s", n)
			}
		}
	}
	return e.labels, errors.Join(e.problems...)
}

func (e *expression) problem(format string, args ...any) {
	e.problems = append(e.problems, fmt.Errorf(format, args...))
}

func (e *expression) at(i int) string {
	if i < len(e.tokens) {
		return e.tokens[i]
	}
	return ""
}

// step reads what begins at a token and gives the place after it.
func (e *expression) step(i int) int {
	token, next := e.tokens[i], e.at(i+1)
	switch {
	case token == "[":
		return e.after("]", i)
	case token == "by" || token == "without":
		names, end := e.list(i + 1)
		inner, err := checkExpression(strings.Join(e.group(end), " "), e.form)
		if err != nil {
			inner = nil // told when the walk gets there
		}
		e.lists = append(e.lists, labelList{names, inner})
		return end
	case slices.Contains([]string{"on", "ignoring", "group_left", "group_right"}, token):
		if next != "(" {
			return i + 1
		}
		names, end := e.list(i + 1)
		e.lists = append(e.lists, labelList{names, nil})
		return end
	case !name.MatchString(token) || words[token] || next == "(" || next == "by" || next == "without":
		return i + 1
	}
	s, err := find(token)
	if err != nil {
		e.problems = append(e.problems, err)
		return i + 1
	}
	if m := catalogue.Find(token); m != nil && m.Kind == catalogue.Histogram && e.form == classic {
		e.problem("%s is a histogram: no classic series has its bare name", token)
	}
	for l := range maps.Keys(s.labels) {
		e.labels[l] = true
	}
	if next == "{" {
		return e.matchers(token, s, i+2)
	}
	return i + 1
}

// after gives the place behind the next closing token.
func (e *expression) after(closing string, i int) int {
	for ; i < len(e.tokens); i++ {
		if e.tokens[i] == closing {
			return i + 1
		}
	}
	return i
}

// list reads names in parentheses.
func (e *expression) list(i int) ([]string, int) {
	end := e.after(")", i)
	var names []string
	for _, t := range e.tokens[min(i, end):end] {
		if name.MatchString(t) {
			names = append(names, t)
		}
	}
	return names, end
}

// group gives the tokens between the parentheses that open at i.
func (e *expression) group(i int) []string {
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

// matchers reads what stands in braces after a metric.
func (e *expression) matchers(metric string, s series, i int) int {
	for ; i+2 < len(e.tokens) && e.tokens[i] != "}"; i++ {
		if e.tokens[i] == "," {
			continue
		}
		label, value := e.tokens[i], strings.Trim(e.tokens[i+2], `"`)
		allowed, ok := s.labels[label]
		switch {
		case !ok:
			e.problem("%s has no label %s", metric, label)
		case label == "le":
			e.edge(metric, s, value)
		case allowed != nil && allowed.Values != nil && !strings.Contains(value, "$"):
			e.values(metric, allowed, value)
		}
		i += 2
	}
	return i + 1
}

// edge wants a bucket that exists: a share under anything else would be empty.
func (e *expression) edge(metric string, s series, value string) {
	edge, err := strconv.ParseFloat(strings.TrimSuffix(value, "([.]0)?"), 64)
	if err != nil || !slices.Contains(s.edges, edge) {
		e.problem("%s has no bucket with the upper edge %s", metric, value)
	}
}

func (e *expression) values(metric string, l *catalogue.Label, value string) {
	for _, v := range strings.Split(value, "|") {
		if v != l.Fallback && !slices.Contains(l.Values, v) {
			e.problem("%s: label %s never has the value %s", metric, l.Name, v)
		}
	}
}

var mentioned = regexp.MustCompile(`\$labels\.([a-z_]+)|\{\{ *([a-z_]+) *\}\}`)

// checkText wants every label that a text mentions, as {{ $labels.x }} of an alert or {{x}} of a legend, among those given.
func checkText(text string, labels map[string]bool) error {
	for _, m := range mentioned.FindAllStringSubmatch(text, -1) {
		if l := m[1] + m[2]; !labels[l] {
			return fmt.Errorf("no metric there has the label %s of %q", l, text)
		}
	}
	return nil
}

// checkTables checks every rule and panel.
func checkTables() error {
	var problems []error
	add := func(what string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, g := range slices.Concat(recordingGroups(), latencyGroups(classic), alertGroups()) {
		for _, r := range g.recordings {
			_, err := checkExpression(r.expr, classic)
			add(r.name, err)
		}
		for _, a := range g.alerts {
			labels, err := checkExpression(a.expr, classic)
			add(a.name, errors.Join(err, checkText(a.description, labels)))
		}
	}
	for _, g := range latencyGroups(native) {
		for _, r := range g.recordings {
			_, err := checkExpression(r.expr, native)
			add(r.name+" (native)", err)
		}
	}
	for _, a := range annotations() {
		labels, err := checkExpression(a.Expr, classic)
		add("annotation "+a.Name, errors.Join(err, checkText(a.TitleFormat, labels)))
	}
	for i := range dashboards {
		for _, r := range dashboards[i].rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					labels, err := checkExpression(q.expr, q.needs == needsNative)
					add(dashboards[i].name+", "+p.title, errors.Join(err, checkText(q.legend, labels)))
				}
			}
		}
	}
	return errors.Join(problems...)
}
