package metrics

import (
	"context"
	"encoding/json"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// recordAnswer records a request that took long, of which half was spent in the queue.
func recordAnswer(m *Metrics, status string, took time.Duration) {
	mm := m.Model("demo", "v1.0")
	m.vectors.counter("api_requests_total", "/infer", status, "demo", "v1.0").Inc()
	m.vectors.histogram("api_response_time_seconds", "/infer", "demo", "v1.0").Observe(took.Seconds())
	mm.queue.Observe(took.Seconds() / 2)
	mm.decode.Observe(took.Seconds() / 2)
	mm.tokens.Add(20)
	mm.hits.Inc()
}

func isNear(n Number, want float64) bool { return math.Abs(float64(n)-want) < 1e-6 }

func TestFiguresAreThoseOfTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{DefaultModel: "demo", DefaultVersion: "v1.0"})
		recordAnswer(m, "error", 100*time.Second) // before the first sample: counts for nothing
		l := m.NewLiveSampler()
		if f := l.Figures(); f.Response.Mean.Known() || f.RequestRate.Known() || f.SuccessRatio.Known() || f.MemoryRatio.Known() {
			t.Errorf("figures out of nothing: %+v", f)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()

		for range 6 {
			recordAnswer(m, "success", 2*time.Second)
		}
		recordAnswer(m, "error", 2*time.Second)
		recordAnswer(m, "client_error", 2*time.Second)
		m.EngineRestarted("crash")
		time.Sleep(30500 * time.Millisecond)
		f := l.Figures()
		window := float64(f.WindowSeconds)
		if window < 25 || window > 30 || !isNear(f.RequestRate, 6/window) || !isNear(f.TokenRate, 160/window) || !isNear(f.SuccessRatio, 6.0/7) || !isNear(f.ErrorRatio, 1.0/7) {
			t.Errorf("rates of half a minute: %+v", f)
		}
		if !isNear(f.Response.Mean, 2) || f.Response.P95 <= 1.5 || f.Response.P95 > 2 || !isNear(f.Phases.Queue, 1) || !isNear(f.Phases.Decode, 1) || !isNear(f.Phases.Prefill, 0) {
			t.Errorf("times of half a minute: %+v", f)
		}
		if f.EngineRestarts != 1 || f.RestartReasons["crash"] != 1 || !isNear(f.CacheHitRatio, 1) {
			t.Errorf("counts: %+v", f)
		}

		time.Sleep(2 * time.Minute)
		if f := l.Figures(); f.Response.Mean.Known() || !isNear(f.RequestRate, 0) || f.EngineRestarts != 1 {
			t.Errorf("figures two minutes later: %+v", f)
		}
	})
}

func TestPointsComeOnceAndStayBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{}).NewLiveSampler()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()

		time.Sleep(20500 * time.Millisecond)
		if n := len(l.Since(time.Time{})); n != 4 {
			t.Errorf("%d points after 20 s without a viewer, want one in 5 s", n)
		}
		for range 6 * 60 {
			time.Sleep(time.Second)
			l.Figures()
		}
		all := l.Since(time.Time{})
		if len(all) != maxSamples || len(l.samples) > maxSamples {
			t.Errorf("%d points and %d samples are kept after 6 minutes with a viewer", len(all), len(l.samples))
		}
		last := time.UnixMilli(int64(all[len(all)-1].Time*1e3 + 0.5))
		if again := l.Since(last); len(again) != 0 {
			t.Errorf("%d points come again", len(again))
		}
		time.Sleep(time.Second)
		if fresh := l.Since(last); len(fresh) != 1 {
			t.Errorf("%d points after another second", len(fresh))
		}
	})
}

func TestQuantileIsThatOfPrometheus(t *testing.T) {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{1, 2, 4}})
	var b histogramBuckets
	if b.quantile(0.5).Known() || b.mean().Known() {
		t.Error("an empty histogram has figures")
	}
	for _, v := range []float64{0.5, 1.5, 1.5, 3, 100} {
		h.Observe(v)
	}
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		t.Fatal(err)
	}
	b.add(m.Histogram)
	for q, want := range map[float64]float64{0.1: 0.5, 0.4: 1.5, 0.7: 3, 0.99: 4} {
		if got := b.quantile(q); !isNear(got, want) {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
}

func TestMemoryRatioIsOfTheFullestDevice(t *testing.T) {
	family := func(name string, labelValues map[string]float64) *dto.MetricFamily {
		f := &dto.MetricFamily{Name: proto.String(name)}
		for device, v := range labelValues {
			f.Metric = append(f.Metric, &dto.Metric{Gauge: &dto.Gauge{Value: proto.Float64(v)},
				Label: []*dto.LabelPair{{Name: proto.String("device"), Value: proto.String(device)}}})
		}
		return f
	}
	used := family("llm_device_memory_used_bytes", map[string]float64{"host": 2, "cuda0": 3, "cuda1": 9})
	total := family("llm_device_memory_total_bytes", map[string]float64{"host": 10, "cuda0": 4, "cuda2": 1})
	if got := memoryRatio([]*dto.MetricFamily{used, total}); got != 0.75 {
		t.Errorf("ratio %g", got)
	}
}

func TestNumbersInJSON(t *testing.T) {
	for text, n := range map[string]Number{"null": Missing(), "0.333333": 1.0 / 3, "120": 120, "0": 0} {
		got, err := json.Marshal(n)
		if err != nil || string(got) != text {
			t.Errorf("%g is written %s (%v), want %s", float64(n), got, err, text)
		}
		var back Number
		if err := json.Unmarshal([]byte(text), &back); err != nil || back.Known() != n.Known() || n.Known() && math.Abs(float64(back-n)) > 1e-6 {
			t.Errorf("%s is read as %g (%v)", text, float64(back), err)
		}
	}
}
