package metrics

import (
	"maps"
	"os"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
)

func parseWithLibrary(text string) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(strings.NewReader(text))
}

func isWanted(name string) bool { return !strings.HasPrefix(name, "go_") }

// compareFamilies compares the results of both parsers.
func compareFamilies(t *testing.T, simpleTextParser, standard map[string]*dto.MetricFamily) {
	t.Helper()
	maps.DeleteFunc(standard, func(name string, _ *dto.MetricFamily) bool { return !isWanted(name) })
	if len(simpleTextParser) != len(standard) {
		t.Errorf("%d families, want %d", len(simpleTextParser), len(standard))
	}
	for name, want := range standard {
		got := simpleTextParser[name]
		if got == nil || len(got.Metric) != len(want.Metric) {
			t.Errorf("%s: %d series, want %d", name, len(got.GetMetric()), len(want.Metric))
			continue
		}
		if !proto.Equal(got, want) && !strings.Contains(want.String(), "nan") {
			t.Errorf("%s:\n%v\nwant\n%v", name, got, want)
		}
	}
}

func TestParseSimpleTextAgreesWithTheStandardParser(t *testing.T) {
	text, err := os.ReadFile("testdata/engine.prom")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(text), engineMetricsText, "", "# TYPE a gauge\na 1e9\na{b=\"c d}\"} NaN\na{x=\"1\",y=\"\"} -Inf\n"} {
		standard, err := parseWithLibrary(text)
		if err != nil {
			t.Fatal(err)
		}
		simpleTextParser, ok := parseSimpleText(text, isWanted)
		if !ok {
			t.Errorf("not read: %.200s", text)
		}
		compareFamilies(t, simpleTextParser, standard)
	}
}

func TestParseSimpleTextLeavesTheRest(t *testing.T) {
	for _, text := range []string{
		"a 1\n", "# TYPE a gauge\na 1", "# TYPE a gauge\na 1 1700000000\n", "# TYPE a gauge\na{b=\"\\n\"} 1\n", "# TYPE a gauge\na{b=\"1\",b=\"2\"} 1\n",
		"# TYPE a gauge\nab 1\n", "# TYPE a gauge\na 1\na 2\n", "# TYPE a gauge\na{b=\"1\"\n", "# TYPE a gauge\na{__name__=\"1\"} 1\n", "# TYPE a summary\na_count 1\n",
		"# HELP a some words\n# TYPE a gauge\na 1\n", "# TYPE a gauge\na 0x1p4\n", "# TYPE a gauge\n# TYPE a counter\na 1\n", "{{{ not metrics",
		"# TYPE a histogram\na_bucket{le=\"1\",b=\"2\"} 1\n", "# TYPE a histogram\na_bucket{vmrange=\"1...2\"} 1\n", "# TYPE a histogram\na_count 1.5\n",
		"# TYPE a histogram\na_count{b=\"1\"} 1\na_count{b=\"2\"} 1\na_sum{b=\"1\"} 1\n", "# TYPE a histogram\na_count 1\n# TYPE a_sum gauge\na_sum 1\n",
	} {
		if _, ok := parseSimpleText(text, isWanted); ok {
			t.Errorf("read: %q", text)
		}
	}
}

func FuzzParseSimpleText(f *testing.F) {
	f.Add(engineMetricsText)
	f.Add("# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 2\na_count 1\n# TYPE b gauge\nb{c=\"d\",e=\"f\"} 3\n")
	f.Fuzz(func(t *testing.T, text string) {
		simpleTextParser, ok := parseSimpleText(text, isWanted)
		if !ok {
			return
		}
		standard, err := parseWithLibrary(text)
		if err != nil {
			if strings.Contains(text, "# TYPE go_") {
				return // an error in a family that is skipped
			}
			t.Fatalf("the standard parser refuses %q: %v", text, err)
		}
		compareFamilies(t, simpleTextParser, standard)
	})
}
