package server

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
)

func TestRefusals(t *testing.T) {
	table := instant()
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
	d := openDoor(t, table, func(o *Options) { o.MaxBodyBytes = 64 << 10 })
	good := []string{"Content-Type", "application/json", "X-API-Key", testKey}
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		typ, header              string // header that must be there
		rejected                 string
		model                    string
	}{
		{"no key", "POST", "/infer", question, []string{"Content-Type", "application/json"}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"wrong key", "POST", "/infer", question, []string{"X-API-Key", "wrong"}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"key in another scheme", "POST", "/infer", question, []string{"Authorization", "Basic " + testKey}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"two keys that differ", "POST", "/infer", question, []string{"X-API-Key", testKey, "Authorization", "Bearer other"}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"huge key", "POST", "/infer", question, []string{"X-API-Key", strings.Repeat("k", 300)}, 401, "unauthorized", "Www-Authenticate", "unauthorized", "none"},
		{"the key comes before the body", "POST", "/infer", "{", nil, 401, "unauthorized", "", "unauthorized", "none"},
		{"unknown path", "GET", "/v2/infer", "", nil, 404, "not_found", "", "", "none"},
		{"wrong method", "GET", "/infer", "", nil, 405, "method_not_allowed", "Allow", "", "none"},
		{"wrong method for a page", "POST", "/status", "", nil, 405, "method_not_allowed", "Allow", "", "none"},
		{"other content type", "POST", "/infer", question, []string{"Content-Type", "text/plain", "X-API-Key", testKey}, 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"no content type", "POST", "/infer", question, []string{"X-API-Key", testKey}, 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"other charset", "POST", "/infer", question, []string{"Content-Type", "application/json; charset=latin1", "X-API-Key", testKey}, 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"compressed", "POST", "/infer", question, append([]string{"Content-Encoding", "gzip"}, good...), 415, "unsupported_media_type", "", "invalid_request", "none"},
		{"body over the limit", "POST", "/infer", `{"prompt":"` + strings.Repeat("x", 65<<10) + `"}`, good, 413, "body_too_large", "", "body_too_large", "none"},
		{"bad timeout", "POST", "/infer", question, append([]string{"X-Request-Timeout", "soon"}, good...), 400, "invalid_request", "", "invalid_request", "none"},
		{"unknown model", "POST", "/infer", `{"prompt":"x","base_model":"nobody/has-it"}`, good, 404, "model_not_found", "", "model_not_found", "unknown"},
		{"full queue", "POST", "/infer", `{"prompt":"x","base_model":"full"}`, good, 503, "queue_full", "Retry-After", "queue_full", "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status := map[bool]string{true: "error", false: "client_error"}[c.status >= 500]
			endpoint := map[bool]string{true: c.path, false: "other"}[d.routes[c.path] != nil]
			labels := []string{"endpoint", endpoint, "status", status, "model", c.model, "version", c.model}
			counted, rejected := d.count("api_requests_total", labels...), d.count("llm_requests_rejected_total", "reason", c.rejected)
			r := d.do(c.method, c.path, c.body, c.headers...)
			if typ, _, _ := failure(t, r); r.StatusCode != c.status || typ != c.typ {
				t.Errorf("status %d, type %s; want %d, %s", r.StatusCode, typ, c.status, c.typ)
			}
			if c.header != "" && r.Header.Get(c.header) == "" {
				t.Errorf("no header %s", c.header)
			}
			d.expectCount(counted+1, "api_requests_total", labels...)
			if c.rejected != "" {
				d.expectCount(rejected+1, "llm_requests_rejected_total", "reason", c.rejected)
			}
		})
	}
	d.expectCount(0, "successful_inferences_total")
	if text := d.log.String(); strings.Contains(text, testKey) || strings.Contains(text, "capital of France") {
		t.Error("the log holds a key or a prompt")
	}
}

func TestBadJSON(t *testing.T) {
	d := openDoor(t, instant(), nil)
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
			r := d.ask(body)
			if typ, _, _ := failure(t, r); r.StatusCode != 400 || typ != "invalid_request" {
				t.Errorf("status %d, type %s", r.StatusCode, typ)
			}
		})
	}
	_, _, param := failure(t, d.ask(`{"prompt":"x","temperature":3}`))
	if param != "temperature" {
		t.Errorf("param %q, want temperature", param)
	}
}

