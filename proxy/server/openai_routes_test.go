package server

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
)

func TestOpenAIModels(t *testing.T) {
	table := capitalTable()
	table.set(func(s *inflight.Status) {
		s.Loaded[0].Facts = inflight.Facts{Abilities: inflight.Abilities{Generates: true, ChatTemplate: true, Tools: true}}
		s.Models = append(s.Models, inflight.Model{Name: "org/plain", ContextTokens: 2048, Versions: []inflight.Version{{Name: "base"}, {Name: "cut-off", Problem: "bad file"}}},
			inflight.Model{Name: "ranker", Versions: []inflight.Version{{Name: "base"}}, Abilities: &inflight.Abilities{Scores: true}})
	})
	ts := startTestServer(t, table, withOrigins(appOrigin))
	var list struct {
		Object string
		Data   []struct {
			ID, Object    string
			Created       int64
			OwnedBy       string `json:"owned_by"`
			ContextLength int    `json:"context_length"`
			SizeBytes     int    `json:"size_bytes"`
			Quantization  string
			Architecture  string
			Capabilities  []string
			State         string
		}
	}
	r := ts.do("GET", "/v1/models", "", "Origin", appOrigin) // without a key, as /models
	decodeExactly(t, r.body, &list)
	var ids []string
	for _, m := range list.Data {
		ids = append(ids, m.ID)
	}
	want := "demo demo:base demo:v1.0 demo:v1.1 org/plain org/plain:base ranker"
	if got := strings.Join(ids, " "); r.StatusCode != 200 || list.Object != "list" || got != want {
		t.Errorf("status %d, %s\ngot  %s\nwant %s", r.StatusCode, list.Object, got, want)
	}
	states := map[string]string{}
	for _, m := range list.Data {
		states[m.ID] = m.State + " " + strings.Join(m.Capabilities, ",")
	}
	const what = " chat,completion,tools"
	if states["demo"] != "not_loaded"+what || states["demo:v1.0"] != "loaded"+what || states["demo:v1.1"] != "loading"+what || states["org/plain"] != "not_loaded " || states["ranker"] != "not_loaded rerank" {
		t.Errorf("states %v", states)
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
