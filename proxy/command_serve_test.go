package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/scripts/await"
)

func TestServeNeedsKeys(t *testing.T) {
	_, _, err := runCommand(t, "", nil, "serve")
	for _, want := range []string{"API_KEYS_FILE", "keys new", "AUTH_DISABLED=true"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal doesn't name %s: %v", want, err)
		}
	}
}

func TestSecondProxyDoesNotStart(t *testing.T) {
	r := startProxy(t, "AUTH_DISABLED=true")
	socket := strings.TrimPrefix(r.environ[3], "ENGINE_SOCKET=")
	beside := filepath.Join(filepath.Dir(socket), "other.sock") // whose admin socket would be the same
	for _, second := range []string{socket, beside} {
		_, _, err := runCommand(t, "", append(r.environ, "ENGINE_SOCKET="+second), "serve")
		if err == nil || !strings.Contains(err.Error(), filepath.Dir(socket)) || !strings.Contains(err.Error(), "ENGINE_SOCKET") {
			t.Errorf("a second proxy on %s: %v", second, err)
		}
	}
	if out, _, err := runCommand(t, "", r.environ, "drain"); err != nil || !strings.Contains(out, "draining") {
		t.Errorf("the first one's drain: %q, %v", out, err)
	}
}

func TestServeWithoutAnEngine(t *testing.T) {
	r := startProxy(t, "API_KEYS=demo:demo-key", "RATE_LIMIT=off", "METRICS_ADDR=127.0.0.1:0")
	for _, c := range []struct {
		path, key string
		status    int
		part      string
	}{
		{"/livez", "", 200, `"ok"`},
		{"/health", "", 200, `"loading"`},
		{"/status", "", 200, `"device":"unknown"`},
		{"/models", "", 200, `"models":[`},
		{"/readyz", "", 503, "no engine"},
		{"/prometheus", "", 404, "not_found"}, // it has a listener of its own
		{"/infer", "", 401, "unauthorized"},
		{"/infer", "demo-key", 503, "engine_unavailable"},
	} {
		if status, body := r.get(t, c.path, "X-API-Key", c.key); status != c.status || !strings.Contains(body, c.part) {
			t.Errorf("%s: %d %s; want %d with %s", c.path, status, body, c.status, c.part)
		}
	}
	if !strings.Contains(r.log.String(), "DEFAULT_MODEL is not set") {
		t.Error("the log doesn't say which model takes the place of an unset default")
	}
	if out, _, err := runCommand(t, "", r.environ, "drain"); err != nil || !strings.Contains(out, "draining") {
		t.Errorf("drain: %q, %v", out, err)
	}
	if status, body := r.get(t, "/readyz"); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("/readyz after drain: %d %s", status, body)
	}
	if status, _ := r.get(t, "/health"); status != 200 {
		t.Errorf("/health after drain: %d", status)
	}
	if err := r.stop(); err != nil {
		t.Errorf("serve ends with %v", err)
	}
	if _, _, err := runCommand(t, "", r.environ, "drain"); err == nil {
		t.Error("drain reaches a proxy that has ended")
	}
	if strings.Contains(r.log.String(), "demo-key") {
		t.Error("the log holds a key")
	}
}

func TestKeysAreReloaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	write := func(secret string) {
		t.Helper()
		hash, _, err := runCommand(t, secret, nil, "keys", "hash")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("keys: [{name: a, sha256: "+strings.TrimSpace(hash)+"}]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	r := startProxy(t, "API_KEYS_FILE="+file, "RATE_LIMIT=off", "ENGINE_WAIT=0s")
	if status, _ := r.get(t, "/infer", "X-API-Key", "first"); status != 503 {
		t.Errorf("the first key: %d", status)
	}
	write("second!")
	await.Until(t, 10*time.Second, "the new key is accepted", func() bool {
		status, _ := r.get(t, "/infer", "X-API-Key", "second!")
		return status == 503
	})
	if status, _ := r.get(t, "/infer", "X-API-Key", "first"); status != 401 {
		t.Errorf("the key that was taken away: %d", status)
	}
}