func TestUnreadableRequests(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) {
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
			conn, r := d.raw()
			d.send(conn, c.text)
			got := d.receive(r, "POST")
			if typ, _, _ := failure(t, got); got.StatusCode != c.status || typ != c.typ {
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
	d.expectCount(4, "api_requests_total", "status", "client_error", "endpoint", "/infer") // those whose header is still known
	d.expectCount(8, "api_requests_total", "status", "client_error", "endpoint", "other")
	d.expectCount(0, "llm_requests_in_flight")
	if sum := d.seconds("api_response_time_seconds"); sum > waitLimit.Seconds() {
		t.Errorf("the response times add up to %v seconds", sum)
	}
}

// Whoever only looks whether the port is open, or keeps a connection for later, has asked nothing.
func TestSilenceIsNoRequest(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.ReadTimeout = 100 * time.Millisecond })
	_, silent := d.raw()
	if text, err := io.ReadAll(silent); len(text) > 0 || isTimeout(err) {
		t.Errorf("a silent client read %q, %v", text, err)
	}
	reset, _ := d.raw()
	if err := reset.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	reset.Close()
	eventually(t, "the end of both connections", func() bool { return d.connections() == 0 })
	d.expectCount(0, "api_requests_total")
	d.expectCount(0, "llm_requests_rejected_total")
}

// A client that is still sending must see the 413 and not a reset.
func TestUploadIsRefusedAudibly(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.MaxBodyBytes = 1 << 20 })
	for range 5 {
		r := d.ask(`{"prompt":"` + strings.Repeat("x", 8<<20) + `"}`)
		if typ, _, _ := failure(t, r); r.StatusCode != 413 || typ != "body_too_large" {
			t.Fatalf("status %d, type %s", r.StatusCode, typ)
		}
	}
	d.expectCount(5, "llm_requests_rejected_total", "reason", "body_too_large")
}

func TestRateLimit(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) {
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 3, Unit: time.Hour}
		o.RateLimitDraft = true
	})
	for i, want := range []int{200, 200, 400, 429} {
		body := streamed(question)
		if want == 400 {
			body = "{" // a refused body counts
		}
		r := d.ask(body)
		if r.StatusCode != want {
			t.Fatalf("request %d: status %d, want %d", i, r.StatusCode, want)
		}
		left := strconv.Itoa(max(0, 2-i))
		if r.Header.Get("X-Ratelimit-Limit-Requests") != "3" || r.Header.Get("X-Ratelimit-Remaining-Requests") != left ||
			r.Header.Get("X-Ratelimit-Reset-Requests") == "" || r.Header.Get("RateLimit-Policy") != `"default";q=3;w=3600` {
			t.Errorf("request %d: headers %v", i, r.Header)
		}
	}
	r := d.ask(question)
	typ, _, _ := failure(t, r)
	wait, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if typ != "rate_limited" || err != nil || wait < 1 || wait > 1200 {
		t.Errorf("type %s, Retry-After %q", typ, r.Header.Get("Retry-After"))
	}
	if got := d.get("/status"); got.StatusCode != 200 || got.Header.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Errorf("a page without a key is limited: %d", got.StatusCode)
	}
	d.expectCount(2, "api_requests_total", "endpoint", "/infer", "status", "rate_limited", "model", "none")
	d.expectCount(2, "llm_requests_rejected_total", "reason", "rate_limited")
	d.expectCount(3, "llm_rate_limit_decisions_total", "scope", "key", "decision", "allowed")
	d.expectCount(2, "llm_rate_limit_decisions_total", "scope", "key", "decision", "denied")
}

// A refusal for want of room costs a client nothing of its limit.
func TestOverloadIsNotCharged(t *testing.T) {
	full := true
	table := instant()
	admit := table.admit
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		if full {
			return nil, api.QueueFull(1, time.Second)
		}
		return admit(r)
	}
	d := openDoor(t, table, func(o *Options) {
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 2, Unit: time.Hour}
	})
	for range 5 {
		if r := d.ask(question); r.StatusCode != 503 || r.Header.Get("X-Ratelimit-Remaining-Requests") != "2" || r.Header.Get("Retry-After") != "1" {
			t.Fatalf("status %d, headers %v", r.StatusCode, r.Header)
		}
	}
	full = false
	for i, want := range []int{200, 200, 429} {
		if r := d.ask(question); r.StatusCode != want {
			t.Errorf("request %d: status %d, want %d", i, r.StatusCode, want)
		}
	}
	if page := d.get("/prometheus").body; !strings.Contains(page, "\nllm_rate_limit_tracked_keys 1\n") {
		t.Error("the page doesn't say how many keys are tracked")
	}
}

