package server

import (
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/scripts/await"
)

const (
	messagesBody = `{"model":"demo:v1.0","max_tokens":32,"messages":[{"role":"user","content":"What is the capital of France?"}]}`
	messageHead  = `{"id":"msg_my-id","type":"message","role":"assistant","model":"demo:v1.0","content":[`
)

// postMessages posts as Anthropic's clients do.
func (ts *testServer) postMessages(body string, headers ...string) reply {
	ts.t.Helper()
	return ts.do("POST", "/v1/messages?beta=true", body, append([]string{"Content-Type", "application/json", "X-Api-Key", testKey, "X-Request-Id", "my-id",
		"Anthropic-Version", "2023-06-01", "Anthropic-Beta", "interleaved-thinking-2025-05-14"}, headers...)...)
}

// messagesError reads the body of an error and checks what every error has.
func messagesError(t *testing.T, r reply) (kind, text string) {
	t.Helper()
	var body struct {
		Type  string
		Error struct{ Type, Message string }
		ID    string `json:"request_id"`
	}
	decodeExactly(t, r.body, &body)
	if r.Header.Get("Content-Type") != "application/json" || body.Type != "error" || body.Error.Message == "" || body.ID == "" || body.ID != r.Header.Get("Request-Id") {
		t.Errorf("status %d, header %v: %s", r.StatusCode, r.Header, r.body)
	}
	return body.Error.Type, body.Error.Message
}

func TestMessagesWholeReply(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	for i, auth := range [][]string{{"X-Api-Key", testKey}, {"X-Api-Key", "", "Authorization", "Bearer " + testKey}} {
		r := ts.postMessages(messagesBody, auth...)
		want := messageHead + `{"type":"text","text":"The capital of France is Paris."}],"stop_reason":"end_turn","stop_sequence":null,` +
			`"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":8}}`
		if r.StatusCode != 200 || r.Header.Get("Request-Id") != "my-id" || r.Header.Get("X-Request-Id") != "my-id" || r.body != want {
			t.Errorf("status %d, header %v\ngot  %s\nwant %s", r.StatusCode, r.Header, r.body, want)
		}
		ts.expectMetric(float64(i+1), "api_requests_total", "endpoint", "/v1/messages", "status", "success", "model", "demo", "version", "v1.0")
	}
}

func TestMessagesStream(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	go func() {
		a := <-asked
		a.addText("The capital")
		<-a.written
		a.addText(" of France is Paris.")
		endWithCache(a)
	}()
	r := ts.postMessages(streamed(messagesBody))
	want := messagesStart + textDelta("The capital") + textDelta(" of France is Paris.") +
		namedEvent("content_block_stop", `,"index":0`) +
		namedEvent("message_delta", `,"delta":{"stop_reason":"end_turn","stop_sequence":null},`+
			`"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":8}`) +
		namedEvent("message_stop", "")
	if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") || r.Header.Get("Request-Id") != "my-id" || r.body != want {
		t.Errorf("status %d, header %v\ngot  %s\nwant %s", r.StatusCode, r.Header, r.body, want)
	}
}

var messagesStart = namedEvent("message_start", `,"message":`+messageHead+`],"stop_reason":null,"stop_sequence":null,`+
	`"usage":{"input_tokens":9,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}`) +
	namedEvent("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`)

func namedEvent(name, rest string) string {
	return "event: " + name + "\ndata: {\"type\":\"" + name + "\"" + rest + "}\n\n"
}

func textDelta(text string) string {
	return namedEvent("content_block_delta", `,"index":0,"delta":{"type":"text_delta","text":"`+text+`"}`)
}

func TestMessagesErrorInsideAStream(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	go func() {
		a := <-asked
		a.addText("The capital")
		<-a.written
		a.fail(api.EngineCrashed(time.Second), true)
	}()
	r := ts.postMessages(streamed(messagesBody))
	want := messagesStart + textDelta("The capital") +
		namedEvent("error", `,"error":{"type":"api_error","message":"the inference engine stopped while it worked on this request; try again"}`)
	if r.body != want {
		t.Errorf("got  %s\nwant %s", r.body, want)
	}
	await.Until(t, waitLimit, "the stream is counted", func() bool {
		return ts.metricValue("api_requests_total", "endpoint", "/v1/messages", "status", "error", "model", "demo") == 1
	})
}

// Whole or streamed: what is refused before the first token has a status of its own.
func TestMessagesRefusals(t *testing.T) {
	ts := startTestServer(t, capitalTable(), func(o *Options) { o.MaxBodyBytes = 64 << 10 })
	with := func(model string) string { return strings.Replace(messagesBody, "demo:v1.0", model, 1) }
	for _, c := range []struct {
		name, body   string
		headers      []string
		status       int
		kind, text   string
		header, want string // a header with its value
	}{
		{"no key", messagesBody, []string{"X-Api-Key", ""}, 401, "authentication_error", "missing or invalid API key", "", ""},
		{"wrong key", messagesBody, []string{"X-Api-Key", "wrong"}, 401, "authentication_error", "missing or invalid API key", "", ""},
		{"unknown model", with("nobody/has-it"), nil, 404, "not_found_error", `model "nobody/has-it" is not installed`, "", ""},
		{"full queue", with("full"), nil, 503, "overloaded_error", "waiting places", "Retry-After", "2"},
		{"not JSON", "{", nil, 400, "invalid_request_error", "not valid JSON", "", ""},
		{"no max_tokens", `{"messages":[{"role":"user","content":"a"}]}`, nil, 400, "invalid_request_error", "max_tokens is required", "", ""},
		{"other content type", messagesBody, []string{"Content-Type", "text/plain"}, 415, "invalid_request_error", "application/json", "", ""},
		{"large body", strings.Replace(messagesBody, "What", strings.Repeat("x", 65<<10), 1), nil, 413, "request_too_large", "larger than", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, body := range []string{c.body, streamed(c.body)} {
				r := ts.postMessages(body, c.headers...)
				kind, text := messagesError(t, r)
				if r.StatusCode != c.status || kind != c.kind || !strings.Contains(text, c.text) {
					t.Errorf("status %d, %s, want %d, %s: %s", r.StatusCode, kind, c.status, c.kind, text)
				}
				if c.header != "" && r.Header.Get(c.header) != c.want {
					t.Errorf("%s: %q, want %q", c.header, r.Header.Get(c.header), c.want)
				}
			}
		})
	}
}

