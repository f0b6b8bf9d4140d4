package server

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
	"tandem/proxy/metrics"
	"tandem/scripts/await"
)

// openAIEndpoint is one of the two endpoints with what its replies must be, byte for byte. CREATED stands for the time.
type openAIEndpoint struct {
	path, body string
	whole      string
	start      string // events before the first text
	text       func(text string) string
	end        string
	param      string // the field that has the prompt
}

var openAIEndpoints = []openAIEndpoint{
	{
		path: "/v1/chat/completions", body: `{"model":"demo:v1.0","messages":[{"role":"user","content":"What is the capital of France?"}]}`, param: "messages",
		whole: `{"id":"chatcmpl-my-id","object":"chat.completion","created":CREATED,"model":"demo:v1.0","choices":[{"index":0,` +
			`"message":{"role":"assistant","content":"The capital of France is Paris.","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4}}}`,
		start: chatChunk(`{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`),
		text: func(text string) string {
			return chatChunk(`{"index":0,"delta":{"content":"` + text + `"},"logprobs":null,"finish_reason":null}`)
		},
		end: chatChunk(`{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}`) + "data: [DONE]\n\n",
	},
	{
		path: "/v1/completions", body: `{"model":"demo:v1.0","prompt":"What is the capital of France?"}`, param: "prompt",
		whole: `{"id":"cmpl-my-id","object":"text_completion","created":CREATED,"model":"demo:v1.0","choices":[{"text":"The capital of France is Paris.",` +
			`"index":0,"logprobs":null,"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4}}}`,
		text: func(text string) string {
			return completionChunk(`{"text":"` + text + `","index":0,"logprobs":null,"finish_reason":null}`)
		},
		end: completionChunk(`{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}`) + "data: [DONE]\n\n",
	},
}

func chatChunk(choice string) string {
	return `data: {"id":"chatcmpl-my-id","object":"chat.completion.chunk","created":CREATED,"model":"demo:v1.0","choices":[` + choice + "]}\n\n"
}

func completionChunk(choice string) string {
	return `data: {"id":"cmpl-my-id","object":"text_completion","created":CREATED,"model":"demo:v1.0","choices":[` + choice + "]}\n\n"
}

// forEachOpenAIEndpoint runs a test for both.
func forEachOpenAIEndpoint(t *testing.T, test func(*testing.T, openAIEndpoint)) {
	for _, e := range openAIEndpoints {
		t.Run(strings.TrimPrefix(e.path, "/v1/"), func(t *testing.T) { test(t, e) })
	}
}

// openAIHeaders are those that OpenAI's clients send.
func openAIHeaders(more ...string) []string {
	return append([]string{"Content-Type", "application/json", "Authorization", "Bearer " + testKey, "X-Request-Id", "my-id"}, more...)
}

func (ts *testServer) postOpenAI(e openAIEndpoint, body string, headers ...string) reply {
	ts.t.Helper()
	return ts.do("POST", e.path, body, openAIHeaders(headers...)...)
}

var createdMember = regexp.MustCompile(`"created":(\d+)`)

// hideCreated replaces the time, which must be that of the request and the same everywhere.
func hideCreated(t *testing.T, text string) string {
	t.Helper()
	var times []string
	for _, found := range createdMember.FindAllStringSubmatch(text, -1) {
		times = append(times, found[1])
	}
	if len(slices.Compact(slices.Clone(times))) > 1 {
		t.Errorf("created changes: %v", times)
	}
	for _, at := range times {
		var unix int64
		if err := json.Unmarshal([]byte(at), &unix); err != nil || time.Since(time.Unix(unix, 0)) > waitLimit {
			t.Errorf("created is %s, %v", at, err)
		}
	}
	return createdMember.ReplaceAllString(text, `"created":CREATED`)
}

// decodeOpenAIError reads the body of an error and checks what every error has.
func decodeOpenAIError(t *testing.T, r reply) (typ, code, param string) {
	t.Helper()
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q on an error", got)
	}
	return readOpenAIError(t, r.body)
}

