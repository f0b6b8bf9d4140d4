package server

import (
	"bufio"
	"crypto/tls"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

func TestRefusals(t *testing.T) {
	table := instantTable()
	admit := table.admit
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		switch r.Infer.Model {
		case "nobody/has-it":
			return nil, api.NewError(api.TypeModelNotFound, "no such model")
		case "full":
			return nil, api.QueueFull(256, 2*time.Second)
		}
		return admit(r)
	}
	ts := startTestServer(t, table, func(o *Options) { o.MaxBodyBytes = 64 << 10 })
	good := []string{"Content-Type", "application/json", "X-API-Key", testKey}
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		typ, header              string // header that must be there
		rejected                 string
		model                    string
	}{
		{"no key", "POST", "/infer", inferBody, []string{"Content-Type", "application/json"}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"wrong key", "POST", "/infer", inferBody, []string{"X-API-Key", "wrong"}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"key in another scheme", "POST", "/infer", inferBody, []string{"Authorization", "Basic " + testKey}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"two keys that differ", "POST", "/infer", inferBody, []string{"X-API-Key", testKey, "Authorization", "Bearer other"}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"huge key", "POST", "/infer", inferBody, []string{"X-API-Key", strings.Repeat("k", 300)}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"the key comes before the body", "POST", "/infer", "{", nil, 401, "unauthorized", "", "unauthorized", "none"},
		{"unknown path", "GET", "/v2/infer", "", nil, 404, "not_found", "", "", "none"},
		{"wrong method", "GET", "/infer", "", nil, 405, "method_not_allowed", "Allow", "", "none"},
		{"wrong method for a page", "POST", "/status", "", nil, 405, "method_not_allowed", "Allow", "", "none"},
		{"other content type", "POST", "/infer", inferBody, []string{"Content-Type", "text/plain", "X-API-Key", testKey}, 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"no content type", "POST", "/infer", inferBody, []string{"X-API-Key", testKey}, 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"other charset", "POST", "/infer", inferBody, []string{"Content-Type", "application/json; charset=latin1", "X-API-Key", testKey}, 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"compressed", "POST", "/infer", inferBody, append([]string{"Content-Encoding", "gzip"}, good...), 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"body over the limit", "POST", "/infer", `{"prompt":"` + strings.Repeat("x", 65<<10) + `"}`, good, 413, "body_too_large", "", "body_too_large", "none"},
		{"bad timeout", "POST", "/infer", inferBody, append([]string{"X-Request-Timeout", "soon"}, good...), 400, "invalid_request", "", "invalid_request", "none"},
		{"unknown model", "POST", "/infer", `{"prompt":"x","base_model":"nobody/has-it"}`, good, 404, "model_not_found", "", "model_not_found", "unknown"},
		{"full queue", "POST", "/infer", `{"prompt":"x","base_model":"full"}`, good, 503, "queue_full", "Retry-After", "queue_full", "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status := map[bool]string{true: "error", false: "client_error"}[c.status >= 500]
			endpoint := map[bool]string{true: c.path, false: "other"}[ts.routes[c.path] != nil]
			labels := []string{"endpoint", endpoint, "status", status, "model", c.model, "version", c.model}
			counted, rejected := ts.metricValue("api_requests_total", labels...), ts.metricValue("llm_requests_rejected_total", "reason", c.rejected)
			r := ts.do(c.method, c.path, c.body, c.headers...)
			if typ, _, _ := decodeError(t, r); r.StatusCode != c.status || typ != c.typ {
				t.Errorf("status %d, type %s; want %d, %s", r.StatusCode, typ, c.status, c.typ)
			}
			if c.header != "" && r.Header.Get(c.header) == "" {
				t.Errorf("no header %s", c.header)
			}
			ts.expectMetric(counted+1, "api_requests_total", labels...)
			if c.rejected != "" {
				ts.expectMetric(rejected+1, "llm_requests_rejected_total", "reason", c.rejected)
			}
		})
	}
	ts.expectMetric(0, "successful_inferences_total")
	if text := ts.log.String(); strings.Contains(text, testKey) || strings.Contains(text, "capital of France") {
		t.Error("the log holds a key or a prompt")
	}
}

