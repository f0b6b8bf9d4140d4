package metrics

import (
	"bytes"
	"math"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tandem/schema/catalogue"
)

func scrape(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	var b bytes.Buffer
	m.WritePrometheus(&b)
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(&b)
	if err != nil {
		t.Fatalf("the page does not parse: %v", err)
	}
	return families
}

func filledMetrics() *Metrics {
	m := New()
	m.AddBase("demo")
	m.AddBase("org/other")
	m.SetKVCache("demo", KVCache{Bytes: 4096, KeyType: "f16", ValueType: "f16"})
	m.SetLoadProgress("next", 0.5)
	m.SetDevice(Device{Name: "CUDA0", Description: "NVIDIA", Backend: "cuda", Driver: "1", UsedBytes: 1, TotalBytes: 2, GPU: &GPU{Utilization: 0.5, Watts: 100, Celsius: 60}})
	m.SetCompute("cpu", "auto", []string{"cuda"})
	return m
}

func TestWhatACardDoesNotReportHasNoSeries(t *testing.T) {
	m := New()
	card := Device{Name: "CUDA0", TotalBytes: 2, GPU: &GPU{Utilization: 0.5, Watts: math.NaN(), Celsius: math.NaN()}}
	m.SetDevice(card)
	m.SetDevice(card)
	families := scrape(t, m)
	if families["llm_gpu_utilization_ratio"] == nil || families["llm_gpu_power_watts"] != nil || families["llm_gpu_temperature_celsius"] != nil {
		t.Errorf("utilisation %v, power %v, temperature %v", families["llm_gpu_utilization_ratio"], families["llm_gpu_power_watts"], families["llm_gpu_temperature_celsius"])
	}
}

func TestWhatComputesAndWhatIsMissed(t *testing.T) {
	if _, ok := seriesValue(scrape(t, filledMetrics())["llm_engine_compute_info"], "backend=cpu,setting=auto,missing=cuda"); !ok {
		t.Error("no series for an engine without its GPUs")
	}
	m := New()
	m.SetCompute("cuda", "CUDA1", nil)
	if _, ok := seriesValue(scrape(t, m)["llm_engine_compute_info"], "backend=cuda,setting=CUDA1,missing=none"); !ok {
		t.Error("no series for an engine with its GPU")
	}
}

