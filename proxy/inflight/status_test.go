package inflight

import (
	"testing"
	"time"
)

func TestLoadedModelsAreReported(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Event(f, ModelEvent{Kind: EventLoading, Model: "demo", Version: "v1.0"})
		table.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0", Took: time.Second, Bytes: 1000, Facts: Facts{WeightBytes: 40_000, CacheBytes: 10_000, Quantization: "Q8_0"}})
		table.wantMetric(1, "llm_model_loaded", "model=demo", "version=v1.0")
		table.wantMetric(1000, "model_memory_usage_bytes", "version=v1.0")
		table.wantMetric(50_000, "model_memory_usage_bytes", "version=base")
		table.wantMetric(1, "model_load_time_seconds", "version=v1.0")
		s := table.Status()
		if !s.DefaultLoaded || s.DefaultModel != "demo" || s.DefaultVersion != "v1.0" || len(s.Loaded) != 1 || s.Device != "cpu" || !s.EngineUp {
			t.Errorf("status %+v", s)
		}
		table.Event(f, ModelEvent{Kind: EventEvicted, Model: "demo", Version: "v1.0", Reason: "lru"})
		table.wantMetric(0, "llm_model_loaded")
		table.wantMetric(0, "model_memory_usage_bytes")
		table.wantMetric(1, "llm_model_evictions_total", "reason=lru")
		table.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0", Bytes: 1000})
		table.lose(f)
		table.wantMetric(0, "llm_model_loaded")
		table.wantMetric(0, "model_memory_usage_bytes")
		time.Sleep(2 * time.Second)
		if s := table.Status(); s.EngineUp || s.EngineAwayFor != 2*time.Second || s.Device != "cpu" || len(s.Loaded) != 0 {
			t.Errorf("status without an engine %+v", s)
		}
	})
}

func TestEverReady(t *testing.T) {
	table := newTableTest(t, Options{})
	f := &fakeEngine{}
	table.Attached(f, Hello{Instance: 1})
	c := demoCatalog()
	c.Loaded = []Loaded{{Model: "demo", Version: "v1.0", Loading: true}}
	table.Catalog(f, c)
	if s := table.Status(); s.EverReady || len(s.Loading) != 1 || s.DefaultLoaded {
		t.Errorf("ready while the default model loads: %+v", s)
	}
	table.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0"})
	if s := table.Status(); !s.EverReady || len(s.Loading) != 0 || !s.DefaultLoaded {
		t.Errorf("not ready after the load: %+v", s)
	}
}

func TestDefaultProblem(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		wantProblem := func(when, want string) {
			t.Helper()
			if got := table.Status().DefaultProblem; got != want {
				t.Errorf("%s: problem %q, want %q", when, got, want)
			}
		}
		event := func(kind EventKind, version, reason string) {
			table.Event(f, ModelEvent{Kind: kind, Model: "demo", Version: version, Reason: reason})
		}
		event(EventLoadFailed, "v2.0", "bad_format")
		wantProblem("another version failed", "")
		event(EventLoadFailed, "v1.0", "out_of_memory")
		wantProblem("it never was loaded", "out_of_memory")
		event(EventLoading, "v1.0", "")
		event(EventLoaded, "v1.0", "")
		wantProblem("loaded", "")
		event(EventEvicted, "v1.0", "lru")
		event(EventLoadFailed, "v1.0", "out_of_memory")
		wantProblem("it has served, which may be a pause", "")
		time.Sleep(10 * time.Second)
		event(EventLoadFailed, "v1.0", "out_of_memory")
		wantProblem("that lasts", "out_of_memory")
		c := demoCatalog()
		c.Models[0].Versions[1].Problem = "model.gguf: cut off"
		table.Catalog(f, c)
		wantProblem("files are at fault", "model.gguf: cut off")
	})
}
