package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBadRequestsAreRefusedWithAReason(t *testing.T) {
	s := newStack(t)
	long := strings.Repeat("word ", 30_000)
	deep := strings.Repeat(`[`, 70) + strings.Repeat(`]`, 70)
	var wide []string
	for i := range 900 {
		wide = append(wide, fmt.Sprintf(`"p%d":{}`, i))
	}
	cases := []struct {
		name    string
		body    string
		headers []string
		status  int
		kind    string // error type
		param   string
	}{
		{"no key", question("Hi", "v1.0"), []string{"X-API-Key", ""}, 401, "unauthorized", ""},
		{"wrong key", question("Hi", "v1.0"), []string{"X-API-Key", "nobody"}, 401, "unauthorized", ""},
		{"body over the limit", `{"prompt":"` + strings.Repeat("a", 9<<20) + `"}`, nil, 413, "body_too_large", ""},
		{"prompt over the limit", `{"prompt":"` + strings.Repeat("a", 1<<20+1) + `"}`, nil, 400, "invalid_request", "prompt"},
		{"unknown model", `{"prompt":"Hi","base_model":"nothing/here"}`, nil, 404, "model_not_found", "base_model"},
		{"unknown version", question("Hi", "v9"), nil, 404, "version_not_found", "adapter_version"},
		{"empty prompt", question("", "v1.0"), nil, 400, "invalid_request", "prompt"},
		{"no prompt", `{}`, nil, 400, "invalid_request", "prompt"},
		{"null prompt", `{"prompt":null}`, nil, 400, "invalid_request", "prompt"},
		{"negative max_new_tokens", `{"prompt":"Hi","max_new_tokens":-1}`, nil, 400, "invalid_request", "max_new_tokens"},
		{"huge max_new_tokens", `{"prompt":"Hi","max_new_tokens":99999999999}`, nil, 400, "invalid_request", "max_new_tokens"},
		{"not an object", `["prompt"]`, nil, 400, "invalid_request", ""},
		{"unknown field", `{"prompt":"Hi","promt":"x"}`, nil, 400, "invalid_request", "promt"},
		{"duplicate key", `{"prompt":"Hi","prompt":"Ho"}`, nil, 400, "invalid_request", "prompt"},
		{"trailing data", `{"prompt":"Hi"} {}`, nil, 400, "invalid_request", ""},
		{"invalid UTF-8", "{\"prompt\":\"\xff\"}", nil, 400, "invalid_request", ""},
		{"lone surrogate", `{"prompt":"\ud800"}`, nil, 400, "invalid_request", ""},
		{"wrong type", `{"prompt":7}`, nil, 400, "invalid_request", "prompt"},
		{"out of range", `{"prompt":"Hi","top_p":1.5}`, nil, 400, "invalid_request", "top_p"},
		{"too deep", `{"prompt":"Hi","json_schema":` + deep + `}`, nil, 400, "invalid_request", ""},
		{"wrong content type", question("Hi", "v1.0"), []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type", ""},
	}
	if realModel {
		cases = append(cases, []struct {
			name    string
			body    string
			headers []string
			status  int
			kind    string
			param   string
		}{
			{"prompt longer than the context", question(long, "v1.0"), nil, 400, "context_length_exceeded", "prompt"},
			{"schema that takes too long", `{"prompt":"Hi","json_schema":{"type":"object","properties":{` + strings.Join(wide, ",") + `}}}`, nil, 400, "grammar_too_complex", "json_schema"},
			{"schema whose maximum is below its minimum", `{"prompt":"Hi","json_schema":{"type":"string","minLength":10,"maxLength":5}}`, nil, 400, "invalid_request", "json_schema"},
			{"schema that can't be obeyed", `{"prompt":"Hi","json_schema":{"properties":{"a":{"not":{}}}}}`, nil, 400, "invalid_request", "json_schema"},
			{"schema that is none", `{"prompt":"Hi","json_schema":{"type":"nonsense"}}`, nil, 400, "invalid_request", "json_schema"},
			{"max_new_tokens larger than the context", `{"prompt":"Hi","max_new_tokens":100000}`, nil, 400, "invalid_request", "max_new_tokens"},
		}...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, err := s.infer(t.Context(), c.body, c.headers...)
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != c.status || a.Error.Type != c.kind {
				t.Fatalf("got %d %s", a.Status, tail(a.Body, 400))
			}
			param := ""
			if a.Error.Param != nil {
				param = *a.Error.Param
			}
			if c.param != "" && param != c.param {
				t.Errorf("param is %q: %s", param, tail(a.Body, 400))
			}
			if strings.HasSuffix(c.name, "can't be obeyed") && !strings.Contains(a.Error.Message, "not at /properties/a/not") {
				t.Errorf("the message doesn't say which keyword where: %s", a.Error.Message)
			}
			if c.kind == "context_length_exceeded" && !strings.Contains(a.Error.Message, "512 tokens") {
				t.Errorf("the message doesn't say how much fits: %s", a.Error.Message)
			}
			if a.Error.Message == "" || a.Error.RequestID == "" || a.Error.RequestID != a.Header.Get("X-Request-Id") {
				t.Errorf("incomplete error: %s, X-Request-Id %q", tail(a.Body, 400), a.Header.Get("X-Request-Id"))
			}
		})
	}
	p := s.waitIdle()
	checkInvariants(t, p)
	refused := map[string]float64{}
	for _, c := range cases {
		switch c.kind {
		case "version_not_found":
			refused["model_not_found"]++
		case "unsupported_media_type", "grammar_too_complex":
			refused["invalid_request"]++
		default:
			refused[c.kind]++
		}
	}
	for reason, want := range refused {
		if n := p.sum("llm_requests_rejected_total", "reason", reason); n != want {
			t.Errorf("%s counted %v times, want %v", reason, n, want)
		}
	}
	if n := p.sum("api_requests_total", "endpoint", "/infer", "status", "client_error"); n != float64(len(cases)) {
		t.Errorf("%v client errors, want %d", n, len(cases))
	}
	for _, family := range p {
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if strings.Contains(l.GetValue(), "nothing/here") || l.GetValue() == "v9" {
					t.Errorf("%s has a label made by a client: %s=%q", family.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	a := s.mustInfer(question("What is the capital of France?", "v1.0"))
	if a.Status != 200 {
		t.Errorf("after all that: %d %s", a.Status, a.Body)
	}
}

func TestRateLimitAdmitsExactlyItsNumber(t *testing.T) {
	s := newStack(t, "RATE_LIMIT=5/minute")
	statuses := make(chan int, 20)
	for range 20 {
		go func() {
			a, err := s.infer(t.Context(), question("What is the capital of France?", "v1.0"))
			if err != nil {
				statuses <- 0
				return
			}
			if a.Status == 429 && a.Header.Get("Retry-After") == "" {
				statuses <- -1
				return
			}
			statuses <- a.Status
		}()
	}
	got := map[int]int{}
	for range 20 {
		got[<-statuses]++
	}
	if got[200] != 5 || got[429] != 15 {
		t.Errorf("statuses: %v, want 5 × 200 and 15 × 429 with Retry-After", got)
	}
}

func TestClientThatLeavesIsForgotten(t *testing.T) {
	settings := []string{"MOCK_TOKEN_DELAY=50ms"}
	s := newStack(t, settings...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	prompt := strings.Repeat("Tell me a long story about a fox. ", 5)
	body, _ := json.Marshal(map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": "v1.0", "stream": true, "max_new_tokens": 200,
		"temperature": 1.9, "seed": 7})
	_, err := s.stream(ctx, string(body), func(event) bool { cancel(); return true })
	if err == nil && !realModel {
		t.Fatal("the stream ended although its client left")
	}
	p := s.waitIdle()
	checkInvariants(t, p)
	if !realModel && p.sum("llm_requests_cancelled_total") != 1 {
		t.Errorf("cancelled: %v", p.sum("llm_requests_cancelled_total"))
	}
}

func TestSlowLorisIsCutOffAndDisturbsNobody(t *testing.T) {
	s := newStack(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nX-API-Key: %s\r\n", s.key)
	began := time.Now()
	a := s.mustInfer(question("What is the capital of France?", "v1.0"))
	if a.Status != 200 {
		t.Errorf("another client got %d", a.Status)
	}
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		if _, err := conn.Read(make([]byte, 512)); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Fatal("the connection was still open after 30 s")
			}
			break
		}
	}
	t.Logf("cut off after %v", time.Since(began).Round(time.Millisecond))
}

// TestRequestWaitsForTheEngine: without an engine a request waits, then is refused with a hint; with one that comes in time it is answered.
func TestRequestWaitsForTheEngine(t *testing.T) {
	s := prepareStack(t, "ENGINE_WAIT=1s")
	s.startProxy()
	s.waitFor(10*time.Second, "a proxy", func() bool { status, _, err := s.get("/livez"); return err == nil && status == 200 })
	if status, _, _ := s.get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz without an engine is %d", status)
	}
	began := time.Now()
	a := s.mustInfer(question("What is the capital of France?", "v1.0"))
	if a.Status != 503 || a.Error.Type != "engine_unavailable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	if waited := time.Since(began); waited < 900*time.Millisecond || waited > 5*time.Second {
		t.Errorf("refused after %v, ENGINE_WAIT is 1 s", waited)
	}
	s.startEngine()
	s.waitReady(60 * time.Second)
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Status != 200 {
		t.Errorf("with an engine: %d %s", a.Status, a.Body)
	}
	p := s.waitIdle()
	if up := p.sum("llm_engine_up"); up != 1 || math.IsNaN(up) {
		t.Errorf("llm_engine_up is %v", up)
	}
}
