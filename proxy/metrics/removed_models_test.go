package metrics

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tandem/schema/catalogue"
)

// installedOnly is an argument of Sweep: only these models are installed.
func installedOnly(names ...string) func(string, string) bool {
	return func(model, _ string) bool {
		for _, name := range names {
			if name == model {
				return true
			}
		}
		return false
	}
}

// runSweep calls Sweep and the removal that it returns.
func runSweep(m *Metrics, installed func(string, string) bool, now time.Time) {
	if rest := m.Sweep(installed, now); rest != nil {
		rest()
	}
}

// recordRequest records a whole request for a model.
func recordRequest(m *Metrics, mm *ModelMetrics) {
	e := m.Endpoint("/infer")
	e.Begin()
	mm.Token(time.Millisecond)
	mm.FirstToken(time.Millisecond, "")
	mm.Finish(Outcome{Reason: "stop", Domain: "sales", PromptTokens: 3, OutputTokens: 1})
	e.Record(Reply{Status: "success", Model: mm, Took: time.Second})
}

func countSeriesOf(t *testing.T, m *Metrics, model string) int {
	t.Helper()
	n := 0
	for _, f := range scrapeFamilies(t, m) {
		for _, s := range f.GetMetric() {
			if labelValue(s, "model") == model {
				n++
			}
		}
	}
	return n
}

func TestSeriesOfRemovedModelsGo(t *testing.T) {
	m := newTestMetrics(t, func(o *Options) { o.KeepRemoved, o.Domains = time.Hour, []string{"sales"} })
	start := time.Unix(1e9, 0)
	before := countSeries(scrapeFamilies(t, m))
	for i := range 40 {
		for _, version := range []string{"base", "v1.0"} {
			m.RegisterModel(fmt.Sprintf("m%d", i), version)
			mm := m.Model(fmt.Sprintf("m%d", i), version)
			mm.SetLoaded(1000, Facts{Quantization: "Q4_K", Architecture: "llama", ContextTokens: 512})
			recordRequest(m, mm)
			mm.Evicted("lru")
			mm.SetUnloaded()
		}
	}
	runSweep(m, installedOnly("m7"), start)
	runSweep(m, installedOnly("m7"), start.Add(time.Hour-time.Second))
	if countSeriesOf(t, m, "m3") == 0 {
		t.Error("the last values are gone before they were kept for an hour")
	}
	runSweep(m, installedOnly("m7"), start.Add(time.Hour))
	if n := countSeriesOf(t, m, "m3"); n != 0 {
		t.Errorf("%d series of a removed model", n)
	}
	kept := countSeriesOf(t, m, "m7")
	if left := countSeries(scrapeFamilies(t, m)); kept == 0 || left != before+kept {
		t.Errorf("%d series are left, want %d and %d of the model that is installed", left, before, kept)
	}
	if f := scrapeFamilies(t, m)["tokens_generated_total"]; sumSeries(f, "model=m7") != 2 || len(f.GetMetric()) != 5 {
		t.Errorf("tokens_generated_total is %v", f)
	}
}

func TestModelThatComesBackStartsAnew(t *testing.T) {
	m := newTestMetrics(t, nil)
	start := time.Unix(1e9, 0)
	m.RegisterModel("a", "base")
	recordRequest(m, m.Model("a", "base"))
	runSweep(m, installedOnly(), start)
	runSweep(m, installedOnly("a"), start.Add(59*time.Minute)) // it was here again meanwhile
	runSweep(m, installedOnly(), start.Add(time.Hour))
	if f := scrapeFamilies(t, m)["tokens_generated_total"]; sumSeries(f, "model=a") != 1 {
		t.Error("a model that was away for less than an hour lost its counters")
	}
	runSweep(m, installedOnly(), start.Add(2*time.Hour))
	m.RegisterModel("a", "base")
	families := scrapeFamilies(t, m)
	if f := families["tokens_generated_total"]; sumSeries(f, "model=a") != 0 || len(f.GetMetric()) != 4 {
		t.Errorf("after it came back: %v", f)
	}
	recordRequest(m, m.Model("a", "base"))
	families = scrapeFamilies(t, m)
	for _, name := range []string{"tokens_generated_total", "successful_inferences_total", "llm_request_finish_total", "llm_request_output_tokens", "api_response_time_seconds"} {
		if got := sumSeries(families[name], "model=a"); got != 1 {
			t.Errorf("%s is %v after one request", name, got)
		}
	}
}

// Whoever still holds a removed pair may go on with it; nothing of it comes back.
func TestRemovedSeriesAreNotMadeAgain(t *testing.T) {
	m := newTestMetrics(t, nil)
	start := time.Unix(1e9, 0)
	m.RegisterModel("a", "base")
	m.RegisterModel("b", "base")
	used := m.Model("a", "base")
	other, _ := m.models.Load(modelVersion{"b", "base"})
	fresh := other.(*ModelMetrics) // not woken yet
	runSweep(m, installedOnly(), start)
	runSweep(m, installedOnly(), start.Add(time.Hour))
	before := countSeries(scrapeFamilies(t, m))
	for _, mm := range []*ModelMetrics{used, fresh} {
		mm.SetLoaded(1000, Facts{Quantization: "Q4_K"})
		recordRequest(m, mm)
		mm.Evicted("lru")
		mm.LoadTime(time.Second)
		mm.SetMemory(5)
		mm.SetUnloaded()
	}
	if after := countSeries(scrapeFamilies(t, m)); after != before {
		t.Errorf("%d series more", after-before)
	}
	for _, model := range []string{"a", "b"} {
		if n := countSeriesOf(t, m, model); n != 0 {
			t.Errorf("%d series of %s came back", n, model)
		}
	}
	if got := sumSeries(scrapeFamilies(t, m)["successful_inferences_total"], "model=unknown"); got != 0 {
		t.Errorf("%v successes of an unknown model", got)
	}
}