func readOpenAIError(t *testing.T, text string) (typ, code, param string) {
	t.Helper()
	var body struct {
		Error struct {
			Message, Type string
			Param, Code   *string
		}
	}
	decodeExactly(t, text, &body)
	if body.Error.Message == "" {
		t.Error("an error without a message")
	}
	for to, from := range map[*string]*string{&param: body.Error.Param, &code: body.Error.Code} {
		if from != nil {
			*to = *from
		}
	}
	return body.Error.Type, code, param
}

// capitalTable answers at once, with tokens from the cache.
func capitalTable() *fakeTable {
	return &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		switch r.Infer.Model {
		case "nobody/has-it":
			e := api.NewError(api.TypeModelNotFound, "model %s is not installed", api.Quote(r.Infer.Model))
			e.Param = "base_model"
			return nil, e
		case "full":
			return nil, api.QueueFull(256, 2*time.Second)
		}
		a := newAnswer(r)
		a.addText("The capital of France is Paris.")
		endWithCache(a)
		return a, nil
	}}
}

func endWithCache(a *fakeAnswer) {
	a.add(func(p *inflight.Piece) {
		p.Accepted, p.Done = true, true
		p.Result = &inflight.Result{FinishReason: "stop", PromptTokens: 9, CachedTokens: 4, OutputTokens: 8, Seed: 42, GenerationTime: 5 * time.Millisecond}
	})
}

func TestOpenAIWholeReply(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		r := ts.postOpenAI(e, e.body)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Request-Id") != "my-id" {
			t.Errorf("status %d, header %v", r.StatusCode, r.Header)
		}
		if got := hideCreated(t, r.body); got != e.whole {
			t.Errorf("got  %s\nwant %s", got, e.whole)
		}
		ts.expectMetric(1, "api_requests_total", "endpoint", e.path, "status", "success", "model", "demo", "version", "v1.0")
		ts.expectMetric(1, "api_response_time_seconds", "endpoint", e.path, "model", "demo")
		ts.expectMetric(0, "llm_requests_in_flight", "endpoint", e.path)
	})
	for _, want := range []string{"endpoint=/v1/chat/completions", "endpoint=/v1/completions"} {
		if line := lineWith(ts.log.String(), want); !strings.Contains(line, "level=INFO") || !strings.Contains(line, "tokens=8") || !strings.Contains(line, "trace_id=") {
			t.Errorf("access line %q", line)
		}
	}
}

func TestOpenAIStream(t *testing.T) {
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		table, asked := manualTable()
		ts := startTestServer(t, table, nil)
		go func() {
			a := <-asked
			a.addText("The capital")
			<-a.written
			a.addText(" of France is Paris.")
			endWithCache(a)
		}()
		r := ts.postOpenAI(e, streamed(e.body))
		want := e.start + e.text("The capital") + e.text(" of France is Paris.") + e.end
		if got := hideCreated(t, r.body); r.StatusCode != 200 || got != want {
			t.Errorf("status %d\ngot  %q\nwant %q", r.StatusCode, got, want)
		}
		for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Request-Id": "my-id"} {
			if r.Header.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, r.Header.Get(name), want)
			}
		}
		await.Until(t, waitLimit, "the stream is counted", func() bool {
			return ts.metricValue("api_requests_total", "endpoint", e.path, "status", "success", "model", "demo") == 1
		})
	})
}

func TestOpenAIStreamWithUsage(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		r := ts.postOpenAI(e, strings.TrimSuffix(e.body, "}")+`,"stream":true,"stream_options":{"include_usage":true}}`)
		var chunks []string
		for chunk := range strings.SplitSeq(strings.TrimSuffix(r.body, "\n\n"), "\n\n") {
			chunks = append(chunks, strings.TrimPrefix(chunk, "data: "))
		}
		if n := len(chunks); n < 4 || chunks[n-1] != "[DONE]" || !strings.Contains(chunks[n-2], `"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17`) {
			t.Fatalf("stream %q", r.body)
		}
		for _, chunk := range chunks[:len(chunks)-2] {
			if !strings.HasSuffix(chunk, `,"usage":null}`) {
				t.Errorf("chunk %s", chunk)
			}
		}
	})
}

