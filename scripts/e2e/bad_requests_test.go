package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestBadRequestsAreRefusedWithAReason(t *testing.T) {
	s := startServer(t)
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
	if withLlama {
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
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
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
		if n := scraped.sum("llm_requests_rejected_total", "reason", reason); n != want {
			t.Errorf("%s counted %v times, want %v", reason, n, want)
		}
	}
	if n := scraped.sum("api_requests_total", "endpoint", "/infer", "status", "client_error"); n != float64(len(cases)) {
		t.Errorf("%v client errors, want %d", n, len(cases))
	}
	for _, family := range scraped {
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
