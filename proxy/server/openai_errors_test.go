package server

import (
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
	"tandem/scripts/await"
)

// Whole or streamed: what is refused before the first token has a status of its own.
func TestOpenAIRefusals(t *testing.T) {
	ts := startTestServer(t, capitalTable(), func(o *Options) { o.MaxBodyBytes = 64 << 10 })
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		with := func(model string) string { return strings.Replace(e.body, "demo:v1.0", model, 1) }
		for _, c := range []struct {
			name, body   string
			headers      []string
			status       int
			typ, code    string
			param        string
			header, text string // a header with its value
			rejected     string
		}{
			{"no key", e.body, []string{"Authorization", ""}, 401, "authentication_error", "invalid_api_key", "", "Www-Authenticate", `Bearer realm="tandem"`, "unauthorized"},
			{"wrong key", e.body, []string{"Authorization", "Bearer wrong"}, 401, "authentication_error", "invalid_api_key", "", "Www-Authenticate", `Bearer realm="tandem"`, "unauthorized"},
			{"unknown model", with("nobody/has-it"), nil, 404, "invalid_request_error", "model_not_found", "model", "", "", "model_not_found"},
			{"full queue", with("full"), nil, 503, "server_error", "queue_full", "", "Retry-After", "2", "queue_full"},
			{"not JSON", "{", nil, 400, "invalid_request_error", "", "", "", "", "invalid_request"},
			{"out of range", strings.TrimSuffix(e.body, "}") + `,"temperature":3}`, nil, 400, "invalid_request_error", "", "temperature", "", "", "invalid_request"},
			{"no prompt", `{"model":"demo"}`, nil, 400, "invalid_request_error", "", e.param, "", "", "invalid_request"},
			{"other content type", e.body, []string{"Content-Type", "text/plain"}, 415, "invalid_request_error", "unsupported_media_type", "", "", "", "invalid_request"},
			{"body over the limit", strings.Replace(e.body, "What", strings.Repeat("x", 65<<10), 1), nil, 413, "invalid_request_error", "body_too_large", "", "", "", "body_too_large"},
		} {
			t.Run(c.name, func(t *testing.T) {
				rejected := ts.metricValue("llm_requests_rejected_total", "reason", c.rejected)
				for i, body := range []string{c.body, streamed(c.body)} {
					r := ts.postOpenAI(e, body, c.headers...)
					typ, code, param := decodeOpenAIError(t, r)
					if r.StatusCode != c.status || typ != c.typ || code != c.code || param != c.param {
						t.Errorf("status %d, %s %q %q; want %d, %s %q %q: %s", r.StatusCode, typ, code, param, c.status, c.typ, c.code, c.param, r.body)
					}
					if c.header != "" && r.Header.Get(c.header) != c.text {
						t.Errorf("%s: %q, want %q", c.header, r.Header.Get(c.header), c.text)
					}
					ts.expectMetric(rejected+float64(i+1), "llm_requests_rejected_total", "reason", c.rejected)
				}
			})
		}
	})
}

