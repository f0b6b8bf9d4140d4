package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// group is a rule group: its rules are evaluated one after the other.
type group struct {
	name       string
	interval   time.Duration // 0: Prometheus' own
	recordings []recording
	alerts     []alert
}

// recording is a recording rule. The part of its name before the first colon lists the labels of the series.
type recording struct {
	name string
	expr string
}

// alert is an alerting rule. Several may share a name when their labels differ.
type alert struct {
	name        string
	expr        string
	forDuration time.Duration // how long the condition must hold before it fires
	severity    string
	labels      []label
	summary     string
	description string
}

type label struct{ name, value string }

// Severities: critical wakes somebody, a warning waits for the morning.
const (
	critical = "critical"
	warning  = "warning"
)

// ruleOptions say how rules are written.
type ruleOptions struct {
	durationDivisor int64  // every duration is divided by this
	runbookPrefix   string // prefix of runbook_url
}

// ruleFiles returns the rule files, with their names in deploy/prometheus.
func ruleFiles(s ruleOptions) []generatedFile {
	return []generatedFile{
		{"recording.rules.yaml", ruleFile("Series that alerts and dashboards read, apart from response times.", recordingGroups(), s)},
		{"latency.rules.yaml", ruleFile("Response times from classic histograms.", latencyGroups(classicHistograms), s)},
		{"latency.native.rules.yaml", ruleFile("Response times from native histograms: load it in place of latency.rules.yaml where the\n# server ingests native histograms and drops the classic buckets. The recorded names are the same.", latencyGroups(nativeHistograms), s)},
		{"alerts.rules.yaml", ruleFile("Every alert. Each has a page in docs/runbooks and tests beside this file.", alertGroups(), s)},
	}
}

func ruleFile(title string, groups []group, s ruleOptions) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n# Made by go run ./scripts/rules. Change it there.\ngroups:\n", title)
	for _, g := range groups {
		fmt.Fprintf(&b, "  - name: %s\n", g.name)
		if g.interval > 0 {
			fmt.Fprintf(&b, "    interval: %s\n", formatDuration(g.interval/time.Duration(s.durationDivisor)))
		}
		b.WriteString("    rules:\n")
		for _, r := range g.recordings {
			fmt.Fprintf(&b, "      - record: %s\n        expr: |\n%s", r.name, indent(s.divideRanges(r.expr)))
		}
		for i := range g.alerts {
			writeAlert(&b, &g.alerts[i], s)
		}
	}
	return b.Bytes()
}

func writeAlert(b *bytes.Buffer, a *alert, s ruleOptions) {
	fmt.Fprintf(b, "      - alert: %s\n        expr: |\n%s", a.name, indent(s.divideRanges(a.expr)))
	if a.forDuration > 0 {
		fmt.Fprintf(b, "        for: %s\n", formatDuration(a.forDuration/time.Duration(s.durationDivisor)))
	}
	fmt.Fprintf(b, "        labels:\n          severity: %s\n", a.severity)
	for _, l := range a.labels {
		fmt.Fprintf(b, "          %s: %q\n", l.name, l.value)
	}
	fmt.Fprintf(b, "        annotations:\n          summary: %q\n          description: %q\n          runbook_url: %q\n",
		a.summary, a.description, s.runbookPrefix+a.name+".md")
}

func indent(expr string) string {
	return "          " + strings.ReplaceAll(strings.TrimSpace(expr), "\n", "\n          ") + "\n"
}

var rangePattern = regexp.MustCompile(`\[(\d+[smhd])\]`)

// divideRanges divides the ranges in an expression.
func (s ruleOptions) divideRanges(expr string) string {
	if s.durationDivisor == 1 {
		return expr
	}
	return rangePattern.ReplaceAllStringFunc(expr, func(text string) string {
		return "[" + formatDuration(parseDuration(text[1:len(text)-1])/time.Duration(s.durationDivisor)) + "]"
	})
}

var units = []struct {
	letter string
	length time.Duration
}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// parseDuration parses a number and a unit, as rangePattern matches them.
func parseDuration(text string) time.Duration {
	var n time.Duration
	for _, digit := range text[:len(text)-1] {
		n = n*10 + time.Duration(digit-'0')
	}
	for _, u := range units {
		if u.letter == text[len(text)-1:] {
			return n * u.length
		}
	}
	panic("range with an unknown unit: " + text)
}

// formatDuration formats a duration as Prometheus reads it, in the largest units that fit.
func formatDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range units {
		if n := d / u.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.letter)
			d -= n * u.length
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}