func TestPageIsTheCatalogue(t *testing.T) {
	families := scrape(t, filledMetrics())
	for _, c := range catalogue.ByOwner(catalogue.Engine) {
		f := families[c.Name]
		if f == nil {
			t.Errorf("%s is missing", c.Name)
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != c.Kind.String() {
			t.Errorf("%s is a %s, want %s", c.Name, got, c.Kind)
		}
		if h := f.GetMetric()[0].GetHistogram(); h != nil && len(h.GetBucket()) != len(c.Bounds.Edges)+1 {
			t.Errorf("%s has %d buckets, want %d and +Inf", c.Name, len(h.GetBucket()), len(c.Bounds.Edges))
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "llm_") && catalogue.Find(name) == nil {
			t.Errorf("%s is not in the catalogue", name)
		}
	}
	for _, name := range catalogue.EngineRuntimeNames() {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestStepsAreCounted(t *testing.T) {
	m := filledMetrics()
	m.Decode("demo", "prefill", 0.5, 100, 2)
	m.Decode("demo", "decode", 0.25, 4, 4)
	m.Decode("gone", "decode", 1, 1, 1)
	m.Tokens("demo", "generated", 4)
	m.Tokens("demo", "made up", 4)
	m.Sampling("demo", 0.125)
	m.DeviceDraws("demo", 3, false)
	m.DeviceDraws("demo", 0, true)
	m.DeviceDraws("gone", 1, true)
	m.Preempted("demo")
	m.DecodeError("demo", "made up")
	m.SetState("demo", State{Idle: 1, Prefilling: 2, Decoding: 3, Waiting: 4, CellsUsed: 5, Cells: 6})
	f := scrape(t, m)
	for _, c := range []struct {
		family, labels string
		want           float64
	}{
		{"llm_engine_decode_calls_total", "model=demo,phase=prefill", 1},
		{"llm_engine_busy_seconds_total", "model=demo,phase=decode", 0.25},
		{"llm_engine_tokens_total", "kind=generated,model=demo", 4},
		{"llm_engine_tokens_total", "kind=generated,model=org/other", 0},
		{"llm_engine_sampling_seconds_total", "model=demo", 0.125},
		{"llm_engine_device_draws_total", "model=demo", 3},
		{"llm_engine_repeated_steps_total", "model=demo", 1},
		{"llm_engine_preemptions_total", "model=demo", 1},
		{"llm_engine_decode_errors_total", "code=other,model=demo", 1},
		{"llm_engine_slots", "model=demo,state=decode", 3},
		{"llm_engine_queue_requests", "model=demo", 4},
		{"llm_engine_kv_cells_used", "model=demo", 5},
		{"llm_engine_batch_tokens", "model=demo", 104},
	} {
		if got, ok := seriesValue(f[c.family], c.labels); !ok || got != c.want {
			t.Errorf("%s{%s} = %v (there: %v), want %v", c.family, c.labels, got, ok, c.want)
		}
	}
}

// seriesValue returns the value of the series, the sum for a histogram.
func seriesValue(f *dto.MetricFamily, labels string) (float64, bool) {
	for _, m := range f.GetMetric() {
		have := make(map[string]bool)
		for _, l := range m.GetLabel() {
			have[l.GetName()+"="+l.GetValue()] = true
		}
		all := true
		for want := range strings.SplitSeq(labels, ",") {
			all = all && have[want]
		}
		if all {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum(), true
		}
	}
	return 0, false
}

func TestUnloadedBaseHasNoSeries(t *testing.T) {
	m := New()
	m.AddBase("demo")
	m.AddBase("demo#2") // its successor, for a while beside it
	m.Preempted("demo#2")
	m.RemoveBase("demo")
	m.Preempted("demo")
	if got, ok := seriesValue(scrape(t, m)["llm_engine_preemptions_total"], "model=demo"); !ok || got != 1 {
		t.Errorf("preemptions of the successor = %v, there: %v", got, ok)
	}
	m.SetLoadProgress("demo", 1)
	m.LoadEnded("demo")
	m.RemoveBase("demo#2")
	m.RemoveBase("demo#2")
	for name := range scrape(t, m) {
		if strings.HasPrefix(name, "llm_") {
			t.Errorf("%s is left", name)
		}
	}
	m.AddBase("demo")
	if _, ok := seriesValue(scrape(t, m)["llm_engine_preemptions_total"], "model=demo"); !ok {
		t.Error("a base that was loaded again has no series")
	}
}

func TestLabelValuesAreEscaped(t *testing.T) {
	m := New()
	m.AddBase("a\"b\\c\nd\u00e9")
	if _, ok := seriesValue(scrape(t, m)["llm_engine_kv_cells"], "model=a\"b\\c\nd\u00e9"); !ok {
		t.Error("the name was changed")
	}
}

func TestScrapesAndStepsAtOnce(t *testing.T) {
	m := New()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 200 {
			m.Decode("demo", "decode", 0.001, 4, 4)
			m.SetState("demo", State{})
		}
	})
	wg.Go(func() {
		for range 50 {
			m.AddBase("demo")
			m.RemoveBase("demo")
		}
	})
	for range 20 {
		scrape(t, m)
	}
	wg.Wait()
}

func TestStepDoesNotAllocate(t *testing.T) {
	m := filledMetrics()
	if n := testing.AllocsPerRun(100, func() { m.Decode("demo", "mixed", 0.001, 8, 8); m.Tokens("demo", "generated", 8) }); n != 0 {
		t.Errorf("%v allocations a step", n)
	}
}

// While a model that changed drains, it and the one that replaces it hold sequences, cells and memory.
func TestBasesOfOneModelAreSummed(t *testing.T) {
	m := New()
	m.AddBase("demo")
	m.AddBase("demo#2")
	want := func(family, labels string, value float64) {
		t.Helper()
		if got, ok := seriesValue(scrape(t, m)[family], labels); !ok || got != value {
			t.Errorf("%s{%s} = %v (there: %v), want %v", family, labels, got, ok, value)
		}
	}
	m.SetKVCache("demo", KVCache{Bytes: 4096, KeyType: "f16", ValueType: "f16"})
	m.SetKVCache("demo#2", KVCache{Bytes: 1024, KeyType: "f16", ValueType: "f16"})
	for range 2 { // the later samples replace the earlier ones
		m.SetState("demo", State{Idle: 2, Prefilling: 1, Decoding: 30, Waiting: 4, CellsUsed: 900, Cells: 1000})
		m.SetState("demo#2", State{Idle: 33, CellsUsed: 1, Cells: 500})
	}
	want("llm_engine_slots", "model=demo,state=idle", 35)
	want("llm_engine_slots", "model=demo,state=prefill", 1)
	want("llm_engine_slots", "model=demo,state=decode", 30)
	want("llm_engine_queue_requests", "model=demo", 4)
	want("llm_engine_kv_cells_used", "model=demo", 901)
	want("llm_engine_kv_cells", "model=demo", 1500)
	want("llm_engine_kv_bytes", "model=demo,key_type=f16,value_type=f16", 5120)
	m.RemoveBase("demo")
	m.SetState("demo", State{Decoding: 30}) // a sample that was taken before
	want("llm_engine_slots", "model=demo,state=decode", 0)
	want("llm_engine_kv_cells", "model=demo", 500)
	want("llm_engine_kv_bytes", "model=demo,key_type=f16,value_type=f16", 1024)
}

func TestKVCacheOfTheNewerBase(t *testing.T) {
	m := filledMetrics()
	m.AddBase("demo#2")
	m.SetKVCache("demo#2", KVCache{Bytes: 2176, KeyType: "q8_0", ValueType: "q8_0"})
	m.SetKVCache("gone", KVCache{Bytes: 1, KeyType: "f16", ValueType: "f16"})
	if f := scrape(t, m)["llm_engine_kv_bytes"]; len(f.GetMetric()) != 2 {
		t.Errorf("of two caches in memory: %v", f)
	}
	m.RemoveBase("demo")
	f := scrape(t, m)["llm_engine_kv_bytes"]
	if bytes, ok := seriesValue(f, "model=demo,key_type=q8_0,value_type=q8_0"); !ok || bytes != 2176 || len(f.GetMetric()) != 1 {
		t.Errorf("after a model was loaded anew with another format: %v", f)
	}
	m.RemoveBase("demo#2")
	if f := scrape(t, m)["llm_engine_kv_bytes"]; f != nil {
		t.Errorf("after it was unloaded: %v", f)
	}
}