// What is refused before the body is read, and what is no inference, has OpenAI's form as well; other paths keep
// theirs.
func TestOpenAIErrorsOfRoutes(t *testing.T) {
	ts := startTestServer(t, capitalTable(), func(o *Options) { o.MaxBodyBytes = 1 << 20 })
	for _, c := range []struct {
		name, text string
		status     int
		code       string
	}{
		{"large without a key", "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 401, "invalid_api_key"},
		{"announced without a key", "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n", 401, "invalid_api_key"},
		{"declared too large", "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\nContent-Length: 2000000\r\n\r\n", 413, "body_too_large"},
		{"wrong method", "GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"},
		{"wrong method of a model", "DELETE /v1/models/demo HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"},
		{"unknown path", "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 404, "unknown_url"},
		{"no model's path", "GET /v1/models/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "unknown_url"},
		{"stream over HTTP/1.0", strings.Replace(rawInfer(streamed(openAIEndpoints[0].body), "HTTP/1.0"), "/infer", "/v1/chat/completions", 1), 426, "upgrade_required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, r := ts.dial()
			ts.send(conn, c.text)
			got := ts.readReply(r, "POST")
			if _, code, _ := decodeOpenAIError(t, got); got.StatusCode != c.status || code != c.code {
				t.Errorf("status %d, code %q; want %d, %q", got.StatusCode, code, c.status, c.code)
			}
			if c.status == 405 && got.Header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
	for _, path := range []string{"/v1", "/v2/models", "/v1x"} {
		if typ, _, _ := decodeError(t, ts.get(path)); typ != "not_found" {
			t.Errorf("%s: %s", path, typ)
		}
	}
}

func TestOpenAIRateLimit(t *testing.T) {
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		ts := startTestServer(t, capitalTable(), func(o *Options) {
			o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 1, Unit: time.Hour}
		})
		if r := ts.postOpenAI(e, e.body); r.StatusCode != 200 || r.Header.Get("X-Ratelimit-Remaining-Requests") != "0" {
			t.Errorf("status %d, header %v", r.StatusCode, r.Header)
		}
		r := ts.postOpenAI(e, streamed(e.body))
		typ, code, _ := decodeOpenAIError(t, r)
		if r.StatusCode != 429 || typ != "rate_limit_error" || code != "rate_limit_exceeded" || r.Header.Get("Retry-After") == "" {
			t.Errorf("status %d, %s %s, Retry-After %q", r.StatusCode, typ, code, r.Header.Get("Retry-After"))
		}
		ts.expectMetric(1, "api_requests_total", "endpoint", e.path, "status", "rate_limited")
	})
}

func TestOpenAIErrorsOfAnswers(t *testing.T) {
	for _, c := range []struct {
		name         string
		accepted     bool
		err          *api.Error
		status       int
		code         string
		model        string
		blamesPrompt bool
	}{
		{"engine away", false, api.EngineUnavailable(3 * time.Second), 503, "engine_unavailable", "none", false},
		{"prompt too long", true, api.ContextExceeded(9000, 8192), 400, "context_length_exceeded", "demo", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
				ts := startTestServer(t, &fakeTable{admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
					a := newAnswer(r)
					a.fail(c.err, c.accepted)
					return a, nil
				}}, nil)
				for _, body := range []string{e.body, streamed(e.body)} {
					r := ts.postOpenAI(e, body)
					_, code, param := decodeOpenAIError(t, r)
					if r.StatusCode != c.status || code != c.code || c.blamesPrompt && param != e.param {
						t.Errorf("status %d, code %s, param %s", r.StatusCode, code, param)
					}
				}
				status := map[bool]string{true: "error", false: "client_error"}[c.status >= 500]
				ts.expectMetric(2, "api_requests_total", "endpoint", e.path, "status", status, "model", c.model)
			})
		})
	}
}

func TestOpenAIErrorInsideAStream(t *testing.T) {
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		table, asked := manualTable()
		ts := startTestServer(t, table, nil)
		go func() {
			a := <-asked
			a.addText("The capital")
			<-a.written
			a.fail(api.EngineCrashed(time.Second), true)
		}()
		r := ts.postOpenAI(e, streamed(e.body))
		rest, found := strings.CutPrefix(hideCreated(t, r.body), e.start+e.text("The capital"))
		data, one := strings.CutPrefix(strings.TrimSuffix(rest, "\n\n"), "data: ")
		if !found || !one || strings.Contains(data, "\n") {
			t.Fatalf("status %d, body %q", r.StatusCode, r.body)
		}
		if typ, code, _ := readOpenAIError(t, data); typ != "server_error" || code != "engine_crashed" {
			t.Errorf("last event %q", data)
		}
		await.Until(t, waitLimit, "the stream is counted", func() bool {
			return ts.metricValue("api_requests_total", "endpoint", e.path, "status", "error", "model", "demo") == 1
		})
	})
}
