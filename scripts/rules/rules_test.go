package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tandem/schema/catalogue"
)

const root = "../.."

func TestFilesAreCurrent(t *testing.T) {
	if err := run(options{root: root, check: true}); err != nil {
		t.Error(err)
	}
}

func TestWrongNamesAreFound(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`llm_engine_upp == 0`, "no metric llm_engine_upp"},
		{`rate(api_requests_total_count[5m])`, "no metric api_requests_total_count"},
		{`sum by (job) (rate(api_requests_total{endpoint="/infer",code="500"}[5m]))`, "no label code"},
		{`rate(api_requests_total{status="failed"}[5m])`, "never has the value failed"},
		{`rate(api_requests_total{status=~"success|failed"}[5m])`, "never has the value failed"},
		{`increase(llm_engine_restarts_total{reason!="update"}[15m])`, "never has the value update"},
		{`rate(api_response_time_seconds_bucket{le=~"1.2([.]0)?"}[5m])`, "no bucket with the upper edge"},
		{`histogram_quantile(0.95, api_response_time_seconds)`, "no classic series"},
		{`histogram_quantile(0.95, sum by (le, tenant) (rate(api_response_time_seconds_bucket[5m])))`, "no metric there has a label tenant"},
		{`histogram_quantile(0.95, sum by (le) (rate(api_response_time_seconds_sum[5m])))`, "no metric there has a label le"},
		{`job:api_requests_error:ratio_rate7m > 1`, "no rule records"},
		{`llm_engine_up and on (device) llm_draining`, "no metric there has a label device"},
		{`llm_lora_requests_info`, "/metrics/router only"},
	} {
		if _, err := checkExpression(c.expr, classicHistograms); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.expr, err, c.want)
		}
	}
}

func TestRightNamesPass(t *testing.T) {
	for _, expr := range []string{
		`sum by (job, reason) (rate(llm_requests_rejected_total{reason=~"queue_full|draining"}[5m])) / on (job) group_left sum by (job) (rate(api_requests_total{endpoint="/infer"}[5m])) > 0.05`,
		`sum(llm_requests_in_flight{job=~"$job"}) or vector(0)`,
		`rate(llm_engine_process_cpu_seconds_total{instance=~"$instance"}[$__rate_interval])`,
		`api_response_time_seconds_bucket{le="0.5"} offset 5m > bool 0`,
	} {
		if _, err := checkExpression(expr, classicHistograms); err != nil {
			t.Errorf("%s: %v", expr, err)
		}
	}
	labels, err := checkExpression(`sum by (job) (llm_engine_up)`, classicHistograms)
	if err != nil || checkMentionedLabels("{{ $labels.instance }} {{instance}}", labels) != nil {
		t.Errorf("labels of an engine: %v, %v", labels, err)
	}
	if checkMentionedLabels("{{ $labels.model }}", labels) == nil {
		t.Error("a text may name a label that no metric has")
	}
}

