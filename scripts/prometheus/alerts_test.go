package prometheus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	job = "llm-inference" // the documented one; it is the healthy service's

	healthyTime  = 20 * time.Second // of load before anything goes wrong: longer than what five minutes become
	faultLimit   = 110 * time.Second
	recoverLimit = 40 * time.Second
	frozenTime   = 45 * time.Second // of an engine that is stopped
)

// trial is a Prometheus and what it watches.
type trial struct {
	t        *testing.T
	p        programs
	server   *server
	services map[string]*service // by job
	stop     context.CancelFunc  // of all clients
	ctx      context.Context     // ends with stop
	stalls   *stalls
}

func TestFaultsRaiseTheirAlertsAndNoOthers(t *testing.T) {
	w := begin(t)
	t.Log("healthy")
	w.pass(healthyTime)
	w.checkHealthy()
	t.Log("faults")
	w.inject()
	w.waitForAlerts()
	w.checkAlerts()
	w.checkRules()
	w.checkDashboards()
	w.checkExemplars()
	t.Log("recovery")
	w.checkRecovery()
	t.Log("the end of all")
	w.checkAbsence()
}

func begin(t *testing.T) *trial {
	t.Helper()
	w := &trial{t: t, p: givenPrograms(t), services: make(map[string]*service)}
	w.ctx, w.stop = context.WithCancel(t.Context())
	w.stalls = watchStalls(w.ctx)
	t.Cleanup(w.end)
	var all []*service
	addresses := freeAddresses(t, len(scenarios)+1)
	for i, sc := range scenarios {
		s := startService(t, w.p, addresses[i], sc)
		w.services[s.job] = s
		all = append(all, s)
	}
	for _, s := range all {
		if err := eventually(t.Context(), 60*time.Second, 50*time.Millisecond, s.ready); err != nil {
			t.Fatal(err)
		}
	}
	w.server = startServer(t, w.p, addresses[len(scenarios)], all)
	for _, sc := range scenarios {
		w.services[job+sc.name].load(w.ctx, sc.load)
	}
	return w
}

// end waits for the clients; programs end by themselves.
func (w *trial) end() {
	w.stop()
	for _, job := range slices.Sorted(maps.Keys(w.services)) {
		s := w.services[job]
		s.clients.Wait()
		if w.t.Failed() {
			w.t.Logf("%s answered: %s", job, s.said())
		}
	}
}

// pass lets time go by, which is what alerts are about.
func (w *trial) pass(d time.Duration) {
	w.t.Helper()
	select {
	case <-time.After(d):
	case <-w.server.process.done:
		w.t.Fatal("prometheus ended")
	}
}

