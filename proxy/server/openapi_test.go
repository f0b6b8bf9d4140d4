package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/openapi"
)

func described(t *testing.T) []openapi.Endpoint {
	t.Helper()
	list, err := describedEndpoints()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Each path that the server serves is in the document with its method, and nothing else is.
func TestEveryRouteIsDescribed(t *testing.T) {
	ts := startTestServer(t, &fakeTable{current: readyStatus()}, nil)
	paths := map[string]string{}
	for _, e := range described(t) {
		paths[e.Path] = e.Method
		r := ts.routes[e.Path]
		if r == nil {
			t.Errorf("%s is described, but has no route", e.Path)
			continue
		}
		if post := r.inference || r.post; post != (e.Method == "post") || post && !e.Key || post != (e.Body != nil) {
			t.Errorf("%s: described as %s, key %v; the route takes %s", e.Path, e.Method, e.Key, r.allow())
		}
		form := errorText(r.dialect)
		if code := fmt.Sprintf("%q:%q", e.Errors.Member, e.Errors.Code(api.TypeDraining)); !strings.Contains(form, code) {
			t.Errorf("%s has errors such as %s, described with %s", e.Path, form, code)
		}
	}
	for path := range ts.routes {
		if paths[path] == "" && !strings.HasPrefix(path, "/page/") {
			t.Errorf("%s has no description", path)
		}
	}
}

func servedDocument(t *testing.T, ts *testServer) (document struct {
	Info       struct{ Version string }
	Paths      map[string]any
	Components struct {
		SecuritySchemes struct{ Key struct{ Name string } }
	}
}) {
	t.Helper()
	r := ts.get("/openapi.json")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cache-Control") != "no-cache" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	if err := json.Unmarshal([]byte(r.body), &document); err != nil {
		t.Fatal(err)
	}
	return document
}

func TestDocumentIsServedWithTheSettingsOfTheServer(t *testing.T) {
	table := &fakeTable{current: inflight.Status{}} // without an engine, and without a key
	d := servedDocument(t, startTestServer(t, table, nil))
	if d.Info.Version != "1.0.0" || d.Components.SecuritySchemes.Key.Name != "X-API-Key" || d.Paths["/prometheus"] == nil {
		t.Errorf("defaults: %+v %+v", d.Info, d.Components)
	}
	d = servedDocument(t, startTestServer(t, table, func(o *Options) { o.Version, o.KeyHeader, o.MetricsPath = "2.3.4-rc1", "X-Token", "/m" }))
	if d.Info.Version != "2.3.4-rc1" || d.Components.SecuritySchemes.Key.Name != "X-Token" || d.Paths["/m"] == nil || d.Paths["/prometheus"] != nil {
		t.Errorf("settings: %+v %+v", d.Info, d.Components)
	}
}

func TestUnchangedDocumentIsNotSentAgain(t *testing.T) {
	ts := startTestServer(t, &fakeTable{current: readyStatus()}, nil)
	tag := ts.get("/openapi.json").Header.Get("ETag")
	for header, status := range map[string]int{tag: 304, `"x", W/` + tag: 304, "*": 304, `"x"`: 200, "": 200} {
		r := ts.do("GET", "/openapi.json", "", "If-None-Match", header)
		if r.StatusCode != status || (len(r.body) == 0) != (status == 304) || r.Header.Get("ETag") != tag {
			t.Errorf("If-None-Match: %s gave %d with %d bytes", header, r.StatusCode, len(r.body))
		}
	}
	if !slices.Contains(strings.Fields(ts.get("/").body), "/openapi.json") {
		t.Error("/ doesn't list the document")
	}
}

func errorText(d api.Dialect) string { return string(d.AppendError(nil, api.Draining(), "r1")) }
