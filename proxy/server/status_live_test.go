package server

import (
	"testing"

	"tandem/proxy/metrics"
)

func TestHistoryComesWhenAskedFor(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	for query, want := range map[string]int{"": 200, "?since=0": 200, "?since=1795477396.5": 200, "?since=-1": 400, "?since=soon": 400, "?since=1e300": 400} {
		if r := ts.get("/status/live" + query); r.StatusCode != want {
			t.Errorf("%s answers %d, want %d", query, r.StatusCode, want)
		}
	}
}

func TestTargetsAreJudgedByWhatIsAskedFor(t *testing.T) {
	good := metrics.Figures{Response: metrics.LatencySummary{Mean: 0.4, P95: 0.9, P99: 1.9}, RequestRate: 11, TokenRate: 101, SuccessRatio: 0.999, ErrorRatio: 0.001, MemoryRatio: 0.7, CacheHitRatio: 0.95}
	bad := metrics.Figures{Response: metrics.LatencySummary{Mean: 0.5, P95: 1, P99: 2}, RequestRate: 10, TokenRate: 100, SuccessRatio: 0.99, ErrorRatio: 0.01, MemoryRatio: 0.8, CacheHitRatio: 0.9}
	no := metrics.Missing()
	none := metrics.Figures{Response: metrics.LatencySummary{Mean: no, P95: no, P99: no}, RequestRate: 0, TokenRate: 0, SuccessRatio: no, ErrorRatio: no, MemoryRatio: no, CacheHitRatio: no}
	for _, c := range []struct {
		name         string
		figures      metrics.Figures
		waiting      bool
		rates, other string
	}{
		{"all well", good, true, "met", "met"},
		{"exactly at the target", bad, true, "missed", "missed"},
		{"low rates while nobody waits", bad, false, "idle", "missed"},
		{"nothing asked for", none, false, "idle", "idle"},
		{"nothing comes while somebody waits", none, true, "missed", "idle"},
	} {
		for _, target := range targets(&c.figures, c.waiting) {
			want := c.other
			if target.Unit == "per_second" {
				want = c.rates
			}
			if target.State != want {
				t.Errorf("%s: %s is %s, want %s", c.name, target.Name, target.State, want)
			}
		}
	}
}