// checkHealthy asserts that nothing has been raised for services of which nothing is wrong yet.
func (w *trial) checkHealthy() {
	w.t.Helper()
	seen, err := w.server.seen()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, sc := range scenarios {
		if sc.fault == nil && len(sc.fires) > 0 {
			continue // its settings are the fault
		}
		for name, s := range seen[job+sc.name] {
			w.unmeant(s, "%s%s: %s was %v before anything is wrong", job, sc.name, name, s)
		}
	}
	targets, err := w.server.query("sum(up)")
	if err != nil {
		w.t.Fatal(err)
	}
	if want := fmt.Sprint(len(scenarios)); len(targets) != 1 || targets[0].number() != want {
		w.t.Errorf("targets up: %v, want %s", targets, want)
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func (w *trial) inject() {
	w.t.Helper()
	var all sync.WaitGroup
	for _, sc := range scenarios {
		if sc.fault != nil {
			all.Go(func() {
				if err := sc.fault(w.ctx, w.services[job+sc.name]); err != nil {
					w.t.Errorf("%s%s: %v", job, sc.name, err)
				}
			})
		}
	}
	all.Wait()
}

// waitForAlerts waits until everything was raised that has to be. checkAlerts judges.
func (w *trial) waitForAlerts() {
	w.t.Helper()
	began := time.Now()
	err := eventually(w.t.Context(), faultLimit, time.Second, func() error {
		seen, err := w.server.seen()
		if err != nil {
			return err
		}
		var missing []string
		for _, sc := range scenarios {
			missing = append(missing, sc.missing(seen[job+sc.name])...)
		}
		if len(missing) > 0 {
			return fmt.Errorf("%d alerts to come: %s", len(missing), strings.Join(missing, ", "))
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
		return
	}
	w.t.Logf("every alert was raised within %v", time.Since(began).Round(time.Second))
}

func (sc *scenario) missing(seen map[string]state) (missing []string) {
	for want, names := range map[state][]string{firing: sc.fires, pending: sc.pends} {
		for _, name := range names {
			if seen[name] < want {
				missing = append(missing, fmt.Sprintf("%s%s: %s is %v, want %v", job, sc.name, name, seen[name], want))
			}
		}
	}
	return missing
}

// checkAlerts asserts that since the beginning nothing was raised but what each fault is meant to raise.
func (w *trial) checkAlerts() {
	w.t.Helper()
	seen, err := w.server.seen()
	if err != nil {
		w.t.Fatal(err)
	}
	for name, s := range seen[""] {
		if name != "LLMMetricsAbsent" || s != pending { // it is pending until the first scrape
			w.t.Errorf("%s, which belongs to no job, is %v", name, s)
		}
	}
	for _, sc := range scenarios {
		for name, s := range seen[job+sc.name] {
			meant := slices.Contains(slices.Concat(sc.fires, sc.pends, sc.free), name) || s < firing && slices.Contains(sc.may, name)
			if !meant {
				w.unmeant(s, "%s%s: %s was %v, which this fault must not raise", job, sc.name, name, s)
			}
		}
	}
}

// unmeant reports an alert that nothing should have raised. While the machine stood still everything was slow and nothing could be
// scraped: what became pending then, and no more than that, was right to.
func (w *trial) unmeant(s state, format string, args ...any) {
	w.t.Helper()
	longest := w.stalls.longest()
	if s == pending && longest >= stallMatters {
		w.t.Logf("let pass, as this machine stood still for %v: "+format, append([]any{longest.Round(time.Millisecond)}, args...)...)
		return
	}
	w.t.Errorf(format, args...)
}

// checkRules asserts that every rule could be evaluated.
func (w *trial) checkRules() {
	w.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := w.server.get("/api/v1/rules", url.Values{}, &data); err != nil {
		w.t.Fatal(err)
	}
	count := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			count++
			if r.Health != "ok" {
				w.t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if count < 50 {
		w.t.Errorf("only %d rules were loaded", count)
	}
}

// checkDashboards asserts that every query has series for the healthy service, and numbers for some service at least: how long restarts
// take is unknown where there was none.
func (w *trial) checkDashboards() {
	w.t.Helper()
	out, err := exec.Command(w.p.rules, "-queries", "-rate-window", "10s").Output()
	if err != nil {
		w.t.Fatalf("print queries: %v", err)
	}
	count, optional := 0, 0
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var q struct{ Dashboard, Panel, Query, Optional string }
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			w.t.Fatal(err)
		}
		count++
		if q.Optional != "" && q.Optional != "the recording rules" && q.Optional != "traffic" {
			optional++ // what it needs isn't here
			continue
		}
		if err := w.hasData(q.Query); err != nil {
			w.t.Errorf("%s, %s: %v", q.Dashboard, q.Panel, err)
		}
	}
	if count-optional < 50 {
		w.t.Errorf("only %d queries, %d of them optional", count, optional)
	}
	w.t.Logf("%d queries of the dashboards have data, %d need what isn't here", count-optional, optional)
}

// checkExemplars asserts that a bucket of the healthy service leads to a trace that a client sent. The clients number theirs from 1.
func (w *trial) checkExemplars() {
	w.t.Helper()
	var found []struct {
		Exemplars []struct{ Labels map[string]string }
	}
	now := time.Now()
	err := w.server.get("/api/v1/query_exemplars", url.Values{
		"query": {`api_response_time_seconds_bucket{job="` + job + `",endpoint="/infer"}`},
		"start": {now.Add(-10 * time.Minute).Format(time.RFC3339)}, "end": {now.Format(time.RFC3339)},
	}, &found)
	if err != nil {
		w.t.Error(err)
		return
	}
	count := 0
	for _, series := range found {
		for _, e := range series.Exemplars {
			id := e.Labels["trace_id"]
			if n, err := strconv.ParseUint(id, 16, 64); len(id) != 32 || err != nil || n == 0 || n > 1e6 { // of 128 random bits that doesn't happen
				w.t.Errorf("exemplar %v isn't a trace that was sent", e.Labels)
			}
			count++
		}
	}
	if count == 0 {
		w.t.Error("Prometheus has no exemplar of the response time")
	}
	w.t.Logf("%d exemplars lead to traces that were sent", count)
}

func (w *trial) hasData(query string) error {
	healthy := strings.ReplaceAll(query, `job=~".*"`, `job="`+job+`"`)
	if healthy == query {
		return fmt.Errorf("doesn't select a job: %s", query)
	}
	samples, err := w.server.query(healthy)
	if err != nil {
		return err
	}
	if len(samples) == 0 {
		return fmt.Errorf("no data: %s", healthy)
	}
	isNaN := func(s sample) bool { return s.number() == "NaN" }
	if !slices.ContainsFunc(samples, isNaN) || slices.ContainsFunc(samples, func(s sample) bool { return !isNaN(s) }) {
		return nil
	}
	if samples, err = w.server.query(query); err != nil {
		return err
	}
	if !slices.ContainsFunc(samples, func(s sample) bool { return !isNaN(s) }) {
		return fmt.Errorf("no numbers for any service: %s", query)
	}
	return nil
}

// checkRecovery asserts that alerts end when their cause does: the engine comes back, and the store of the rate limits.
func (w *trial) checkRecovery() {
	w.t.Helper()
	down, store := w.services[job+"-down"], w.services[job+"-store"]
	down.startEngine()
	if err := store.store.Restart(); err != nil {
		w.t.Fatal(err)
	}
	err := eventually(w.t.Context(), recoverLimit, time.Second, func() error {
		active, err := w.server.active()
		if err != nil {
			return err
		}
		for _, name := range []string{"LLMEngineDown", "HighErrorRate", "LLMRejectionRateHigh", "LLMAvailabilityBudgetBurn 1h"} {
			if s := active[down.job][name]; s != inactive {
				return fmt.Errorf("%s is still %v, the engine is back", name, s)
			}
		}
		if s := active[store.job]["LLMRateLimitStoreDown"]; s != inactive {
			return fmt.Errorf("LLMRateLimitStoreDown is still %v, the store is back", s)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// checkAbsence asserts that silence of the whole service is noticed.
func (w *trial) checkAbsence() {
	w.t.Helper()
	w.stop()
	for _, s := range w.services {
		s.proxy.stop(w.t)
	}
	err := eventually(w.t.Context(), recoverLimit, time.Second, func() error {
		active, err := w.server.active()
		if err != nil {
			return err
		}
		if s := active[""]["LLMMetricsAbsent"]; s != firing {
			return fmt.Errorf("LLMMetricsAbsent is %v, no proxy runs", s)
		}
		for job := range w.services {
			if s := active[job]["LLMTargetDown"]; s != firing {
				return fmt.Errorf("LLMTargetDown of %s is %v, no proxy runs", job, s)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}
