package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTestMonitoring(t *testing.T) {
	r := startProxy(t, "API_KEYS=demo:demo-key")
	out, _, err := runCommand(t, "", nil, "test-monitoring", "--url="+r.url, "--key=wrong")
	if err != nil || !strings.Contains(out, "all checks passed") || !strings.Contains(out, "skip  numbers of the inference") {
		t.Errorf("against a good server: %v\n%s", err, out)
	}
	out, _, err = runCommand(t, "", nil, "test-monitoring", "--url="+r.url, "--key=demo-key")
	if err == nil || !strings.Contains(out, "FAIL  one inference is answered: status 503") {
		t.Errorf("against a server without an engine: %v\n%s", err, out)
	}
}

func TestTestMonitoringFollowsTheMetrics(t *testing.T) {
	r := startProxy(t, "AUTH_DISABLED=true", "PROMETHEUS_ENABLED=false")
	out, _, err := runCommand(t, "", nil, "test-monitoring", "--url="+r.url)
	if err != nil || !strings.Contains(out, "/prometheus is off, as /status says") {
		t.Errorf("with the metrics off: %v\n%s", err, out)
	}
	for address, want := range map[string]string{"": "", "127.0.0.1:9100": "http://127.0.0.1:9100", ":9100": "http://127.0.0.1:9100", "[::]:9100": "http://127.0.0.1:9100"} {
		if got := metricsURL(address); got != want {
			t.Errorf("METRICS_ADDR=%s: %s, want %s", address, got, want)
		}
	}
}

// Without --url the server and its metrics page are found by the settings, those of the file included.
func TestTestMonitoringFindsTheServerByItsSettings(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("server: {port: %d}\nmonitoring: {metrics_path: /figures}\nsecurity: {auth_disabled: true}\n", port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startProxy(t, "CONFIG_FILE="+file, fmt.Sprintf("PORT=%d", port))
	out, _, err := runCommand(t, "", []string{"CONFIG_FILE=" + file}, "test-monitoring")
	if err == nil || !strings.Contains(out, "ok    /figures can be read") || !strings.Contains(out, "FAIL  one inference is answered: status 503") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, _, err := runCommand(t, "", []string{"CONFIG_FILE=" + file}, "top", "--once"); err != nil || !strings.Contains(out, "engine DOWN") {
		t.Errorf("top: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"test-monitoring"}, {"top", "--once"}} {
		if _, _, err := runCommand(t, "", []string{"PORT=many"}, args...); err == nil || !strings.Contains(err.Error(), "must be a whole number") {
			t.Errorf("%v with a mistake in the settings: %v", args, err)
		}
	}
}

// What the checks are for: a server that answers, but not what is documented.
func TestTestMonitoringFindsMistakes(t *testing.T) {
	pages := map[string]string{
		"/livez": `{"status":"ok"}`, "/readyz": `{"status":"ok"}`,
		"/health":     `{"status":"fine","timestamp":1}`,
		"/status":     `{"service":"LLM Inference API","version":"1.0.0","status":"healthy","timestamp":1,"prometheus_available":true,"cached_models":2,"device":"cpu","cached_model_info":[]}`,
		"/models":     `{"models":[{"base_model":"x","versions":[]}]}`,
		"/prometheus": "# TYPE api_requests_total gauge\napi_requests_total{endpoint=\"/health\"} 1\n",
	}
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "x")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, pages[r.URL.Path])
	}))
	defer bad.Close()
	out, _, err := runCommand(t, "", nil, "test-monitoring", "--url="+bad.URL)
	if err == nil {
		t.Fatalf("a bad server passes:\n%s", out)
	}
	for _, want := range []string{`status "fine"`, "cached_models is 2, but the list has 0", "an entry lacks something", "api_requests_total is a gauge", "tokens_generated_total is missing",
		"FAIL  errors are JSON", "FAIL  /metrics/router", "FAIL  /health was counted", "FAIL  one inference"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, _, err := runCommand(t, "", nil, "test-monitoring", "--url=http://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no server answers") {
		t.Errorf("without a server: %v", err)
	}
}