func TestBadJSON(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	for name, body := range map[string]string{
		"not an object":    `["prompt"]`,
		"unknown field":    `{"prompt":"x","promt":"y"}`,
		"duplicate key":    `{"prompt":"x","prompt":"y"}`,
		"trailing data":    `{"prompt":"x"} {}`,
		"invalid UTF-8":    "{\"prompt\":\"x\xff\"}",
		"lone surrogate":   `{"prompt":"\ud800"}`,
		"wrong type":       `{"prompt":7}`,
		"out of range":     `{"prompt":"x","max_new_tokens":-1}`,
		"huge number":      `{"prompt":"x","max_new_tokens":99999999999}`,
		"nested too deep":  `{"prompt":"x","json_schema":` + strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65) + `}`,
		"empty prompt":     `{"prompt":""}`,
		"null prompt":      `{"prompt":null}`,
		"cut off":          `{"prompt":"x"`,
		"nothing":          ``,
		"prompt too long":  `{"prompt":"` + strings.Repeat("x", api.MaxPromptBytes+1) + `"}`,
		"unicode in field": `{"prompt":"x","Prompt":"y"}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := ts.postInfer(body)
			if typ, _, _ := decodeError(t, r); r.StatusCode != 400 || typ != "invalid_request" {
				t.Errorf("status %d, type %s", r.StatusCode, typ)
			}
		})
	}
	_, _, param := decodeError(t, ts.postInfer(`{"prompt":"x","temperature":3}`))
	if param != "temperature" {
		t.Errorf("param %q, want temperature", param)
	}
}

func TestTooManyConnections(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.MaxConnections = 2 })
	for range 2 {
		c, r := ts.dial()
		ts.send(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		ts.readReply(r, "GET")
	}
	c, r := ts.dial()
	ts.send(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	got := ts.readReply(r, "GET")
	if typ, _, _ := decodeError(t, got); got.StatusCode != 503 || typ != "queue_full" || got.Header.Get("Retry-After") != "1" {
		t.Errorf("status %d, type %s", got.StatusCode, typ)
	}
}

// A liveness probe that is refused has the server killed, with all requests that it serves.
func TestLivezIsAnsweredWithoutRoomForConnections(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certFile, keyFile, 1)
	for name, change := range map[string]func(*Options){
		"plain": func(o *Options) { o.MaxConnections = 1 },
		"TLS":   func(o *Options) { o.MaxConnections, o.CertFile, o.KeyFile = 1, certFile, keyFile },
	} {
		t.Run(name, func(t *testing.T) {
			ts := startTestServer(t, instantTable(), change)
			ask := func(path string, delay time.Duration) reply {
				tcp, _ := ts.dial()
				time.Sleep(delay) // of the client, before its handshake or its request
				c := net.Conn(tcp)
				if name == "TLS" {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				}
				ts.send(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
				return ts.readReply(bufio.NewReader(c), "GET")
			}
			if got := ask("/health", 0); got.StatusCode != 200 { // its connection stays open
				t.Fatalf("the first connection: %d", got.StatusCode)
			}
			if got := ask("/livez", 250*time.Millisecond); got.StatusCode != 200 {
				t.Errorf("a probe of a busy machine: status %d; %s", got.StatusCode, got.body)
			}
			for path, want := range map[string]int{"/livez": 200, "/livez2": 503, "/health": 503} {
				if got := ask(path, 0); got.StatusCode != want || !got.Close {
					t.Errorf("%s without room: status %d, want %d; closes: %v; %s", path, got.StatusCode, want, got.Close, got.body)
				}
			}
		})
	}
}

func TestSilentConnectionWithoutRoomIsRefused(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.MaxConnections = 1 })
	held, r := ts.dial()
	ts.send(held, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	ts.readReply(r, "GET")
	_, r = ts.dial()
	if got := ts.readReply(r, "GET"); got.StatusCode != 503 {
		t.Errorf("status %d", got.StatusCode)
	}
}
