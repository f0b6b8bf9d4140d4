package server

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
)

const appOrigin = "https://app.example"

func withOrigins(list ...string) func(*Options) {
	return func(o *Options) { o.CORSOrigins = list }
}

func TestCrossOrigin(t *testing.T) {
	ts := startTestServer(t, instantTable(), withOrigins(appOrigin))
	r := ts.do("OPTIONS", "/infer", "", "Origin", appOrigin, "Access-Control-Request-Method", "POST")
	if r.StatusCode != 204 || r.Header.Get("Access-Control-Allow-Origin") != appOrigin || r.Header.Get("Access-Control-Allow-Methods") != "POST" ||
		!strings.Contains(r.Header.Get("Access-Control-Allow-Headers"), "X-API-Key") || r.body != "" {
		t.Errorf("preflight: %d %v", r.StatusCode, r.Header)
	}
	if r := ts.postInfer(inferBody, "Origin", appOrigin); r.StatusCode != 200 || r.Header.Get("Access-Control-Allow-Origin") != appOrigin || r.Header.Get("Vary") != "Origin" {
		t.Errorf("request: %d %v", r.StatusCode, r.Header)
	}
	if r := ts.do("OPTIONS", "/infer", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); r.StatusCode != 405 || r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %d %v", r.StatusCode, r.Header)
	}
	off := startTestServer(t, instantTable(), nil)
	if r := off.postInfer(inferBody, "Origin", appOrigin); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("cross-origin requests are on without being asked for")
	}
}

// checkReadable checks that the page may read a reply, and that a cache keeps it from other pages.
func checkReadable(t *testing.T, header http.Header) {
	t.Helper()
	allowed := header.Values("Access-Control-Allow-Origin")
	if len(allowed) != 1 || allowed[0] != appOrigin && allowed[0] != "*" {
		t.Errorf("Access-Control-Allow-Origin %q", allowed)
	}
	if !slices.Contains(header.Values("Vary"), "Origin") {
		t.Errorf("Vary %q", header.Values("Vary"))
	}
	for _, name := range []string{"X-Request-Id", "Retry-After"} {
		if !strings.Contains(header.Get("Access-Control-Expose-Headers"), name) {
			t.Errorf("Access-Control-Expose-Headers %q", header.Get("Access-Control-Expose-Headers"))
		}
	}
}

// A page that may not read an error sees only a network error, without the reason.
func TestPagesMayReadEveryReply(t *testing.T) {
	table := instantTable()
	admit := table.admit
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		switch r.Infer.Model {
		case "full":
			return nil, api.QueueFull(256, 2*time.Second)
		case "broken":
			panic("a fault of ours")
		}
		return admit(r)
	}
	patient, hasty := startReadingServers(t, table, func(o *Options) {
		o.CORSOrigins = []string{"https://other.example", appOrigin}
		o.MaxBodyBytes, o.MaxHeaderBytes = 1<<20, 8<<10
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 4, Unit: time.Hour}
	})
	from := "\r\nHost: x\r\nOrigin: " + appOrigin + "\r\n"
	key := from + "X-API-Key: " + testKey + "\r\n"
	post := "POST /infer HTTP/1.1" + key + "Content-Type: application/json\r\n"
	infer := func(body string) string { return post + "Content-Length: " + itoa(len(body)) + "\r\n\r\n" + body }
	for _, c := range []struct {
		name, text string
		status     int
	}{
		{"table", "GET / HTTP/1.1" + from + "\r\n", 200},
		{"metrics", "GET /prometheus HTTP/1.1" + from + "Accept-Encoding: gzip\r\n\r\n", 200},
		{"live figures", "GET /status/live HTTP/1.1" + from + "\r\n", 200},
		{"a stream", infer(streamed(inferBody)), 200},
		{"no key", "POST /infer HTTP/1.1" + from + "Content-Length: 2\r\n\r\n{}", 401},
		{"large without a key", "POST /infer HTTP/1.1" + from + "Content-Length: 70000\r\n\r\n", 401},
		{"large without a key, in chunks", "POST /infer HTTP/1.1" + from + "Transfer-Encoding: chunked\r\n\r\n11170\r\n" + strings.Repeat("x", 70000), 401},
		{"announced without a key", "POST /infer HTTP/1.1" + from + "Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n", 401},
		{"unknown path", "GET /v2 HTTP/1.1" + from + "\r\n", 404},
		{"wrong method", "GET /infer HTTP/1.1" + from + "\r\n", 405},
		{"slow header", "POST /infer HTTP/1.1" + from + "X-Slow: ", 408},
		{"slow body", post + "Content-Length: 100\r\n\r\n{", 408},
		{"declared too large", post + "Content-Length: 2000000\r\n\r\n", 413},
		{"too large in chunks", post + "Transfer-Encoding: chunked\r\n\r\n1e8480\r\n" + strings.Repeat("x", 2000000), 413},
		{"a stream over HTTP/1.0", strings.Replace(infer(streamed(inferBody)), "HTTP/1.1", "HTTP/1.0", 1), 426},
		{"huge header", "GET /health HTTP/1.1" + from + "X-Huge: " + strings.Repeat("x", 9<<10) + "\r\n\r\n", 431},
		{"huge header before the origin", "GET /health HTTP/1.1\r\nX-Huge: " + strings.Repeat("x", 9<<10) + from + "\r\n", 431},
		{"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400},
		{"a fault", infer(`{"prompt":"x","base_model":"broken"}`), 500},
		{"full queue", infer(`{"prompt":"x","base_model":"full"}`), 503},
		{"the last that the rate allows", infer(inferBody), 200},
		{"rate limit", infer(inferBody), 429},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := patient
			if c.status == 408 {
				ts = hasty
			}
			conn, r := ts.dial()
			ts.send(conn, c.text)
			got := ts.readReply(r, "POST")
			if got.StatusCode != c.status {
				t.Errorf("status %d, want %d: %s", got.StatusCode, c.status, got.body)
			}
			checkReadable(t, got.Header)
		})
	}
}