// Clients shorten a conversation by what this message begins with.
func TestMessagesPromptTooLong(t *testing.T) {
	ts := startTestServer(t, &fakeTable{admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		a := newAnswer(r)
		a.fail(api.ContextExceeded(9000, 8192), true)
		return a, nil
	}}, nil)
	for _, body := range []string{messagesBody, streamed(messagesBody)} {
		r := ts.postMessages(body)
		if kind, text := messagesError(t, r); r.StatusCode != 400 || kind != "invalid_request_error" || text != "prompt is too long: 9000 tokens > 8192 maximum" {
			t.Errorf("status %d: %s", r.StatusCode, r.body)
		}
	}
}

// Errors have the form of the path, also where nothing reads a body.
func TestMessagesErrorsOfRoutes(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	if r := ts.get("/v1/messages"); r.StatusCode != 405 || r.Header.Get("Allow") != "POST" {
		t.Errorf("GET: status %d, header %v", r.StatusCode, r.Header)
	} else if kind, _ := messagesError(t, r); kind != "invalid_request_error" {
		t.Errorf("GET: %s", r.body)
	}
	r := ts.do("POST", "/v1/messages/batches", "{}")
	if kind, _ := messagesError(t, r); r.StatusCode != 404 || kind != "not_found_error" {
		t.Errorf("status %d: %s", r.StatusCode, r.body)
	}
	if _, code, _ := decodeOpenAIError(t, ts.get("/v1/messagesx")); code != "unknown_url" {
		t.Errorf("a path of OpenAI's: %s", code)
	}
}

func TestMessagesCountTokens(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	post := func(body string, headers ...string) reply {
		return ts.do("POST", "/v1/messages/count_tokens?beta=true", body, append([]string{"Content-Type", "application/json", "X-Api-Key", testKey}, headers...)...)
	}
	r := post(`{"model":"demo","messages":[{"role":"user","content":"Hi"}]}`)
	if r.StatusCode != 200 || r.body != `{"input_tokens":8}` || r.Header.Get("Request-Id") == "" {
		t.Errorf("status %d, %s", r.StatusCode, r.body)
	}
	for _, c := range []struct {
		body    string
		headers []string
		status  int
		kind    string
	}{
		{`{"messages":[]}`, nil, 400, "invalid_request_error"},
		{`{"messages":[{"role":"user","content":"Hi"}]}`, []string{"X-Api-Key", "wrong"}, 401, "authentication_error"},
		{`{"messages":[{"role":"user","content":"Hi"}]}`, []string{"Content-Type", "text/plain"}, 415, "invalid_request_error"},
	} {
		r := post(c.body, c.headers...)
		if kind, text := messagesError(t, r); r.StatusCode != c.status || kind != c.kind {
			t.Errorf("status %d, %s, want %d, %s: %s", r.StatusCode, kind, c.status, c.kind, text)
		}
	}
}

// A page with Anthropic's client library sends headers of its own.
func TestMessagesCrossOrigin(t *testing.T) {
	ts := startTestServer(t, capitalTable(), withOrigins(appOrigin))
	r := ts.do("OPTIONS", "/v1/messages", "", "Origin", appOrigin, "Access-Control-Request-Method", "POST")
	allowed := r.Header.Get("Access-Control-Allow-Headers")
	for _, name := range []string{"X-API-Key", "Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access", "X-Stainless-Lang"} {
		if r.StatusCode != 204 || !strings.Contains(allowed, name) {
			t.Errorf("preflight: %d, %s is not among %s", r.StatusCode, name, allowed)
		}
	}
	r = ts.postMessages(messagesBody, "Origin", appOrigin)
	checkReadable(t, r.Header)
	if !strings.Contains(r.Header.Get("Access-Control-Expose-Headers"), ", Request-Id") {
		t.Errorf("Access-Control-Expose-Headers %q", r.Header.Get("Access-Control-Expose-Headers"))
	}
}
