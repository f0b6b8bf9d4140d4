package prometheus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/scripts/launch"
)

const (
	job = "llm-inference" // the documented one; it is the healthy service's

	// of load before anything goes wrong; longer than 5 min divided by durationDivisor
	healthyDuration = 20 * time.Second
	faultTimeout    = 110 * time.Second
	recoveryTimeout = 40 * time.Second
	freezeDuration  = 45 * time.Second // how long an engine is stopped
)

// alertTest is a Prometheus and the services that it scrapes.
type alertTest struct {
	t           *testing.T
	binaries    binaries
	server      *prometheusServer
	services    map[string]*scrapedService // by job
	stopClients context.CancelFunc         // ends the clients
	ctx         context.Context            // of the clients; ends with stopClients
	stalls      *stallWatch
}

func TestFaultsRaiseTheirAlertsAndNoOthers(t *testing.T) {
	a := startAlertTest(t)
	t.Log("healthy")
	a.runFor(healthyDuration)
	a.checkHealthy()
	t.Log("faults")
	a.injectFaults()
	a.waitForAlerts()
	a.checkAlerts()
	a.checkRules()
	a.checkDashboards()
	a.checkExemplars()
	t.Log("recovery")
	a.checkRecovery()
	t.Log("the end of all")
	a.checkAbsence()
}

