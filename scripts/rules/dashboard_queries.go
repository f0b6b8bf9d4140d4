package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// dashboardQuery is a query as -queries prints it.
type dashboardQuery struct {
	Dashboard string `json:"dashboard"`
	Panel     string `json:"panel"`
	Query     string `json:"query"`
	Optional  string `json:"optional,omitempty"` // what it needs to have data; empty: nothing
}

func dashboardQueries(rateWindow time.Duration) []dashboardQuery {
	var all []dashboardQuery
	for i := range dashboards {
		d := &dashboards[i]
		for _, r := range d.rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					all = append(all, dashboardQuery{d.name, p.title, substituteVariables(q.expr, rateWindow), q.needs})
				}
			}
		}
	}
	return all
}

func printQueries(w io.Writer, rateWindow time.Duration) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for _, q := range dashboardQueries(rateWindow) {
		if err := encoder.Encode(q); err != nil {
			return err
		}
	}
	return nil
}

// printQueryRules prints a recording rule for each query, since promtool parses only rules.
func printQueryRules(w io.Writer, root string) error {
	queries, err := allRunbookQueries(root)
	if err != nil {
		return err
	}
	for _, q := range dashboardQueries(5 * time.Minute) {
		queries = append(queries, q.Query)
	}
	var rules []recording
	for i, q := range queries {
		rules = append(rules, recording{fmt.Sprintf("query:%d", i), q})
	}
	_, err = w.Write(ruleFile("Queries of the dashboards and runbooks, for a parser.", []group{{name: "queries", recordings: rules}}, ruleOptions{durationDivisor: 1}))
	return err
}
