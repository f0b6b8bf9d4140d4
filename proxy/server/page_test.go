package server

import (
	"net/http"
	"strings"
	"testing"

	"tandem/proxy/metrics"
)

// browse asks as a browser does.
func (d *door) browse(path string) (int, http.Header) {
	d.t.Helper()
	request, err := http.NewRequest(http.MethodGet, d.url+path, http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	request.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	reply, err := d.client.Do(request)
	if err != nil {
		d.t.Fatal(err)
	}
	reply.Body.Close()
	return reply.StatusCode, reply.Header
}

func TestPageStaysOnThisHost(t *testing.T) {
	d := openDoor(t, instant(), nil)
	status, header := d.browse("/")
	if status != 200 {
		t.Fatalf("/ answers %d", status)
	}
	if pageContent("index.html") == nil {
		if !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
			t.Errorf("a build without the page serves %s", header.Get("Content-Type"))
		}
		return
	}
	for path, kind := range map[string]string{"/": "text/html", "/page/app.js": "text/javascript", "/page/app.css": "text/css", "/page/icon.svg": "image/svg+xml"} {
		status, header := d.browse(path)
		policy := header.Get("Content-Security-Policy")
		if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), kind) || !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %d %v", path, status, header)
		}
	}
}

func TestPageCanBeSwitchedOff(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.NoPage = true })
	for path, want := range map[string]int{"/": 404, "/page/app.js": 404, "/status/live": 200, "/status": 200} {
		if status, _ := d.browse(path); status != want {
			t.Errorf("%s answers %d, want %d", path, status, want)
		}
	}
}

func TestHistoryComesWhenAskedFor(t *testing.T) {
	d := openDoor(t, instant(), nil)
	for query, want := range map[string]int{"": 200, "?since=0": 200, "?since=1795477396.5": 200, "?since=-1": 400, "?since=soon": 400, "?since=1e300": 400} {
		if r := d.get("/status/live" + query); r.StatusCode != want {
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
