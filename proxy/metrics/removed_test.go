package metrics

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tandem/schema/catalogue"
)

// installedOnly is what Sweep asks, for a few models.
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

// sweep is both halves of Sweep.
func sweep(m *Metrics, installed func(string, string) bool, now time.Time) {
	if rest := m.Sweep(installed, now); rest != nil {
		rest()
	}
}

// serveOne is a whole request of a model.
func serveOne(m *Metrics, mm *ModelMetrics) {
	e := m.Endpoint(inferRoute)
	e.Begin()
	mm.Token(time.Millisecond)
	mm.FirstToken(time.Millisecond, "")
	mm.Finish(Outcome{Reason: "stop", Domain: "sales", PromptTokens: 3, OutputTokens: 1})
	e.Record(Reply{Status: "success", Model: mm, Took: time.Second})
}

func seriesOf(t *testing.T, m *Metrics, model string) int {
	t.Helper()
	n := 0
	for _, f := range page(t, m) {
		for _, s := range f.GetMetric() {
			if label(s, "model") == model {
				n++
			}
		}
	}
	return n
}

func TestSeriesOfRemovedModelsGo(t *testing.T) {
	m := newTest(t, func(o *Options) { o.KeepRemoved, o.Domains = time.Hour, []string{"sales"} })
	start := time.Unix(1e9, 0)
	before := seriesCount(page(t, m))
	for i := range 40 {
		for _, version := range []string{"base", "v1.0"} {
			m.Announce(fmt.Sprintf("m%d", i), version)
			mm := m.Model(fmt.Sprintf("m%d", i), version)
			mm.SetLoaded(1000, Facts{Quantization: "Q4_K", Architecture: "llama", ContextTokens: 512})
			serveOne(m, mm)
			mm.Evicted("lru")
			mm.SetUnloaded()
		}
	}
	sweep(m, installedOnly("m7"), start)
	sweep(m, installedOnly("m7"), start.Add(time.Hour-time.Second))
	if seriesOf(t, m, "m3") == 0 {
		t.Error("the last values are gone before they were kept for an hour")
	}
	sweep(m, installedOnly("m7"), start.Add(time.Hour))
	if n := seriesOf(t, m, "m3"); n != 0 {
		t.Errorf("%d series of a removed model", n)
	}
	kept := seriesOf(t, m, "m7")
	if left := seriesCount(page(t, m)); kept == 0 || left != before+kept {
		t.Errorf("%d series are left, want %d and %d of the model that is installed", left, before, kept)
	}
	if f := page(t, m)["tokens_generated_total"]; sum(f, "model=m7") != 2 || len(f.GetMetric()) != 5 {
		t.Errorf("tokens_generated_total is %v", f)
	}
}

func TestModelThatComesBackStartsAnew(t *testing.T) {
	m := newTest(t, nil)
	start := time.Unix(1e9, 0)
	m.Announce("a", "base")
	serveOne(m, m.Model("a", "base"))
	sweep(m, installedOnly(), start)
	sweep(m, installedOnly("a"), start.Add(59*time.Minute)) // it was here again meanwhile
	sweep(m, installedOnly(), start.Add(time.Hour))
	if f := page(t, m)["tokens_generated_total"]; sum(f, "model=a") != 1 {
		t.Error("a model that was away for less than an hour lost its counters")
	}
	sweep(m, installedOnly(), start.Add(2*time.Hour))
	m.Announce("a", "base")
	families := page(t, m)
	if f := families["tokens_generated_total"]; sum(f, "model=a") != 0 || len(f.GetMetric()) != 4 {
		t.Errorf("after it came back: %v", f)
	}
	serveOne(m, m.Model("a", "base"))
	families = page(t, m)
	for _, name := range []string{"tokens_generated_total", "successful_inferences_total", "llm_request_finish_total", "llm_request_output_tokens", "api_response_time_seconds"} {
		if got := sum(families[name], "model=a"); got != 1 {
			t.Errorf("%s is %v after one request", name, got)
		}
	}
}

// Whoever still holds a removed pair may go on with it; nothing of it comes back.
func TestRemovedSeriesAreNotMadeAgain(t *testing.T) {
	m := newTest(t, nil)
	start := time.Unix(1e9, 0)
	m.Announce("a", "base")
	m.Announce("b", "base")
	used := m.Model("a", "base")
	other, _ := m.pairs.Load(pair{"b", "base"})
	fresh := other.(*ModelMetrics) // not woken yet
	sweep(m, installedOnly(), start)
	sweep(m, installedOnly(), start.Add(time.Hour))
	before := seriesCount(page(t, m))
	for _, mm := range []*ModelMetrics{used, fresh} {
		mm.SetLoaded(1000, Facts{Quantization: "Q4_K"})
		serveOne(m, mm)
		mm.Evicted("lru")
		mm.LoadTime(time.Second)
		mm.SetMemory(5)
		mm.SetUnloaded()
	}
	if after := seriesCount(page(t, m)); after != before {
		t.Errorf("%d series more", after-before)
	}
	for _, model := range []string{"a", "b"} {
		if n := seriesOf(t, m, model); n != 0 {
			t.Errorf("%d series of %s came back", n, model)
		}
	}
	if got := sum(page(t, m)["successful_inferences_total"], "model=unknown"); got != 0 {
		t.Errorf("%v successes of an unknown model", got)
	}
}

