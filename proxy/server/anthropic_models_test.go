package server

import (
	"net/url"
	"slices"
	"testing"
	"time"
)

// anthropicPage is the list of models as Anthropic's clients read it.
type anthropicPage struct {
	Data []struct {
		Type, ID    string
		DisplayName string    `json:"display_name"`
		CreatedAt   time.Time `json:"created_at"`
	}
	HasMore bool    `json:"has_more"`
	FirstID *string `json:"first_id"`
	LastID  *string `json:"last_id"`
}

var anthropicModelHeaders = []string{"X-Api-Key", testKey, "Anthropic-Version", "2023-06-01"}

func (ts *testServer) listForAnthropic(query url.Values) (page anthropicPage, ids []string) {
	ts.t.Helper()
	r := ts.do("GET", "/v1/models?"+query.Encode(), "", anthropicModelHeaders...)
	if r.StatusCode != 200 || r.Header.Get("Request-Id") == "" {
		ts.t.Fatalf("status %d, header %v: %s", r.StatusCode, r.Header, r.body)
	}
	decodeExactly(ts.t, r.body, &page)
	for _, m := range page.Data {
		if m.Type != "model" || m.DisplayName == "" || m.CreatedAt.IsZero() {
			ts.t.Errorf("entry %+v", m)
		}
		ids = append(ids, m.ID)
	}
	if len(ids) > 0 && (*page.FirstID != ids[0] || *page.LastID != ids[len(ids)-1]) {
		ts.t.Errorf("first_id and last_id of %s", r.body)
	}
	return page, ids
}

// Anthropic's clients ask for the same paths as OpenAI's; their version header tells them apart.
func TestAnthropicModels(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	all := []string{"demo", "demo:base", "demo:v1.0", "demo:v1.1"}
	for _, c := range []struct {
		query string
		want  []string
		more  bool
	}{
		{"", all, false},
		{"limit=4", all, false},
		{"limit=3", all[:3], true},
		{"limit=3&after_id=demo:v1.0", all[3:], false},
		{"limit=2&after_id=demo", all[1:3], true},
		{"limit=1&before_id=demo:v1.1", all[2:3], true},
		{"limit=2&before_id=demo:v1.0", all[:2], false},
		{"after_id=demo:v1.1", nil, false},
		{"beta=true", all, false},
	} {
		query, _ := url.ParseQuery(c.query)
		page, ids := ts.listForAnthropic(query)
		if !slices.Equal(ids, c.want) || page.HasMore != c.more || len(c.want) == 0 && (page.FirstID != nil || page.LastID != nil) {
			t.Errorf("%s: %v, more %v, want %v, %v", c.query, ids, page.HasMore, c.want, c.more)
		}
	}
	r := ts.do("GET", "/v1/models/demo%3Av1.1", "", anthropicModelHeaders...)
	var m struct {
		Type, ID    string
		DisplayName string    `json:"display_name"`
		CreatedAt   time.Time `json:"created_at"`
	}
	decodeExactly(t, r.body, &m)
	if r.StatusCode != 200 || m.Type != "model" || m.ID != "demo:v1.1" {
		t.Errorf("status %d: %s", r.StatusCode, r.body)
	}
	ts.expectMetric(10, "api_requests_total", "endpoint", "/v1/models", "status", "success")
}

func TestAnthropicModelErrors(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	for path, want := range map[string]string{
		"/v1/models/nobody":                       "not_found_error",
		"/v1/models?limit=0":                      "invalid_request_error",
		"/v1/models?limit=1001":                   "invalid_request_error",
		"/v1/models?limit=x":                      "invalid_request_error",
		"/v1/models?after_id=nobody":              "invalid_request_error",
		"/v1/models?before_id=nobody":             "invalid_request_error",
		"/v1/models?before_id=demo&after_id=demo": "invalid_request_error",
	} {
		r := ts.do("GET", path, "", anthropicModelHeaders...)
		if kind, _ := messagesError(t, r); kind != want {
			t.Errorf("%s: status %d: %s", path, r.StatusCode, r.body)
		}
	}
	if r := ts.do("DELETE", "/v1/models/demo", "", anthropicModelHeaders...); r.StatusCode != 405 {
		t.Errorf("DELETE: status %d", r.StatusCode)
	} else {
		messagesError(t, r)
	}
}
