package server

import (
	"testing"
	"time"

	"tandem/proxy/limit"
)

func TestVocabularyEndpoints(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	for _, c := range []struct{ path, body, want string }{
		{"/tokenize", `{"content":"Hi"}`, `{"tokens":[72,105]}`},
		{"/tokenize", `{"content":"Hi","add_special":true}`, `{"tokens":[1,72,105]}`},
		{"/tokenize", `{"content":"é","with_pieces":true}`, `{"tokens":[{"id":195,"piece":[195]},{"id":169,"piece":[169]}]}`},
		{"/detokenize", `{"tokens":[72,105]}`, `{"content":"Hi"}`},
		{"/apply-template", `{"messages":[{"role":"user","content":"Hi"}]}`, `{"prompt":"<user>Hi"}`},
		{"/v1/chat/completions/input_tokens", `{"messages":[{"role":"user","content":"Hi"}]}`, `{"input_tokens":8}`},
	} {
		r := ts.do("POST", c.path, c.body, openAIHeaders()...)
		if r.StatusCode != 200 || r.body != c.want || r.Header.Get("X-Request-Id") != "my-id" {
			t.Errorf("%s %s: status %d, %s", c.path, c.body, r.StatusCode, r.body)
		}
	}
	for _, c := range []struct {
		path, body string
		status     int
		param      string
	}{
		{"/tokenize", `{"content":7}`, 400, "content"},
		{"/tokenize", `{"content":"a","model":"nobody/has-it"}`, 404, ""},
		{"/detokenize", `{}`, 400, "tokens"},
		{"/apply-template", `{}`, 400, "messages"},
		{"/v1/chat/completions/input_tokens", `{"messages":[]}`, 400, "messages"},
	} {
		r := ts.do("POST", c.path, c.body, openAIHeaders()...)
		if _, _, param := decodeOpenAIError(t, r); r.StatusCode != c.status || param != c.param {
			t.Errorf("%s %s: status %d, %s", c.path, c.body, r.StatusCode, r.body)
		}
	}
	if r := ts.do("POST", "/tokenize", `{"content":"a"}`, "Content-Type", "application/json"); r.StatusCode != 401 {
		t.Errorf("without a key: status %d", r.StatusCode)
	}
	if r := ts.do("GET", "/tokenize", "", openAIHeaders()...); r.StatusCode != 405 || r.Header.Get("Allow") != "POST" {
		t.Errorf("GET: status %d", r.StatusCode)
	}
}

// Counting tokens before each request must not use up the limit of the requests.
func TestVocabularyEndpointsDontCountAgainstTheRateLimit(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) {
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 1, Unit: time.Hour}
	})
	for range 3 {
		if r := ts.do("POST", "/tokenize", `{"content":"a"}`, openAIHeaders()...); r.StatusCode != 200 {
			t.Fatalf("status %d", r.StatusCode)
		}
	}
	if r := ts.postInfer(inferBody); r.StatusCode != 200 {
		t.Errorf("the one request that is allowed: status %d", r.StatusCode)
	}
}