func TestPagesMayReadThatThereIsNoRoom(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.CORSOrigins, o.MaxConnections = []string{appOrigin}, 1 })
	held, r := ts.dial()
	ts.send(held, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	ts.readReply(r, "GET")
	c, r := ts.dial()
	ts.send(c, "GET /health HTTP/1.1\r\nHost: x\r\nOrigin: "+appOrigin+"\r\n\r\n")
	got := ts.readReply(r, "GET")
	if got.StatusCode != 503 {
		t.Errorf("status %d", got.StatusCode)
	}
	checkReadable(t, got.Header)
}

// Without its permission a browser wouldn't even send a request to a path that isn't there, and the page couldn't see
// the 404.
func TestPreflightOfUnknownPath(t *testing.T) {
	ts := startTestServer(t, instantTable(), withOrigins("*"))
	r := ts.do("OPTIONS", "/v2/infer", "", "Origin", appOrigin, "Access-Control-Request-Method", "POST")
	if r.StatusCode != 204 || !strings.Contains(r.Header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	checkReadable(t, r.Header)
}

// A page that lost its connection goes on with the id of the last event that it got.
func TestPagesMayResumeStreams(t *testing.T) {
	ts := startTestServer(t, instantTable(), withOrigins(appOrigin))
	r := ts.do("OPTIONS", "/v1/streams/x", "", "Origin", appOrigin, "Access-Control-Request-Method", "GET")
	if allowed := strings.Split(r.Header.Get("Access-Control-Allow-Headers"), ", "); !slices.Contains(allowed, "Last-Event-ID") {
		t.Errorf("%d %q", r.StatusCode, allowed)
	}
}

func TestOtherPagesReadNothing(t *testing.T) {
	ts := startTestServer(t, instantTable(), withOrigins(appOrigin))
	for _, headers := range [][]string{nil, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		for path, status := range map[string]int{"/status": 200, "/infer": 405, "/prometheus": 200, "/nowhere": 404} {
			r := ts.do("GET", path, "", headers...)
			if r.StatusCode != status || r.Header.Get("Access-Control-Allow-Origin") != "" || !slices.Contains(r.Header.Values("Vary"), "Origin") {
				t.Errorf("%s of %v: %d %v", path, headers, r.StatusCode, r.Header)
			}
		}
	}
}

func TestNoOriginsNoHeaders(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.MaxHeaderBytes = 8 << 10 })
	conn, r := ts.dial()
	ts.send(conn, "GET /health HTTP/1.1\r\nHost: x\r\nX-Huge: "+strings.Repeat("x", 9<<10)+"\r\n\r\n")
	for _, got := range []reply{ts.readReply(r, "GET"), ts.do("GET", "/status", "", "Origin", appOrigin), ts.do("GET", "/nowhere", "", "Origin", appOrigin)} {
		if got.Header.Get("Access-Control-Allow-Origin") != "" || got.Header.Get("Vary") != "" {
			t.Errorf("%d %v", got.StatusCode, got.Header)
		}
	}
}