// Keep-alives come before the first chunk, too, and are comments.
func TestSilentOpenAIStreamIsKeptAlive(t *testing.T) {
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		table, asked := manualTable()
		ts := startTestServer(t, table, func(o *Options) { o.StreamHeaderWait, o.StreamHeartbeat = 10*time.Millisecond, 10*time.Millisecond })
		response := ts.start(t.Context(), "POST", e.path, streamed(e.body), openAIHeaders()...)
		a := receiveWithin(t, "request", asked, waitLimit)
		body := bufio.NewReader(response.Body)
		if got := readEvent(t, body) + "\n\n"; got != api.KeepAlive {
			t.Errorf("while nothing flows came %q", got)
		}
		a.addText("Paris.")
		endWithCache(a)
		rest, err := io.ReadAll(body)
		response.Body.Close()
		got := hideCreated(t, strings.ReplaceAll(string(rest), api.KeepAlive, ""))
		if want := e.start + e.text("Paris.") + e.end; err != nil || got != want {
			t.Errorf("got  %q, %v\nwant %q", got, err, want)
		}
	})
}

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
		{"unknown path", "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 404, "unknown_url"},
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

func TestOpenAIClientDisconnect(t *testing.T) {
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		table, asked := manualTable()
		ts := startTestServer(t, table, nil)
		for _, body := range []string{e.body, streamed(e.body)} {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				response, err := ts.client.Do(ts.request(ctx, "POST", e.path, body, openAIHeaders()...))
				if err == nil {
					_, _ = io.ReadAll(response.Body)
					response.Body.Close()
				}
			}()
			a := receiveWithin(t, "request", asked, waitLimit)
			a.addText("The capital")
			if body != e.body {
				receiveWithin(t, "first write", a.written, waitLimit)
			}
			cancel()
			a.expectCancelled(t)
			a.expectCancelReason(t, api.TypeCancelled)
			a.expectOutcome(t, inflight.ClientGone)
			<-done
		}
		await.Until(t, waitLimit, "both are counted", func() bool {
			return ts.metricValue("api_requests_total", "endpoint", e.path, "status", "cancelled") == 2
		})
	})
}

func TestOpenAIModels(t *testing.T) {
	table := capitalTable()
	table.set(func(s *inflight.Status) {
		s.Models = append(s.Models, inflight.Model{Name: "org/plain", ContextTokens: 2048, Versions: []inflight.Version{{Name: "base"}, {Name: "cut-off", Problem: "bad file"}}})
	})
	ts := startTestServer(t, table, withOrigins(appOrigin))
	var list struct {
		Object string
		Data   []struct {
			ID, Object    string
			Created       int64
			OwnedBy       string `json:"owned_by"`
			ContextLength int    `json:"context_length"`
		}
	}
	r := ts.do("GET", "/v1/models", "", "Origin", appOrigin) // without a key, as /models
	decodeExactly(t, r.body, &list)
	var ids []string
	for _, m := range list.Data {
		ids = append(ids, m.ID)
	}
	want := "demo demo:base demo:v1.0 demo:v1.1 org/plain org/plain:base"
	if got := strings.Join(ids, " "); r.StatusCode != 200 || list.Object != "list" || got != want {
		t.Errorf("status %d, %s\ngot  %s\nwant %s", r.StatusCode, list.Object, got, want)
	}
	checkReadable(t, r.Header)
	for path, id := range map[string]string{
		"/v1/models/demo": "demo", "/v1/models/demo:v1.1": "demo:v1.1", "/v1/models/demo%3Av1.1": "demo:v1.1",
		"/v1/models/org/plain": "org/plain", "/v1/models/org%2Fplain": "org/plain", "/v1/models/org%2fplain:base": "org/plain:base",
	} {
		r := ts.get(path)
		var m struct{ ID string }
		if err := json.Unmarshal([]byte(r.body), &m); err != nil || r.StatusCode != 200 || m.ID != id {
			t.Errorf("%s: status %d, %s", path, r.StatusCode, r.body)
		}
	}
	for _, path := range []string{"/v1/models/nobody", "/v1/models/demo:v9", "/v1/models/org/plain:cut-off", "/v1/models/org", "/v1/models/%2e%2e%2fhealth"} {
		if _, code, _ := decodeOpenAIError(t, ts.get(path)); code != "model_not_found" && code != "unknown_url" {
			t.Errorf("%s: %s", path, code)
		}
	}
	ts.expectMetric(7, "api_requests_total", "endpoint", "/v1/models", "status", "success")
}

