package metrics

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// BenchmarkScrapeCost answers scrapes of about 2,000 series, compressed as Prometheus asks for them and plain, and
// reports the median, the 99th percentile and the CPU time of one. The engine's text is joined each time, without the
// way over the socket.
func BenchmarkScrapeCost(b *testing.B) {
	for _, encoding := range []string{"gzip", "identity"} {
		b.Run(encoding, func(b *testing.B) { scrapeCost(b, encoding) })
	}
}

func scrapeCost(b *testing.B, encoding string) {
	text, err := os.ReadFile("testdata/engine.prom")
	if err != nil {
		b.Fatal(err)
	}
	m := New(Options{DefaultModel: testModel, DefaultVersion: testVersion, QueueCapacity: 256,
		EngineText: func(context.Context) ([]byte, error) { return text, nil }})
	for i := range 3 {
		version := fmt.Sprintf("v%d", i)
		m.RegisterModel("demo", version)
		mm := m.Model("demo", version)
		mm.FirstToken(time.Millisecond, SampledTraceID(sampledParent))
		mm.Finish(Outcome{Reason: "stop", OutputTokens: 5, PromptTokens: 5})
	}
	h := m.Handler()
	scrape := func() *httptest.ResponseRecorder {
		m.engine.at = time.Time{} // every scrape asks the engine
		r := httptest.NewRequest("GET", "/prometheus", nil)
		r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3")
		r.Header.Set("Accept-Encoding", encoding)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		_, _ = io.Copy(io.Discard, w.Result().Body)
		return w
	}
	series := 0
	families, err := m.Gather()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range families {
		for _, x := range f.Metric {
			series += max(1, len(x.GetHistogram().GetBucket())+3*min(1, len(x.GetHistogram().GetBucket())))
		}
	}
	took := make([]time.Duration, 0, 1024)
	before := processCPUTime(b)
	for b.Loop() {
		begin := time.Now()
		scrape()
		took = append(took, time.Since(begin))
	}
	used := processCPUTime(b) - before
	slices.Sort(took)
	at := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1e3
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(float64(used.Microseconds())/1e3/float64(len(took)), "cpu-ms")
	b.ReportMetric(float64(series), "series")
}

func processCPUTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func BenchmarkScrape(b *testing.B) {
	text, err := os.ReadFile("testdata/engine.prom")
	if err != nil {
		b.Fatal(err)
	}
	m := New(Options{DefaultModel: testModel, DefaultVersion: testVersion, EngineText: func(context.Context) ([]byte, error) { return text, nil }})
	for _, v := range []string{"base", "v1.0", "v1.1", "v2.0"} {
		m.RegisterModel("demo", v)
		m.Model("demo", v).Token(time.Millisecond)
	}
	h := m.Handler()
	lines := 0
	for b.Loop() {
		m.engine.at = time.Time{} // every scrape asks the engine
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/prometheus", nil))
		lines = bytes.Count(w.Body.Bytes(), []byte("\n"))
	}
	b.ReportMetric(float64(lines), "lines")
}
