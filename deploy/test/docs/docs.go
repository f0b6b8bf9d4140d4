// Package docs reads the settings and metrics in the generated documentation, so that manifests can be checked against
// them although this module doesn't depend on the main one.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Root is the directory of the whole project.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the project: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "schema", "engine.capnp")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the project: no directory above has schema/engine.capnp")
		}
		dir = parent
	}
}

// Read returns the text of a file of the project.
func Read(path string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		return "", fmt.Errorf("read the project's %s: %w", path, err)
	}
	return string(text), nil
}

// Setting is a row of docs/settings.md.
type Setting struct {
	Env, Key, Default string
	Proxy, Engine     bool // which program uses it
}

var settingRow = regexp.MustCompile("(?m)^\\| `([A-Z_0-9]+)` \\| (?:`([a-z_.0-9]+)`)? *\\| (?:`([^`]*)`)? *\\| [^|]* \\| (proxy|engine|both) \\|")

// Settings returns every setting, by its variable.
func Settings() (map[string]Setting, error) {
	text, err := Read("docs/settings.md")
	if err != nil {
		return nil, err
	}
	all := make(map[string]Setting)
	for _, m := range settingRow.FindAllStringSubmatch(text, -1) {
		all[m[1]] = Setting{Env: m[1], Key: m[2], Default: m[3], Proxy: m[4] != "engine", Engine: m[4] != "proxy"}
	}
	if rows := strings.Count(text, "\n| `"); rows != len(all) || rows == 0 {
		return nil, fmt.Errorf("docs/settings.md has %d rows of settings, %d were understood", rows, len(all))
	}
	return all, nil
}

var (
	metricRow = regexp.MustCompile("(?m)^\\| `([a-z_0-9]+)` \\| (?:counter|gauge|histogram) \\| ([^|]*) \\|")
	backticks = regexp.MustCompile("`([a-z_0-9]+)`")
)

// Metrics returns the labels of every metric.
func Metrics() (map[string][]string, error) {
	text, err := Read("docs/metrics.md")
	if err != nil {
		return nil, err
	}
	text, _, _ = strings.Cut(text, "\n## Values of labels") // its tables have no metrics
	all := make(map[string][]string)
	for _, m := range metricRow.FindAllStringSubmatch(text, -1) {
		all[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	if rows := strings.Count(text, "\n| `"); rows != len(all) || rows == 0 {
		return nil, fmt.Errorf("docs/metrics.md has %d rows of metrics, %d were understood", rows, len(all))
	}
	return all, nil
}

// RouterMetrics returns the metrics of /metrics/router.
func RouterMetrics() (map[string]bool, error) {
	text, err := Read("docs/metrics.md")
	if err != nil {
		return nil, err
	}
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if !strings.HasPrefix(paragraph, "`/metrics/router` is ") {
			continue
		}
		all := make(map[string]bool)
		for _, m := range backticks.FindAllStringSubmatch(paragraph, -1) {
			all[m[1]] = true
		}
		return all, nil
	}
	return nil, fmt.Errorf("docs/metrics.md says nothing of /metrics/router")
}
