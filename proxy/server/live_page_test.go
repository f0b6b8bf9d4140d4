package server

import (
	"net/http"
	"strings"
	"testing"
)

// getHTML sends a request as a browser does.
func (ts *testServer) getHTML(path string) (int, http.Header) {
	ts.t.Helper()
	request, err := http.NewRequest(http.MethodGet, ts.url+path, http.NoBody)
	if err != nil {
		ts.t.Fatal(err)
	}
	request.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	reply, err := ts.client.Do(request)
	if err != nil {
		ts.t.Fatal(err)
	}
	reply.Body.Close()
	return reply.StatusCode, reply.Header
}

func TestPageStaysOnThisHost(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	status, header := ts.getHTML("/")
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
		status, header := ts.getHTML(path)
		policy := header.Get("Content-Security-Policy")
		if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), kind) || !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %d %v", path, status, header)
		}
	}
}

func TestPageCanBeSwitchedOff(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.DisablePage = true })
	for path, want := range map[string]int{"/": 404, "/page/app.js": 404, "/status/live": 200, "/status": 200} {
		if status, _ := ts.getHTML(path); status != want {
			t.Errorf("%s answers %d, want %d", path, status, want)
		}
	}
}
