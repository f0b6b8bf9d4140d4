// Command rules writes what Prometheus and Grafana load: the rule files in deploy/prometheus and the dashboards in
// deploy/grafana, and the part of each runbook that says when its alert fires. All come from the tables in this folder,
// so that windows, thresholds and names agree, and every metric, label, label value and bucket edge in them is checked
// against schema/catalogue first. Not written by it are the tests of the rules, which are beside them, and the rest of
// the runbooks; the queries and settings in runbooks are checked all the same.
//
//	go run ./scripts/rules [-check]                write the files, or fail when one is stale
//	go run ./scripts/rules -into DIR -divide 30    write a copy with 30 times shorter durations, for live tests
//	go run ./scripts/rules -queries                print the dashboards' queries as JSON lines, without variables
//	go run ./scripts/rules -query-rules            print the same queries and those of the runbooks as a rule file
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// options are the command line.
type options struct {
	check           bool
	root, outputDir string
	durationDivisor int64
	runbookPrefix   string
	queries         bool
	queryRules      bool
	rateWindow      time.Duration
	queryWriter     io.Writer
}

func main() {
	o := options{queryWriter: os.Stdout}
	flag.BoolVar(&o.check, "check", false, "write nothing; fail when a file is stale")
	flag.StringVar(&o.root, "root", ".", "root of the repository")
	flag.StringVar(&o.outputDir, "into", "", "write the rule files into this directory, instead of files of the repository")
	flag.Int64Var(&o.durationDivisor, "divide", 1, "with -into: divide every duration by this")
	flag.StringVar(&o.runbookPrefix, "runbooks", "docs/runbooks/", "with -into: where the runbooks are, as a prefix of runbook_url")
	flag.BoolVar(&o.queries, "queries", false, "print the queries of the dashboards, one JSON object a line")
	flag.BoolVar(&o.queryRules, "query-rules", false, "print the queries of the dashboards as a rule file")
	flag.DurationVar(&o.rateWindow, "rate-window", 5*time.Minute, "with -queries: what stands for Grafana's $__rate_interval")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "rules:", err)
		os.Exit(1)
	}
}

// generatedFile is one generated file.
type generatedFile struct {
	path    string
	content []byte
}

func run(o options) error {
	if err := checkAllTables(); err != nil {
		return err
	}
	switch {
	case o.queries:
		return printQueries(o.queryWriter, o.rateWindow)
	case o.queryRules:
		return printQueryRules(o.queryWriter, o.root)
	case o.outputDir != "":
		if o.durationDivisor < 1 {
			return fmt.Errorf("-divide is %d, at least 1 makes sense", o.durationDivisor)
		}
		return writeFiles(o.outputDir, ruleFiles(ruleOptions{durationDivisor: o.durationDivisor, runbookPrefix: o.runbookPrefix}))
	}
	files, err := repositoryFiles()
	if err != nil {
		return err
	}
	pages, problems := runbooks(o.root)
	files = append(files, pages...)
	if o.check {
		return errors.Join(staleFiles(o.root, files), problems)
	}
	return errors.Join(writeFiles(o.root, files), problems)
}

// repositoryFiles returns the rule files and dashboards of the repository.
func repositoryFiles() ([]generatedFile, error) {
	var files []generatedFile
	for _, f := range ruleFiles(ruleOptions{durationDivisor: 1, runbookPrefix: "docs/runbooks/"}) {
		files = append(files, generatedFile{"deploy/prometheus/" + f.path, f.content})
	}
	for i := range dashboards {
		text, err := dashboards[i].json()
		if err != nil {
			return nil, err
		}
		files = append(files, generatedFile{"deploy/grafana/dashboards/" + dashboards[i].name + ".json", text})
	}
	return files, nil
}