func startAlertTest(t *testing.T) *alertTest {
	t.Helper()
	a := &alertTest{t: t, binaries: binariesFromEnv(t), services: make(map[string]*scrapedService)}
	a.ctx, a.stopClients = context.WithCancel(t.Context())
	a.stalls = watchStalls(a.ctx)
	t.Cleanup(a.waitClients)
	var all []*scrapedService
	ports, err := launch.FreePorts(len(scenarios) + 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, sc := range scenarios {
		s := startScrapedService(t, a.binaries, address(ports[i]), sc)
		a.services[s.job] = s
		all = append(all, s)
	}
	for _, s := range all {
		if err := eventually(60*time.Second, 50*time.Millisecond, s.ready); err != nil {
			t.Fatal(err)
		}
	}
	a.server = startPrometheus(t, a.binaries, address(ports[len(scenarios)]), all)
	for _, sc := range scenarios {
		a.services[job+sc.name].startClients(a.ctx, sc.load)
	}
	return a
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// waitClients stops the clients and waits for them; the programs have cleanups of their own.
func (a *alertTest) waitClients() {
	a.stopClients()
	for _, job := range slices.Sorted(maps.Keys(a.services)) {
		s := a.services[job]
		s.clients.Wait()
		if a.t.Failed() {
			a.t.Logf("%s answered: %s", job, s.answerCounts())
		}
	}
}

// runFor lets the services run under their load for a while: alerts are about time.
func (a *alertTest) runFor(d time.Duration) {
	a.t.Helper()
	select {
	case <-time.After(d):
	case <-a.server.process.Ended():
		a.t.Fatal("prometheus ended")
	}
}

// checkHealthy asserts that no alert was raised yet for services whose fault is still to come.
func (a *alertTest) checkHealthy() {
	a.t.Helper()
	seen, err := a.server.highestAlertStates()
	if err != nil {
		a.t.Fatal(err)
	}
	for _, sc := range scenarios {
		if sc.fault == nil && len(sc.mustFire) > 0 {
			continue // its settings are its fault
		}
		for name, s := range seen[job+sc.name] {
			a.reportUnexpected(s, "%s%s: %s was %v before anything is wrong", job, sc.name, name, s)
		}
	}
	targets, err := a.server.query("sum(up)")
	if err != nil {
		a.t.Fatal(err)
	}
	if want := fmt.Sprint(len(scenarios)); len(targets) != 1 || targets[0].value() != want {
		a.t.Errorf("targets up: %v, want %s", targets, want)
	}
	if a.t.Failed() {
		a.t.FailNow()
	}
}

func (a *alertTest) injectFaults() {
	a.t.Helper()
	var all sync.WaitGroup
	for _, sc := range scenarios {
		if sc.fault != nil {
			all.Go(func() {
				if err := sc.fault(a.ctx, a.services[job+sc.name]); err != nil {
					a.t.Errorf("%s%s: %v", job, sc.name, err)
				}
			})
		}
	}
	all.Wait()
}

// waitForAlerts waits until every alert was raised that must be. Which others were raised is for checkAlerts.
func (a *alertTest) waitForAlerts() {
	a.t.Helper()
	began := time.Now()
	err := eventually(faultTimeout, time.Second, func() error {
		seen, err := a.server.highestAlertStates()
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
		a.t.Error(err)
		return
	}
	a.t.Logf("every alert was raised within %v", time.Since(began).Round(time.Second))
}

func (sc *scenario) missing(states map[string]alertState) (missing []string) {
	for want, names := range map[alertState][]string{firing: sc.mustFire, pending: sc.mustPend} {
		for _, name := range names {
			if states[name] < want {
				missing = append(missing, fmt.Sprintf("%s%s: %s is %v, want %v", job, sc.name, name, states[name], want))
			}
		}
	}
	return missing
}

// checkAlerts asserts that since the start no alerts were raised but those that each fault must or may raise.
func (a *alertTest) checkAlerts() {
	a.t.Helper()
	seen, err := a.server.highestAlertStates()
	if err != nil {
		a.t.Fatal(err)
	}
	for name, s := range seen[""] {
		if name != "LLMMetricsAbsent" || s != pending { // it is pending until the first scrape
			a.t.Errorf("%s, which belongs to no job, is %v", name, s)
		}
	}
	for _, sc := range scenarios {
		for name, s := range seen[job+sc.name] {
			expected := slices.Contains(slices.Concat(sc.mustFire, sc.mustPend, sc.mayFire), name) || s < firing && slices.Contains(sc.mayPend, name)
			if !expected {
				a.reportUnexpected(s, "%s%s: %s was %v, which this fault must not raise", job, sc.name, name, s)
			}
		}
	}
}

// reportUnexpected reports an alert that shouldn't have been raised. While the machine stalled everything was slow and
// nothing could be scraped: an alert that became pending then, but didn't fire, was right.
func (a *alertTest) reportUnexpected(s alertState, format string, args ...any) {
	a.t.Helper()
	longest := a.stalls.longest()
	if s == pending && longest >= relevantStall {
		a.t.Logf("let pass, as this machine stood still for %v: "+format, append([]any{longest.Round(time.Millisecond)}, args...)...)
		return
	}
	a.t.Errorf(format, args...)
}

// checkRecovery asserts that alerts end with their cause: the engine comes back, and the store of the rate limits.
func (a *alertTest) checkRecovery() {
	a.t.Helper()
	down, store := a.services[job+"-down"], a.services[job+"-store"]
	down.startEngine()
	if err := store.store.Restart(); err != nil {
		a.t.Fatal(err)
	}
	err := eventually(recoveryTimeout, time.Second, func() error {
		active, err := a.server.activeAlertStates()
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
		a.t.Error(err)
	}
}

// checkAbsence asserts that alerts fire when no proxy runs at all.
func (a *alertTest) checkAbsence() {
	a.t.Helper()
	a.stopClients()
	for _, s := range a.services {
		stop(a.t, s.proxy)
	}
	err := eventually(recoveryTimeout, time.Second, func() error {
		active, err := a.server.activeAlertStates()
		if err != nil {
			return err
		}
		if s := active[""]["LLMMetricsAbsent"]; s != firing {
			return fmt.Errorf("LLMMetricsAbsent is %v, no proxy runs", s)
		}
		for job := range a.services {
			if s := active[job]["LLMTargetDown"]; s != firing {
				return fmt.Errorf("LLMTargetDown of %s is %v, no proxy runs", job, s)
			}
		}
		return nil
	})
	if err != nil {
		a.t.Error(err)
	}
}