func TestWithoutKeysAddressesAreLimited(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) {
		o.Keys = nil
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 1, Unit: time.Hour}
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for i, c := range []struct {
		forwarded string
		status    int
	}{
		{"203.0.113.1", 200}, {"203.0.113.1", 429}, {"198.51.100.7, 203.0.113.1", 429}, {"203.0.113.2", 200}, {"", 200}, {"", 429},
	} {
		headers := []string{"Content-Type", "application/json"}
		if c.forwarded != "" {
			headers = append(headers, "X-Forwarded-For", c.forwarded)
		}
		if r := d.do("POST", "/infer", question, headers...); r.StatusCode != c.status {
			t.Errorf("request %d for %q: status %d, want %d", i, c.forwarded, r.StatusCode, c.status)
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.MaxConnections = 2 })
	for range 2 {
		c, r := d.raw()
		d.send(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		d.receive(r, "GET")
	}
	c, r := d.raw()
	d.send(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	got := d.receive(r, "GET")
	if typ, _, _ := failure(t, got); got.StatusCode != 503 || typ != "queue_full" || got.Header.Get("Retry-After") != "1" {
		t.Errorf("status %d, type %s", got.StatusCode, typ)
	}
}

func TestRequestReachesTheDeskWhole(t *testing.T) {
	table, asked := answers()
	d := openDoor(t, table, func(o *Options) { o.Domains = api.NewDomains([]string{"sales"}) })
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	done := make(chan reply, 1)
	go func() {
		done <- d.ask(question, "X-Domain", "sales", "Traceparent", trace, "X-Request-Timeout", "2.5", "X-Request-Id", "not good!")
	}()
	a := await(t, "request", asked, waitLimit)
	q := a.request
	if q.Domain != "sales" || q.Traceparent != trace || q.Timeout != 2500*time.Millisecond || len(q.ID) != 32 || q.Infer.Model != "demo" || *q.Infer.MaxNewTokens != 32 {
		t.Errorf("the request table got %+v", q)
	}
	if since := time.Since(q.Received); since < 0 || since > waitLimit {
		t.Errorf("received %s ago", since)
	}
	a.say("The capital of France is Paris.")
	a.end(8)
	r := await(t, "reply", done, waitLimit)
	if r.Header.Get("X-Request-Id") != q.ID {
		t.Errorf("X-Request-Id %q", r.Header.Get("X-Request-Id"))
	}
	line := lineWith(d.log.String(), q.ID)
	for _, want := range []string{"key=demo", "model=demo", "status=200", "trace_id=0af7651916cd43dd8448eb211c80319c", "tokens=8", "prompt_tokens=9"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %q", want, line)
		}
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// Buffers of fasthttp are used again by the next request; nothing that was kept may change with them.
func TestNothingPointsIntoBuffers(t *testing.T) {
	table, asked := answers()
	d := openDoor(t, table, nil)
	c, r := d.raw()
	var kept []*fakeAnswer
	for i := range 8 {
		body := fmt.Sprintf(`{"prompt":"prompt %d %s","system":"system %d","base_model":"model%d","adapter_version":"v%d","stop":["stop %d"],"json_schema":{"n":%d},"domain":"domain%d"}`,
			i, strings.Repeat(strconv.Itoa(i), 100*i), i, i, i, i, i, i)
		request := strings.Replace(rawInfer(body, "HTTP/1.1"), "Host: x", fmt.Sprintf("Host: x\r\nX-Request-Id: id-%d\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319%d-b7ad6b7169203331-01", i, i), 1)
		d.send(c, request)
		a := await(t, "request", asked, waitLimit)
		a.say("x")
		a.end(1)
		d.receive(r, "POST")
		d.send(c, fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("z", 20+i)))
		d.receive(r, "GET")
		kept = append(kept, a)
	}
	for i, a := range kept {
		q := a.request
		if q.ID != fmt.Sprintf("id-%d", i) || q.Infer.Model != fmt.Sprintf("model%d", i) || q.Infer.Version != fmt.Sprintf("v%d", i) ||
			q.Infer.System != fmt.Sprintf("system %d", i) || q.Infer.Stop[0] != fmt.Sprintf("stop %d", i) || string(q.Infer.JSONSchema) != fmt.Sprintf(`{"n":%d}`, i) ||
			!strings.HasPrefix(q.Infer.Prompt, fmt.Sprintf("prompt %d ", i)) || !strings.Contains(q.Traceparent, fmt.Sprintf("319%d-", i)) {
			t.Errorf("request %d became %+v", i, *q.Infer)
		}
	}
	families, err := d.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"other": true}
	for path := range d.routes {
		known[path] = true
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "endpoint" && !known[l.GetValue()] {
					t.Errorf("%s has endpoint %q", f.GetName(), l.GetValue())
				}
			}
		}
	}
}
