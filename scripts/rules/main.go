// Rules writes what Prometheus and Grafana load: the rule files in deploy/prometheus and the dashboards in deploy/grafana, and the
// part of each runbook that says when its alert fires. All come from the tables in this folder, so that windows, thresholds and names
// stay in step, and every metric, label, label value and bucket edge in them is checked against schema/catalogue first. The tests of the
// rules are written by hand, beside the rules, and so are the runbooks, whose queries and settings are checked all the same.
//
//	go run ./scripts/rules [-check]                write the files, or fail when one is stale
//	go run ./scripts/rules -into DIR -divide 30    write a copy whose durations are 30 times shorter, for tests against a live server
//	go run ./scripts/rules -queries                print every query of every dashboard as JSON lines, variables filled in
//	go run ./scripts/rules -query-rules            print the same queries and those of the runbooks as a rule file
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// options of one run.
type options struct {
	check       bool
	root, into  string
	divide      int64
	runbooks    string
	queries     bool
	queryRules  bool
	rateWindow  time.Duration
	queryWriter io.Writer
}

func main() {
	o := options{queryWriter: os.Stdout}
	flag.BoolVar(&o.check, "check", false, "write nothing; fail when a file is stale")
	flag.StringVar(&o.root, "root", ".", "root of the repository")
	flag.StringVar(&o.into, "into", "", "write the rule files into this directory, instead of files of the repository")
	flag.Int64Var(&o.divide, "divide", 1, "with -into: divide every duration by this")
	flag.StringVar(&o.runbooks, "runbooks", "docs/runbooks/", "with -into: where the runbooks are, as a prefix of runbook_url")
	flag.BoolVar(&o.queries, "queries", false, "print the queries of the dashboards, one JSON object a line")
	flag.BoolVar(&o.queryRules, "query-rules", false, "print the queries of the dashboards as a rule file")
	flag.DurationVar(&o.rateWindow, "rate-window", 5*time.Minute, "with -queries: what stands for Grafana's $__rate_interval")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "rules:", err)
		os.Exit(1)
	}
}

// artefact is one generated file.
type artefact struct {
	path string
	text []byte
}

func run(o options) error {
	if err := checkTables(); err != nil {
		return err
	}
	switch {
	case o.queries:
		return printQueries(o.queryWriter, o.rateWindow)
	case o.queryRules:
		return printQueryRules(o.queryWriter, o.root)
	case o.into != "":
		if o.divide < 1 {
			return fmt.Errorf("-divide is %d, at least 1 makes sense", o.divide)
		}
		return write(o.into, ruleFiles(style{divide: o.divide, runbooks: o.runbooks}))
	}
	files, err := repositoryFiles()
	if err != nil {
		return err
	}
	pages, problems := runbooks(o.root)
	files = append(files, pages...)
	if o.check {
		return errors.Join(stale(o.root, files), problems)
	}
	return errors.Join(write(o.root, files), problems)
}

// repositoryFiles are the files that are kept in the repository.
func repositoryFiles() ([]artefact, error) {
	var files []artefact
	for _, f := range ruleFiles(style{divide: 1, runbooks: "docs/runbooks/"}) {
		files = append(files, artefact{"deploy/prometheus/" + f.path, f.text})
	}
	for i := range dashboards {
		text, err := dashboards[i].json()
		if err != nil {
			return nil, err
		}
		files = append(files, artefact{"deploy/grafana/dashboards/" + dashboards[i].name + ".json", text})
	}
	return files, nil
}

// stale names every file that isn't what the tables say, and every dashboard that no table knows.
func stale(root string, files []artefact) error {
	var problems []error
	known := make(map[string]bool)
	for _, f := range files {
		known[filepath.Base(f.path)] = true
		current, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(f.path)))
		if err != nil || !bytes.Equal(current, f.text) {
			problems = append(problems, fmt.Errorf("%s is stale; run: go run ./scripts/rules", f.path))
		}
	}
	for _, pattern := range []string{"deploy/grafana/dashboards/*.json", "deploy/prometheus/*.rules.yaml"} {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			return err
		}
		for _, name := range found {
			if !known[filepath.Base(name)] {
				problems = append(problems, fmt.Errorf("%s is in no table of scripts/rules; remove it", name))
			}
		}
	}
	return errors.Join(problems...)
}

func write(root string, files []artefact) error {
	for _, f := range files {
		name := filepath.Join(root, filepath.FromSlash(f.path))
		if current, err := os.ReadFile(name); err == nil && bytes.Equal(current, f.text) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("make folder of %s: %w", name, err)
		}
		if err := os.WriteFile(name, f.text, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		fmt.Fprintln(os.Stderr, "wrote", f.path)
	}
	return nil
}

// dashboardQuery is a query as -queries prints it.
type dashboardQuery struct {
	Dashboard string `json:"dashboard"`
	Panel     string `json:"panel"`
	Query     string `json:"query"`
	Optional  string `json:"optional,omitempty"` // what must be there for it to have data; empty: it always has
}

func allQueries(rateWindow time.Duration) []dashboardQuery {
	var all []dashboardQuery
	for i := range dashboards {
		d := &dashboards[i]
		for _, r := range d.rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					all = append(all, dashboardQuery{d.name, p.title, fill(q.expr, rateWindow), q.needs})
				}
			}
		}
	}
	return all
}

func printQueries(w io.Writer, rateWindow time.Duration) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for _, q := range allQueries(rateWindow) {
		if err := encoder.Encode(q); err != nil {
			return err
		}
	}
	return nil
}

// printQueryRules makes a recording rule of each query, since promtool parses rules.
func printQueryRules(w io.Writer, root string) error {
	queries, err := runbookQueries(root)
	if err != nil {
		return err
	}
	for _, q := range allQueries(5 * time.Minute) {
		queries = append(queries, q.Query)
	}
	var rules []recording
	for i, q := range queries {
		rules = append(rules, recording{fmt.Sprintf("query:%d", i), q})
	}
	_, err = w.Write(ruleFile("Queries of the dashboards and runbooks, for a parser.", []group{{name: "queries", recordings: rules}}, style{divide: 1}))
	return err
}