// A page with OpenAI's client library sends headers of its own.
func TestOpenAICrossOrigin(t *testing.T) {
	ts := startTestServer(t, capitalTable(), withOrigins(appOrigin))
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		r := ts.do("OPTIONS", e.path, "", "Origin", appOrigin, "Access-Control-Request-Method", "POST")
		allowed := r.Header.Get("Access-Control-Allow-Headers")
		for _, name := range []string{"Authorization", "Content-Type", "X-Stainless-Lang", "X-Stainless-Retry-Count", "OpenAI-Organization"} {
			if r.StatusCode != 204 || !strings.Contains(allowed, name) {
				t.Errorf("preflight: %d, %s is not among %s", r.StatusCode, name, allowed)
			}
		}
		checkReadable(t, ts.postOpenAI(e, e.body, "Origin", appOrigin).Header)
		checkReadable(t, ts.postOpenAI(e, streamed(e.body), "Origin", appOrigin).Header)
		checkReadable(t, ts.postOpenAI(e, e.body, "Origin", appOrigin, "Authorization", "").Header)
	})
}

// A key for some models only is held to them, whatever the dialect.
func TestOpenAIModelScope(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.Keys = keysWithRights(t) })
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		r := ts.postOpenAI(e, strings.Replace(e.body, "demo:v1.0", "org/other:v1.0", 1), "Authorization", "Bearer scoped")
		if typ, _, param := decodeOpenAIError(t, r); r.StatusCode != 403 || typ != "permission_error" || param != "model" {
			t.Errorf("status %d: %s", r.StatusCode, r.body)
		}
		done := make(chan reply, 1)
		go func() { done <- ts.postOpenAI(e, e.body, "Authorization", "Bearer scoped") }()
		a := receiveWithin(t, "request", asked, waitLimit)
		if !slices.Equal(a.request.Models, []string{"demo", "acme/other"}) || a.request.Infer.Version != "v1.0" {
			t.Errorf("the request table got %+v", a.request)
		}
		a.end(1)
		if r := receiveWithin(t, "reply", done, waitLimit); r.StatusCode != http.StatusOK {
			t.Errorf("status %d: %s", r.StatusCode, r.body)
		}
	})
}

func TestPromptLogHasMessages(t *testing.T) {
	ts := startTestServer(t, capitalTable(), func(o *Options) { o.LogPrompts = true })
	for _, e := range openAIEndpoints {
		ts.postOpenAI(e, e.body)
	}
	text := ts.log.String()
	if n := strings.Count(text, "What is the capital of France?"); n != 2 || !strings.Contains(text, "messages=") {
		t.Errorf("%d prompts in %s", n, text)
	}
}

// What counts as inference in the metrics is what the server takes for it.
func TestInferenceRoutesAreThoseOfTheMetrics(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	for path, r := range ts.routes {
		if r.inference != metrics.IsInference(path) {
			t.Errorf("%s is inference to the server: %v", path, r.inference)
		}
	}
}