func TestSeriesStayWhileARequestCountsThere(t *testing.T) {
	m := newTestMetrics(t, nil)
	start := time.Unix(1e9, 0)
	m.RegisterModel("a", "base")
	mm := m.Model("a", "base")
	mm.Hold()
	runSweep(m, installedOnly(), start)
	runSweep(m, installedOnly(), start.Add(2*time.Hour))
	recordRequest(m, mm)
	families := scrapeFamilies(t, m)
	if sumSeries(families["successful_inferences_total"], "model=a") != 1 || sumSeries(families["api_requests_total"], "model=a", "status=success") != 1 {
		t.Error("a request that outlived its model isn't counted")
	}
	mm.Release()
	runSweep(m, installedOnly(), start.Add(3*time.Hour))
	if n := countSeriesOf(t, m, "a"); n != 0 {
		t.Errorf("%d series after its end", n)
	}
}

// Whoever removes series may hold a lock that the answer about the engine waits for, as the request table does.
func TestSeriesGoWhileTheEngineIsAsked(t *testing.T) {
	var table sync.Mutex
	lastAsked := make(chan struct{})
	m := newTestMetrics(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) {
			close(lastAsked)
			table.Lock()
			defer table.Unlock()
			return nil, nil
		}
	})
	m.EngineUp(EngineInfo{Build: "1.0.0"})
	m.RegisterModel("a", "base")
	over := make(chan struct{})
	table.Lock()
	go func() {
		defer close(over)
		m.liveSample()
	}()
	go func() {
		defer table.Unlock()
		<-lastAsked
		runSweep(m, installedOnly(), time.Unix(1e9, 0))
		runSweep(m, installedOnly(), time.Unix(1e9, 0).Add(time.Hour))
	}()
	select {
	case <-over:
	case <-time.After(10 * time.Second):
		t.Fatal("the live figures and the removal wait for each other")
	}
}

// Between Sweep and the removal the request table continues.
func TestModelThatComesBackDuringASweepStays(t *testing.T) {
	m := newTestMetrics(t, nil)
	start := time.Unix(1e9, 0)
	m.RegisterModel("a", "base")
	m.RegisterModel("b", "base")
	recordRequest(m, m.Model("a", "base"))
	recordRequest(m, m.Model("b", "base"))
	m.Sweep(installedOnly(), start)
	rest := m.Sweep(installedOnly(), start.Add(time.Hour))
	m.RegisterModel("a", "base")
	m.Model("b", "base").Hold()
	rest()
	for _, model := range []string{"a", "b"} {
		if sumSeries(scrapeFamilies(t, m)["tokens_generated_total"], "model="+model) != 1 {
			t.Errorf("%s lost its counters", model)
		}
	}
}

// The live figures are sums over all models; they must not go backwards when one goes.
func TestLiveFiguresOutliveRemovedModels(t *testing.T) {
	m := newTestMetrics(t, nil)
	start := time.Unix(1e9, 0)
	m.RegisterModel("a", "base")
	for range 5 {
		recordRequest(m, m.Model("a", "base"))
	}
	m.Model("a", "base").CacheHit()
	before := m.liveSample()
	runSweep(m, installedOnly(), start)
	runSweep(m, installedOnly(), start.Add(time.Hour))
	recordRequest(m, m.Model(testModel, testVersion))
	after := m.liveSample()
	if d := after.tokens - before.tokens; d != 1 {
		t.Errorf("%v tokens since", d)
	}
	if d := after.response.minus(before.response); d.count != 1 || d.sum != 1 {
		t.Errorf("%v answers since, in %v s", d.count, d.sum)
	}
	if after.hits != before.hits || after.status["success"]-before.status["success"] != 1 || after.phases["queue"].count-before.phases["queue"].count != 1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestRoomOfRemovedModelsIsUsedAgain(t *testing.T) {
	m := newTestMetrics(t, nil)
	start := time.Unix(1e9, 0)
	for i := range catalogue.MaxPairs {
		m.RegisterModel("old", fmt.Sprintf("v%d", i))
	}
	m.RegisterModel("new", "base")
	if model, _ := m.Model("new", "base").Labels(); model != catalogue.Other {
		t.Fatalf("beyond the bound the label is %s", model)
	}
	runSweep(m, installedOnly("new"), start)
	runSweep(m, installedOnly("new"), start.Add(time.Hour))
	m.RegisterModel("new", "base")
	if model, _ := m.Model("new", "base").Labels(); model != "new" {
		t.Errorf("with room again the label is %s", model)
	}
}

func TestSweepBesideRequests(t *testing.T) {
	m := newTestMetrics(t, nil)
	now := time.Unix(1e9, 0)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for _, ask := range []func(){func() { recordRequest(m, m.Model("a", "base")) }, func() { m.liveSample() }} {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					ask()
				}
			}
		})
	}
	for range 20 {
		m.RegisterModel("a", "base")
		now = now.Add(time.Hour)
		runSweep(m, installedOnly(), now)
		now = now.Add(time.Hour)
		runSweep(m, installedOnly(), now)
	}
	close(stop)
	asking.Wait()
	if n := countSeriesOf(t, m, "a"); n != 0 {
		t.Errorf("%d series are left", n)
	}
}