func TestSeriesStayWhileARequestCountsThere(t *testing.T) {
	m := newTest(t, nil)
	start := time.Unix(1e9, 0)
	m.Announce("a", "base")
	mm := m.Model("a", "base")
	mm.Hold()
	sweep(m, installedOnly(), start)
	sweep(m, installedOnly(), start.Add(2*time.Hour))
	serveOne(m, mm)
	families := page(t, m)
	if sum(families["successful_inferences_total"], "model=a") != 1 || sum(families["api_requests_total"], "model=a", "status=success") != 1 {
		t.Error("a request that outlived its model isn't counted")
	}
	mm.Release()
	sweep(m, installedOnly(), start.Add(3*time.Hour))
	if n := seriesOf(t, m, "a"); n != 0 {
		t.Errorf("%d series after its end", n)
	}
}

// Whoever removes series may hold a lock that the answer about the engine waits for, as the request table does.
func TestSeriesGoWhileTheEngineIsAsked(t *testing.T) {
	var table sync.Mutex
	asked := make(chan struct{})
	m := newTest(t, func(o *Options) {
		o.EngineText = func(context.Context) ([]byte, error) {
			close(asked)
			table.Lock()
			defer table.Unlock()
			return nil, nil
		}
	})
	m.EngineUp(EngineInfo{Build: "1.0.0"})
	m.Announce("a", "base")
	over := make(chan struct{})
	table.Lock()
	go func() {
		defer close(over)
		m.sample()
	}()
	go func() {
		defer table.Unlock()
		<-asked
		sweep(m, installedOnly(), time.Unix(1e9, 0))
		sweep(m, installedOnly(), time.Unix(1e9, 0).Add(time.Hour))
	}()
	select {
	case <-over:
	case <-time.After(10 * time.Second):
		t.Fatal("the live figures and the removal wait for each other")
	}
}

// Between the two halves of a sweep the request table goes on.
func TestModelThatComesBackDuringASweepStays(t *testing.T) {
	m := newTest(t, nil)
	start := time.Unix(1e9, 0)
	m.Announce("a", "base")
	m.Announce("b", "base")
	serveOne(m, m.Model("a", "base"))
	serveOne(m, m.Model("b", "base"))
	m.Sweep(installedOnly(), start)
	rest := m.Sweep(installedOnly(), start.Add(time.Hour))
	m.Announce("a", "base")
	m.Model("b", "base").Hold()
	rest()
	for _, model := range []string{"a", "b"} {
		if sum(page(t, m)["tokens_generated_total"], "model="+model) != 1 {
			t.Errorf("%s lost its counters", model)
		}
	}
}

// The live figures are sums over all models; they must not go backwards when one goes.
func TestLiveFiguresOutliveRemovedModels(t *testing.T) {
	m := newTest(t, nil)
	start := time.Unix(1e9, 0)
	m.Announce("a", "base")
	for range 5 {
		serveOne(m, m.Model("a", "base"))
	}
	m.Model("a", "base").CacheHit()
	before := m.sample()
	sweep(m, installedOnly(), start)
	sweep(m, installedOnly(), start.Add(time.Hour))
	serveOne(m, m.Model(testModel, testVersion))
	after := m.sample()
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
	m := newTest(t, nil)
	start := time.Unix(1e9, 0)
	for i := range catalogue.MaxPairs {
		m.Announce("old", fmt.Sprintf("v%d", i))
	}
	m.Announce("new", "base")
	if model, _ := m.Model("new", "base").Labels(); model != catalogue.Other {
		t.Fatalf("beyond the bound the label is %s", model)
	}
	sweep(m, installedOnly("new"), start)
	sweep(m, installedOnly("new"), start.Add(time.Hour))
	m.Announce("new", "base")
	if model, _ := m.Model("new", "base").Labels(); model != "new" {
		t.Errorf("with room again the label is %s", model)
	}
}

func TestSweepBesideRequests(t *testing.T) {
	m := newTest(t, nil)
	now := time.Unix(1e9, 0)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for _, ask := range []func(){func() { serveOne(m, m.Model("a", "base")) }, func() { m.sample() }} {
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
		m.Announce("a", "base")
		now = now.Add(time.Hour)
		sweep(m, installedOnly(), now)
		now = now.Add(time.Hour)
		sweep(m, installedOnly(), now)
	}
	close(stop)
	asking.Wait()
	if n := seriesOf(t, m, "a"); n != 0 {
		t.Errorf("%d series are left", n)
	}
}