// ruleTests is what is needed here of promtool's test files.
type ruleTests struct {
	Tests []struct {
		Alerts []struct {
			Name     string `yaml:"alertname"`
			Expected []struct {
				Labels map[string]string `yaml:"exp_labels"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	} `yaml:"tests"`
}

func TestEveryAlertIsTestedFiringAndSilent(t *testing.T) {
	fires, silent := make(map[string]bool), make(map[string]bool)
	names, err := filepath.Glob(filepath.Join(root, "deploy", "prometheus", "*_test.yaml"))
	if err != nil || len(names) == 0 {
		t.Fatal("no tests of the rules", err)
	}
	for _, name := range names {
		if filepath.Base(name) == "original_test.yaml" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var file ruleTests
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, test := range file.Tests {
			for _, a := range test.Alerts {
				silent[a.Name] = silent[a.Name] || len(a.Expected) == 0
				for _, e := range a.Expected {
					fires[a.Name+e.Labels["window"]] = true
				}
			}
		}
	}
	for _, g := range alertGroups() {
		for _, a := range g.alerts {
			window := ""
			if i := slices.IndexFunc(a.labels, func(l label) bool { return l.name == "window" }); i >= 0 {
				window = a.labels[i].value
			}
			if !fires[a.name+window] {
				t.Errorf("%s %s: no test in which it fires", a.name, window)
			}
			if !silent[a.name] {
				t.Errorf("%s: no test in which it stays silent", a.name)
			}
		}
	}
}

func TestDocumentedAlertsKeepTheirPromises(t *testing.T) {
	for _, want := range []alert{
		{name: "HighResponseTime", forDuration: 5 * time.Minute, severity: "warning", summary: "High response time detected", expr: "> 1"},
		{name: "HighErrorRate", forDuration: 2 * time.Minute, severity: "critical", summary: "High error rate detected", expr: "> 0.05"},
		{name: "ModelLoadingFailures", forDuration: time.Minute, severity: "warning", summary: "Model loading failures detected", expr: "> 0"},
	} {
		i := slices.IndexFunc(documentedAlerts, func(a alert) bool { return a.name == want.name })
		if i < 0 {
			t.Errorf("%s is gone", want.name)
			continue
		}
		got := documentedAlerts[i]
		if got.forDuration != want.forDuration || got.severity != want.severity || got.summary != want.summary || !strings.HasSuffix(got.expr, want.expr) {
			t.Errorf("%s has changed: %+v", want.name, got)
		}
	}
}

func TestRestartAlertLeavesUpgradesOut(t *testing.T) {
	for _, a := range engineAlerts {
		if a.name == "LLMEngineRestarting" && !strings.Contains(a.expr, `reason!="upgrade"`) {
			t.Error("an upgrade counts as a restart")
		}
	}
}

func TestBurnsFindTheirWindows(t *testing.T) {
	for _, b := range burnRates {
		if !slices.Contains(burnWindows(), b.long) || !slices.Contains(burnWindows(), b.short) {
			t.Errorf("burn at %g: nothing is recorded over %v or %v", b.factor, b.long, b.short)
		}
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		5 * time.Minute: "5m", 3 * day: "3d", 72 * time.Hour / 30: "2h24m", 30 * time.Second / 30: "1s", 0: "0s", 2500 * time.Millisecond: "2s500ms",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v is written as %s, want %s", d, got, want)
		}
	}
	if got := (ruleOptions{durationDivisor: 30}).divideRanges(`rate(x[5m]) + rate(y{a="[5m"}[3d])`); got != `rate(x[10s]) + rate(y{a="[5m"}[2h24m])` {
		t.Error(got)
	}
}

func TestCopyWithShortDurations(t *testing.T) {
	dir := t.TempDir()
	if err := run(options{outputDir: dir, durationDivisor: 30, runbookPrefix: "https://example.org/"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "alerts.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"for: 10s", `runbook_url: "https://example.org/HighResponseTime.md"`, "model_load_failures_total[20s]", "job:api_requests_error:ratio_rate5m > 0.05"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestRunbooksAreHeldToTheTables(t *testing.T) {
	good, err := os.ReadFile(filepath.Join(root, "docs", "runbooks", "LLMEngineDown.md"))
	if err != nil {
		t.Fatal(err)
	}
	variants := engineAlerts[:1]
	if _, err := updateRunbook(string(good), "LLMEngineDown", variants); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string][2]string{
		"section":              {"## Escalate", "## Bye"},
		"title":                {"# LLMEngineDown", "# LLMEngineGone"},
		"lines":                {endGenerated, ""},
		"no metric llm_engine": {"\nllm_engine_up\n", "\nllm_engine_upp\n"},
		"no setting":           {"`ENGINE_WAIT`", "`ENGINE_WAITS`"},
	} {
		bad := strings.Replace(string(good), change[0], change[1], 1)
		if bad == string(good) {
			t.Fatalf("%q isn't in the page", change[0])
		}
		if _, err := updateRunbook(bad, "LLMEngineDown", variants); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMissingAndLostRunbooksAreFound(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "docs", "runbooks")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "Nothing.md"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := runbooks(dir)
	for _, want := range []string{"alert HighErrorRate has no runbook", "Nothing.md is for no alert"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestRunbooksQuoteRealLogLines asserts that the programs log the messages that runbooks tell people to look for.
func TestRunbooksQuoteRealLogLines(t *testing.T) {
	var source strings.Builder
	for _, program := range []string{"proxy", "engine"} {
		err := filepath.WalkDir(filepath.Join(root, program), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			source.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "runbooks", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			rest, ok := strings.CutPrefix(line, `msg="`)
			if !ok {
				continue
			}
			message, _, _ := strings.Cut(rest, `"`)
			found++
			if !strings.Contains(source.String(), `"`+message+`"`) {
				t.Errorf("%s: no program logs %q", filepath.Base(page), message)
			}
		}
	}
	if found == 0 {
		t.Error("no runbook quotes a log line")
	}
}

func TestRunbookIndexNamesEveryAlert(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "runbooks", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range alertGroups() {
		for _, a := range g.alerts {
			if !bytes.Contains(text, []byte("["+a.name+"]("+a.name+".md)")) {
				t.Errorf("the index of runbooks has no %s", a.name)
			}
		}
	}
}

func TestDashboardsHoldTogether(t *testing.T) {
	addresses := make(map[string]bool)
	for i := range dashboards {
		text, err := dashboards[i].json()
		if err != nil {
			t.Fatal(err)
		}
		var d gDashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", dashboards[i].name, err)
		}
		if addresses[d.UID] {
			t.Errorf("two dashboards have the address %s", d.UID)
		}
		addresses[d.UID] = true
		taken := make(map[[2]int]string)
		titles := make(map[string]bool)
		for _, p := range d.Panels {
			if titles[p.Title] {
				t.Errorf("%s: two panels are called %s", d.Title, p.Title)
			}
			titles[p.Title] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other, ok := taken[[2]int{x, y}]; ok {
						t.Fatalf("%s: %s lies on %s", d.Title, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: %s is too wide", d.Title, p.Title)
			}
		}
	}
}

// TestDocumentedMetricsAreShown asserts that every documented metric is on some dashboard.
func TestDocumentedMetricsAreShown(t *testing.T) {
	var all strings.Builder
	for _, q := range dashboardQueries(time.Minute) {
		all.WriteString(q.Query)
	}
	for _, m := range catalogue.All() {
		if m.Group == catalogue.Documented && !strings.Contains(all.String(), m.Name) {
			t.Errorf("no dashboard shows %s", m.Name)
		}
	}
}

func TestQueriesHaveNoVariablesLeft(t *testing.T) {
	var out bytes.Buffer
	if err := run(options{queries: true, queryWriter: &out, rateWindow: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(out.String()) {
		var q dashboardQuery
		if err := json.Unmarshal([]byte(line), &q); err != nil {
			t.Fatal(err)
		}
		if q.Query == "" || strings.Contains(q.Query, "$") {
			t.Errorf("%s, %s: %s", q.Dashboard, q.Panel, q.Query)
		}
		lines++
	}
	if lines < 60 {
		t.Errorf("only %d queries", lines)
	}
}
