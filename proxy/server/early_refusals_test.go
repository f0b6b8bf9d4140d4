package server

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/scripts/await"
)

// readTimeouts are those of two servers: one that waits for what comes, and one that tests needn't wait for long.
var readTimeouts = []time.Duration{waitLimit, 500 * time.Millisecond}

// startReadingServers starts a server for each of readTimeouts.
func startReadingServers(t *testing.T, table Requests, change func(*Options)) (patient, hasty *testServer) {
	t.Helper()
	var servers []*testServer
	for _, timeout := range readTimeouts {
		servers = append(servers, startTestServer(t, table, func(o *Options) { o.ReadTimeout = timeout; change(o) }))
	}
	return servers[0], servers[1]
}

func TestUnreadableRequests(t *testing.T) {
	patient, hasty := startReadingServers(t, instantTable(), func(o *Options) { o.MaxBodyBytes, o.MaxHeaderBytes = 1<<20, 8<<10 })
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
		{"large without a key, in chunks", "POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + strings.Repeat("x", 70000), 401, "unauthorized"},
		{"too large in chunks", head + "Transfer-Encoding: chunked\r\n\r\n1e8480\r\n" + strings.Repeat("x", 2000000), 413, "body_too_large"},
		{"announced without a key", "POST /infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n", 401, "unauthorized"},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := patient
			if c.status == 408 {
				ts = hasty
			}
			conn, r := ts.dial()
			ts.send(conn, c.text)
			got := ts.readReply(r, "POST")
			if typ, _, _ := decodeError(t, got); got.StatusCode != c.status || typ != c.typ {
				t.Errorf("status %d, type %s; want %d, %s", got.StatusCode, typ, c.status, c.typ)
			}
			if strings.Contains(c.text, "mine") && c.name != "two lengths" && got.Header.Get("X-Request-Id") != "mine" {
				t.Errorf("X-Request-Id %q", got.Header.Get("X-Request-Id"))
			}
			if _, err := r.ReadByte(); err == nil {
				t.Error("the connection stays open")
			}
		})
	}
	// those whose header is still known
	patient.expectMetric(6, "api_requests_total", "status", "client_error", "endpoint", "/infer")
	patient.expectMetric(4, "api_requests_total", "status", "client_error", "endpoint", "other")
	hasty.expectMetric(1, "api_requests_total", "status", "client_error", "endpoint", "/infer")
	hasty.expectMetric(1, "api_requests_total", "status", "client_error", "endpoint", "other")
	for _, ts := range []*testServer{patient, hasty} {
		ts.expectMetric(0, "llm_requests_in_flight")
		if sum := ts.histogramSum("api_response_time_seconds"); sum > waitLimit.Seconds() {
			t.Errorf("the response times add up to %v seconds", sum)
		}
	}
}

// Clients read an error by the form that their API has, also when it comes before their request has arrived whole.
func TestUnreadBodiesAreRefusedInTheirDialect(t *testing.T) {
	patient, hasty := startReadingServers(t, instantTable(), func(o *Options) { o.MaxBodyBytes = 100 << 10 })
	openAI := func(t *testing.T, r reply) (string, string) {
		kind, code, _ := decodeOpenAIError(t, r)
		return kind, code
	}
	inferForm := func(t *testing.T, r reply) (string, string) {
		typ, _, _ := decodeError(t, r)
		return typ, ""
	}
	anthropicForm := func(t *testing.T, r reply) (string, string) {
		kind, _ := messagesError(t, r) // checks request-id as well
		return kind, ""
	}
	const invalid = "invalid_request_error"
	for _, d := range []struct {
		path                             string
		read                             func(*testing.T, reply) (kind, code string)
		slow, slowCode, large, largeCode string
	}{
		{"/infer", inferForm, "request_timeout", "", "body_too_large", ""},
		{"/v1/chat/completions", openAI, invalid, "request_timeout", invalid, "body_too_large"},
		{"/v1/embeddings", openAI, invalid, "request_timeout", invalid, "body_too_large"},
		{"/v1/responses", openAI, invalid, "request_timeout", invalid, "body_too_large"},
		{"/v1/nowhere", openAI, invalid, "request_timeout", invalid, "body_too_large"},
		{"/v1/messages?beta=true", anthropicForm, invalid, "", "request_too_large", ""},
		{"/v1/messages/count_tokens", anthropicForm, invalid, "", "request_too_large", ""},
	} {
		head := "POST " + d.path + " HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Type: application/json\r\nX-API-Key: " + testKey + "\r\n"
		chunked := head + "Transfer-Encoding: chunked\r\n\r\n"
		grows := "fff0\r\n" + strings.Repeat("x", 0xfff0) + "\r\n"
		for _, c := range []struct {
			name, text string
			status     int
			kind, code string
		}{
			{"slow body", head + "Content-Length: 100\r\n\r\n{", 408, d.slow, d.slowCode},
			{"announced body that doesn't come", head + "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n", 408, d.slow, d.slowCode},
			{"slow chunks", chunked + "1\r\n{\r\n", 408, d.slow, d.slowCode},
			{"chunks that grow over the limit", chunked + grows + grows, 413, d.large, d.largeCode},
		} {
			t.Run(d.path+": "+c.name, func(t *testing.T) {
				t.Parallel() // most wait until their time is over
				ts := patient
				if c.status == 408 {
					ts = hasty
				}
				conn, r := ts.dial()
				ts.send(conn, c.text)
				got := ts.readReply(r, "POST")
				if got.StatusCode == 100 {
					got = ts.readReply(r, "POST")
				}
				kind, code := d.read(t, got)
				if got.StatusCode != c.status || kind != c.kind || code != c.code || got.Header.Get("X-Request-Id") != "mine" {
					t.Errorf("status %d, %s %s, id %q; want %d, %s %s", got.StatusCode, kind, code, got.Header.Get("X-Request-Id"), c.status, c.kind, c.code)
				}
			})
		}
	}
}

// What a client left behind that went away within its body is dropped, so that it can't pile up.
func TestArrivalsOfClientsThatLeft(t *testing.T) {
	arrivals := newBodyArrivals(time.Second)
	for range 10 * minArrivalsSweep {
		h := new(fasthttp.RequestHeader)
		h.SetContentLength(1)
		arrivals.begin(h)
		arrivals.started = arrivals.started.Add(-time.Second)
	}
	if n := len(arrivals.headers); n > minArrivalsSweep {
		t.Errorf("%d headers are kept", n)
	}
}

// fasthttp uses a header again: what the client before left behind isn't another client's.
func TestNobodyGetsTheHeaderOfAnother(t *testing.T) {
	arrivals := newBodyArrivals(time.Minute)
	h := new(fasthttp.RequestHeader)
	h.SetContentLength(10)
	h.Set("X-Request-Id", "of the client that left")
	arrivals.begin(h)
	h.Reset()
	arrivals.restore(h, arrivals.now()+1)
	if id := h.Peek("X-Request-Id"); len(id) > 0 {
		t.Errorf("the next client's request has the id %q", id)
	}
	if len(arrivals.headers) > 0 {
		t.Error("the copy is kept")
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
