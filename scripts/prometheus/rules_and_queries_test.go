package prometheus

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkRules asserts that every rule was loaded and evaluated.
func (a *alertTest) checkRules() {
	a.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := a.server.get("/api/v1/rules", url.Values{}, &data); err != nil {
		a.t.Fatal(err)
	}
	count := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			count++
			if r.Health != "ok" {
				a.t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if count < 50 {
		a.t.Errorf("only %d rules were loaded", count)
	}
}

// checkDashboards asserts that every query has series for the healthy service and numbers for at least one service: the
// healthy one, for instance, has no restarts whose time could be shown.
func (a *alertTest) checkDashboards() {
	a.t.Helper()
	out, err := exec.Command(a.binaries.rules, "-queries", "-rate-window", "10s").Output()
	if err != nil {
		a.t.Fatalf("print queries: %v", err)
	}
	count, optional := 0, 0
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var q struct{ Dashboard, Panel, Query, Optional string }
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			a.t.Fatal(err)
		}
		count++
		if q.Optional != "" && q.Optional != "the recording rules" && q.Optional != "traffic" {
			optional++ // it needs what this test lacks
			continue
		}
		if err := a.hasData(q.Query); err != nil {
			a.t.Errorf("%s, %s: %v", q.Dashboard, q.Panel, err)
		}
	}
	if count-optional < 50 {
		a.t.Errorf("only %d queries, %d of them optional", count, optional)
	}
	a.t.Logf("%d queries of the dashboards have data, %d need what isn't here", count-optional, optional)
}

// checkExemplars asserts that the exemplars of the healthy service are traces that its clients sent. The clients number
// their traces from 1.
func (a *alertTest) checkExemplars() {
	a.t.Helper()
	var found []struct {
		Exemplars []struct{ Labels map[string]string }
	}
	now := time.Now()
	err := a.server.get("/api/v1/query_exemplars", url.Values{
		"query": {`api_response_time_seconds_bucket{job="` + job + `",endpoint="/infer"}`},
		"start": {now.Add(-10 * time.Minute).Format(time.RFC3339)}, "end": {now.Format(time.RFC3339)},
	}, &found)
	if err != nil {
		a.t.Error(err)
		return
	}
	count := 0
	for _, series := range found {
		for _, e := range series.Exemplars {
			id := e.Labels["trace_id"]
			// of 128 random bits that doesn't happen
			if n, err := strconv.ParseUint(id, 16, 64); len(id) != 32 || err != nil || n == 0 || n > 1e6 {
				a.t.Errorf("exemplar %v isn't a trace that was sent", e.Labels)
			}
			count++
		}
	}
	if count == 0 {
		a.t.Error("Prometheus has no exemplar of the response time")
	}
	a.t.Logf("%d exemplars lead to traces that were sent", count)
}

func (a *alertTest) hasData(query string) error {
	healthy := strings.ReplaceAll(query, `job=~".*"`, `job="`+job+`"`)
	if healthy == query {
		return fmt.Errorf("doesn't select a job: %s", query)
	}
	samples, err := a.server.query(healthy)
	if err != nil {
		return err
	}
	if len(samples) == 0 {
		return fmt.Errorf("no data: %s", healthy)
	}
	isNaN := func(s sample) bool { return s.value() == "NaN" }
	if !slices.ContainsFunc(samples, isNaN) || slices.ContainsFunc(samples, func(s sample) bool { return !isNaN(s) }) {
		return nil
	}
	if samples, err = a.server.query(query); err != nil {
		return err
	}
	if !slices.ContainsFunc(samples, func(s sample) bool { return !isNaN(s) }) {
		return fmt.Errorf("no numbers for any service: %s", query)
	}
	return nil
}
