package server

import (
	"io"
	"strings"
	"testing"
	"time"

	"tandem/scripts/await"
)

func TestUnreadableRequests(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) {
		o.ReadTimeout, o.MaxBodyBytes, o.MaxHeaderBytes = 100*time.Millisecond, 1<<20, 8<<10
	})
	head := "POST /infer HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Type: application/json\r\nX-API-Key: " + testKey + "\r\n"
	for _, c := range []struct {
		name, text string
		status     int
		typ        string
	}{
		{"slow header", "POST /infer HTTP/1.1\r\nHost: x\r\nX-Slow: ", 408, "request_timeout"},
		{"slow body", head + "Content-Length: 100\r\n\r\n{", 408, "request_timeout"},
		{"huge header", "GET /health HTTP/1.1\r\nHost: x\r\nX-Huge: " + strings.Repeat("x", 9<<10) + "\r\n\r\n", 431, "header_too_large"},
		{"not HTTP", "hello\r\n\r\n", 400, "invalid_request"},
		{"two lengths", head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, "invalid_request"},
		{"declared too large", head + "Content-Length: 2000000\r\n\r\n", 413, "body_too_large"},
		{"announced too large", head + "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n", 413, "body_too_large"},
		{"large without a key", "POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 401, "unauthorized"},
		{"large without a key, in chunks", "POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + strings.Repeat("x", 70000), 413, "body_too_large"},
		{"too large in chunks", head + "Transfer-Encoding: chunked\r\n\r\n1e8480\r\n" + strings.Repeat("x", 2000000), 413, "body_too_large"},
		{"announced without a key", "POST /infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n", 401, "unauthorized"},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, r := ts.dial()
			ts.send(conn, c.text)
			got := ts.readReply(r, "POST")
			if typ, _, _ := decodeError(t, got); got.StatusCode != c.status || typ != c.typ {
				t.Errorf("status %d, type %s; want %d, %s", got.StatusCode, typ, c.status, c.typ)
			}
			if strings.Contains(c.name, "declared") && got.Header.Get("X-Request-Id") != "mine" {
				t.Errorf("X-Request-Id %q", got.Header.Get("X-Request-Id"))
			}
			if _, err := r.ReadByte(); err == nil {
				t.Error("the connection stays open")
			}
		})
	}
	// those whose header is still known
	ts.expectMetric(4, "api_requests_total", "status", "client_error", "endpoint", "/infer")
	ts.expectMetric(8, "api_requests_total", "status", "client_error", "endpoint", "other")
	ts.expectMetric(0, "llm_requests_in_flight")
	if sum := ts.histogramSum("api_response_time_seconds"); sum > waitLimit.Seconds() {
		t.Errorf("the response times add up to %v seconds", sum)
	}
}

// A port check, or a connection that is kept for later, isn't a request.
func TestSilenceIsNoRequest(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.ReadTimeout = 100 * time.Millisecond })
	_, silent := ts.dial()
	if text, err := io.ReadAll(silent); len(text) > 0 || isTimeout(err) {
		t.Errorf("a silent client read %q, %v", text, err)
	}
	reset, _ := ts.dial()
	if err := reset.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	reset.Close()
	await.Until(t, waitLimit, "the end of both connections", func() bool { return ts.connections() == 0 })
	ts.expectMetric(0, "api_requests_total")
	ts.expectMetric(0, "llm_requests_rejected_total")
}

// A client that is still sending must see the 413 and not a reset.
func TestUploadIsRefusedAudibly(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.MaxBodyBytes = 1 << 20 })
	for range 5 {
		r := ts.postInfer(`{"prompt":"` + strings.Repeat("x", 8<<20) + `"}`)
		if typ, _, _ := decodeError(t, r); r.StatusCode != 413 || typ != "body_too_large" {
			t.Fatalf("status %d, type %s", r.StatusCode, typ)
		}
	}
	ts.expectMetric(5, "llm_requests_rejected_total", "reason", "body_too_large")
}
