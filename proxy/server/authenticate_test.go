package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tandem/proxy/auth"
	"tandem/proxy/limit"
)

func parseRate(text string) (auth.Rate, error) {
	rate, err := limit.ParseRate(text)
	return auth.Rate(rate), err
}

func testKeys(t testing.TB) *auth.Keys {
	t.Helper()
	return openKeys(t, "demo:"+testKey)
}

// openKeys opens a list of names and keys, as API_KEYS has it.
func openKeys(t testing.TB, list string) *auth.Keys {
	t.Helper()
	keys, err := auth.Open(auth.Options{List: list, ParseRate: parseRate})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Entries of key files hold SHA-256 sums; these are of "scoped" and "expired".
const keyFile = `keys:
  - {name: scoped, sha256: %s, models: [demo, acme/other], domain: legal, rate_limit: 2/hour}
  - {name: old, sha256: %s, expires: 2020-01-01}
`

// keysWithRights are those of keyFile.
func keysWithRights(t *testing.T) *auth.Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	text := sprintf(keyFile, sha256Hex("scoped"), sha256Hex("expired"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := auth.Open(auth.Options{File: path, ParseRate: parseRate})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestKeysWithRights(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) {
		o.Keys, o.Limits, o.DefaultLimit = keysWithRights(t), limit.NewLocal(10, time.Now()), limit.Rate{Requests: 1, Unit: time.Hour}
	})
	post := func(key, body string) reply {
		return ts.do("POST", "/infer", body, "Content-Type", "application/json", "X-API-Key", key)
	}
	if r := post("expired", inferBody); r.StatusCode != 401 {
		t.Errorf("an expired key: status %d", r.StatusCode)
	}
	r := post("scoped", `{"prompt":"x","base_model":"acme/secret"}`)
	if typ, _, param := decodeError(t, r); r.StatusCode != 403 || typ != "forbidden" || param != "base_model" {
		t.Errorf("a model out of scope: %d %s %s", r.StatusCode, typ, param)
	}
	ts.expectMetric(1, "llm_requests_rejected_total", "reason", "forbidden")
	go func() {
		a := <-asked
		// legal isn't in the closed set of this server
		if a.request.Domain != "other" || a.request.Key != "scoped" || len(a.request.Models) != 2 {
			t.Errorf("the request table got %+v", a.request)
		}
		a.addText("x")
		a.end(1)
	}()
	if r := post("scoped", `{"prompt":"x"}`); r.StatusCode != 200 { // the request table decides about the default model
		t.Errorf("a model in scope: status %d", r.StatusCode)
	}
	if r := post("scoped", inferBody); r.StatusCode != 429 || r.Header.Get("X-Ratelimit-Limit-Requests") != "2" {
		t.Errorf("the key's own limit: status %d, headers %v", r.StatusCode, r.Header)
	}
}
