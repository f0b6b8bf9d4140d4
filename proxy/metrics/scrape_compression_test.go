package metrics

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// TestThePageIsTheStandardOne compares the page, line by line, with the one that the library's own handler and
// gatherers make, over the whole catalogue with every kind of series on it.
func TestThePageIsTheStandardOne(t *testing.T) {
	for _, native := range []bool{false, true} {
		m := newTestMetrics(t, func(o *Options) { o.EngineText, o.NativeHistograms = recordedEngine(t), native })
		mm := m.Model(testModel, testVersion)
		mm.Token(time.Millisecond)
		mm.FirstToken(time.Millisecond, SampledTraceID(sampledParent))
		mm.SetLoaded(1<<30, Facts{Quantization: "Q8_0", Architecture: "llama", ContextTokens: 4096})
		mm.Finish(Outcome{Reason: "stop", PromptTokens: 3, OutputTokens: 4, Decode: time.Second})
		mm.Finish(Outcome{Reason: "error", ErrorType: "internal", TraceID: SampledTraceID(sampledParent)})
		m.Endpoint("/infer").Record(Reply{Status: "success", Model: mm, Took: time.Second, RequestBytes: 100, ResponseBytes: 200})
		ours, standard := m.Handler(), promhttp.HandlerFor(prometheus.Gatherers{m.engine, m.registry}, promhttp.HandlerOpts{EnableOpenMetrics: true})
		for _, accept := range []string{"", "application/openmetrics-text;version=1.0.0", "text/plain;version=0.0.4", protobufFormat} {
			r1, got := scrape(t, ours, accept)
			r2, want := scrape(t, standard, accept)
			if r1.Header.Get("Content-Type") != r2.Header.Get("Content-Type") || !slices.Equal(r1.Header.Values("Vary"), r2.Header.Values("Vary")) {
				t.Errorf("accept %q: headers %v, want %v", accept, r1.Header, r2.Header)
			}
			if accept == protobufFormat {
				got, want = asText(t, got), asText(t, want)
			}
			compareLines(t, accept, stableLines(got), stableLines(want))
		}
	}
}

const protobufFormat = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// asText gives each family of a protobuf page one line.
func asText(t *testing.T, scrapeFamilies string) string {
	t.Helper()
	var text strings.Builder
	decoder := expfmt.NewDecoder(strings.NewReader(scrapeFamilies), expfmt.NewFormat(expfmt.TypeProtoDelim))
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); errors.Is(err, io.EOF) {
			return text.String()
		} else if err != nil {
			t.Fatal(err)
		}
		text.WriteString(f.String() + "\n")
	}
}

// stableLines leaves out what changes between two scrapes, the metrics of this process, and units, which
// prometheus.Gatherers forgets.
func stableLines(scrapeFamilies string) []string {
	moves := func(line string) bool {
		return slices.ContainsFunc([]string{"# UNIT ", "go_", "process_", `name:"go_`, `name:"process_`}, func(p string) bool { return strings.HasPrefix(line, p) })
	}
	return slices.DeleteFunc(strings.Split(scrapeFamilies, "\n"), moves)
}

// oneSpace is for protobuf's text form, which puts one or two spaces, by chance.
var oneSpace = strings.NewReplacer("  ", " ")

func compareLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) || len(got) < 50 {
		t.Errorf("accept %q: %d lines, want %d", what, len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if oneSpace.Replace(got[i]) != oneSpace.Replace(want[i]) {
			t.Fatalf("accept %q: line %d is\n%s\nwant\n%s", what, i, got[i], want[i])
		}
	}
}

func TestPageIsCompressedForThoseWhoTakeIt(t *testing.T) {
	h := newTestMetrics(t, nil).Handler()
	for accept, zipped := range map[string]bool{
		"": false, "gzip": true, "deflate, GZIP;q=0.8": true, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=1.0": true, "identity": false, "*": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/prometheus", nil)
		if accept != "" {
			r.Header.Set("Accept-Encoding", accept)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != zipped {
			t.Errorf("%q: compressed %v", accept, got)
			continue
		}
		body := io.Reader(w.Body)
		if zipped {
			var err error
			if body, err = gzip.NewReader(body); err != nil {
				t.Fatal(err)
			}
		}
		scrapeFamilies, err := io.ReadAll(body)
		if err != nil || !strings.Contains(string(scrapeFamilies), "# TYPE api_requests_total counter") {
			t.Errorf("%q: %v: %.100s", accept, err, scrapeFamilies)
		}
	}
}

func TestRefusedScrapeKeepsItsStatus(t *testing.T) {
	h := compressHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too many", http.StatusServiceUnavailable)
	}))
	resp, body := scrape(t, h, "")
	if resp.StatusCode != http.StatusServiceUnavailable || body != "too many\n" {
		t.Errorf("status %d, %q", resp.StatusCode, body)
	}
}
