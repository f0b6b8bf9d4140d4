package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"tandem/schema/catalogue"
	"tandem/schema/settings"
)

// The runbooks are written by hand, apart from the part between these two lines, which says when the alert fires.
const (
	runbookFolder  = "docs/runbooks"
	beginGenerated = "<!-- alert, made by go run ./scripts/rules -->"
	endGenerated   = "<!-- end of alert -->"
)

// runbookSections are what somebody looks for who was just woken up, in this order.
var runbookSections = []string{"## Meaning", "## Impact", "## First look", "## Causes", "## Fix", "## Escalate"}

// runbooks returns every page with its generated part updated, and an error for what is wrong: an alert without a page,
// a page without an alert, a missing section, a name that is neither in the catalogue nor in the settings.
func runbooks(root string) ([]generatedFile, error) {
	var pages []generatedFile
	var problems []error
	variants := make(map[string][]alert)
	var names []string
	for _, g := range alertGroups() {
		for _, a := range g.alerts {
			if variants[a.name] == nil {
				names = append(names, a.name)
			}
			variants[a.name] = append(variants[a.name], a)
		}
	}
	for _, n := range names {
		path := runbookFolder + "/" + n + ".md"
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
		if err != nil {
			problems = append(problems, fmt.Errorf("alert %s has no runbook: %w", n, err))
			continue
		}
		updated, err := updateRunbook(string(text), n, variants[n])
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path, err))
			continue
		}
		pages = append(pages, generatedFile{path, []byte(updated)})
	}
	found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(runbookFolder), "*.md"))
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if n := strings.TrimSuffix(filepath.Base(f), ".md"); n != "README" && variants[n] == nil {
			problems = append(problems, fmt.Errorf("%s/%s.md is for no alert", runbookFolder, n))
		}
	}
	for _, p := range []string{runbookFolder + "/README.md", "docs/monitoring.md"} {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p)))
		if err == nil {
			err = checkRunbook(string(text))
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", p, err))
		}
	}
	return pages, errors.Join(problems...)
}

func updateRunbook(text, name string, variants []alert) (string, error) {
	if !strings.HasPrefix(text, "# "+name+"\n") {
		return "", fmt.Errorf("the title is not %s", name)
	}
	at := 0
	for _, s := range runbookSections {
		i := strings.Index(text[at:], "\n"+s+"\n")
		if i < 0 {
			return "", fmt.Errorf("section %q is missing or out of order", s)
		}
		at += i
	}
	before, rest, ok := strings.Cut(text, beginGenerated)
	_, after, closed := strings.Cut(rest, endGenerated)
	if !ok || !closed {
		return "", fmt.Errorf("the lines %q and %q are missing", beginGenerated, endGenerated)
	}
	return before + beginGenerated + "\n" + describeAlert(variants) + endGenerated + after, checkRunbook(before + after)
}

// describeAlert is the generated part of a runbook: when the alert fires.
func describeAlert(variants []alert) string {
	var b strings.Builder
	for _, a := range variants {
		when := "at once when"
		if a.forDuration > 0 {
			when = "after " + formatDuration(a.forDuration) + " of"
		}
		fmt.Fprintf(&b, "\n%s, %s\n\n```promql\n%s\n```\n", strings.ToUpper(a.severity[:1])+a.severity[1:], when, a.expr)
	}
	return b.String() + "\n"
}

var (
	promqlBlock = regexp.MustCompile("(?s)```promql\n(.*?)```")
	anyBlock    = regexp.MustCompile("(?s)```[a-z]*\n.*?```")
	quoted      = regexp.MustCompile("`([^`\n]+)`")
	metricName  = regexp.MustCompile(`^(llm|api|model_(load|cache|memory)|tokens|token|successful|failed)_[a-z_]+(\{.*\})?$`)
	settingName = regexp.MustCompile(`^[A-Z][A-Z_]{3,}$`)
)

// environmentNames are names in capitals that aren't settings of ours.
var environmentNames = []string{"SIGTERM", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGINT", "OMP_WAIT_POLICY", "GOMEMLIMIT", "PROMETHEUS_URL", "ALERTS", "SSL_CERT_FILE"}

// queriesOfPage returns the PromQL queries of a page; each line is one.
func queriesOfPage(text string) []string {
	var queries []string
	for _, block := range promqlBlock.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "" {
				queries = append(queries, line)
			}
		}
	}
	return queries
}

// checkRunbook checks the queries, metrics and settings on a page.
func checkRunbook(text string) error {
	var problems []error
	for _, q := range queriesOfPage(text) {
		if _, err := checkExpression(q, classicHistograms); err != nil {
			problems = append(problems, fmt.Errorf("query %s: %w", q, err))
		}
	}
	for _, m := range quoted.FindAllStringSubmatch(anyBlock.ReplaceAllString(text, ""), -1) {
		word := m[1]
		switch {
		case isLabelValue(word):
		case metricName.MatchString(word):
			if _, err := checkExpression(word, nativeHistograms); err != nil {
				problems = append(problems, fmt.Errorf("`%s`: %w", word, err))
			}
		case settingName.MatchString(strings.SplitN(word, "=", 2)[0]):
			if variable, _, _ := strings.Cut(word, "="); settings.Find(variable) == nil && !slices.Contains(environmentNames, variable) {
				problems = append(problems, fmt.Errorf("there is no setting %s", variable))
			}
		}
	}
	return errors.Join(problems...)
}

// isLabelValue reports whether a word is one of the listed values of some label.
func isLabelValue(word string) bool {
	for _, m := range catalogue.All() {
		for _, l := range m.Labels {
			if slices.Contains(l.Values, word) {
				return true
			}
		}
	}
	return false
}

// allRunbookQueries returns the queries in the hand-written parts of all pages, for promtool.
func allRunbookQueries(root string) ([]string, error) {
	var queries []string
	names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(runbookFolder), "*.md"))
	if err != nil {
		return nil, err
	}
	for _, name := range append(names, filepath.Join(root, "docs", "monitoring.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		before, rest, _ := strings.Cut(string(text), beginGenerated)
		_, after, _ := strings.Cut(rest, endGenerated)
		queries = append(queries, queriesOfPage(before+after)...)
	}
	return queries, nil
}
