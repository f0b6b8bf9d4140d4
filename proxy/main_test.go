package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's clock, one a process, and its sweeper of idle workers, which ends at its next tick.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// output is what a command wrote; it may be read meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// command runs one command to its end.
func command(t *testing.T, stdin string, environ []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems output
	err = run(t.Context(), program{args: args, environ: environ, stdin: strings.NewReader(stdin), stdout: &out, stderr: &problems})
	return out.String(), problems.String(), err
}

func TestCommandLine(t *testing.T) {
	if out, _, err := command(t, "", nil, "--version"); err != nil || !strings.HasPrefix(out, "tandem-proxy 1.0.0 (revision ") {
		t.Errorf("--version: %q, %v", out, err)
	}
	if out, _, err := command(t, "", nil, "licenses"); err != nil || !strings.Contains(out, "github.com/valyala/fasthttp@") || !strings.Contains(out, "uPlot") {
		t.Errorf("licenses: %d bytes, %v", len(out), err)
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"serve", "--help"}} {
		out, _, err := command(t, "", nil, args...)
		for _, want := range []string{"check-config", "keys new NAME", "--port (PORT)", "RATE_LIMIT"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%v: no %s in the help, %v", args, want, err)
			}
		}
	}
	for _, args := range [][]string{{"bogus"}, {"keys"}, {"keys", "new"}, {"serve", "--bogus=1"}, {"test-monitoring", "extra"}, {"check-config", "--port=70000"}} {
		if _, _, err := command(t, "", []string{"AUTH_DISABLED=true"}, args...); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}

func TestServeNeedsKeys(t *testing.T) {
	_, _, err := command(t, "", nil, "serve")
	for _, want := range []string{"API_KEYS_FILE", "keys new", "AUTH_DISABLED=true"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal doesn't name %s: %v", want, err)
		}
	}
}

func TestKeysCommandsFitTogether(t *testing.T) {
	entry, shown, err := command(t, "", nil, "keys", "new", "alice")
	if err != nil {
		t.Fatal(err)
	}
	secret, _, _ := strings.Cut(shown, "\n")
	hash, _, err := command(t, secret+"\n", nil, "keys", "hash")
	if err != nil || !strings.Contains(entry, strings.TrimSpace(hash)) {
		t.Errorf("the entry %q doesn't hold the hash %q of the secret, %v", entry, hash, err)
	}
	file := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(file, []byte("keys:\n"+entry), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := command(t, "", []string{"API_KEYS_FILE=" + file, "PORT=9000"}, "check-config", "--rate-limit=off")
	if err != nil || !strings.Contains(out, "1 API keys") || !regexp.MustCompile(`(?m)^PORT +9000 +variable$`).MatchString(out) ||
		!regexp.MustCompile(`(?m)^RATE_LIMIT +off +flag$`).MatchString(out) {
		t.Errorf("check-config: %v\n%s", err, out)
	}
	if err := os.WriteFile(file, []byte("keys: [{name: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := command(t, "", []string{"API_KEYS_FILE=" + file}, "check-config"); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("a key file with a mistake: %v", err)
	}
}

// running is a proxy without an engine.
type running struct {
	url     string
	environ []string
	log     *output
	stop    func() error
}

func startProxy(t *testing.T, environ ...string) *running {
	t.Helper()
	r := &running{log: &output{}, environ: append([]string{"HOST=127.0.0.1", "PORT=0", "ENGINE_WAIT=100ms",
		"ENGINE_SOCKET=" + filepath.Join(t.TempDir(), "engine.sock")}, environ...)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, program{args: []string{"serve"}, environ: r.environ, stdin: strings.NewReader(""), stdout: io.Discard, stderr: r.log})
	}()
	stopped := sync.OnceValue(func() error { cancel(); return <-ended })
	r.stop = stopped
	t.Cleanup(func() { _ = stopped() })
	listening := regexp.MustCompile(`msg=listening address=(\S+)`)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if found := listening.FindStringSubmatch(r.log.String()); found != nil {
			r.url = "http://" + found[1]
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("the proxy doesn't listen:\n%s", r.log)
		}
	}
}

func (r *running) get(t *testing.T, path string, headers ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequest("GET", r.url+path, nil)
	if path == "/infer" {
		request, err = http.NewRequest("POST", r.url+path, strings.NewReader(`{"prompt":"x"}`))
	}
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestSecondProxyDoesNotStart(t *testing.T) {
	r := startProxy(t, "AUTH_DISABLED=true")
	socket := strings.TrimPrefix(r.environ[3], "ENGINE_SOCKET=")
	beside := filepath.Join(filepath.Dir(socket), "other.sock") // whose admin socket would be the same
	for _, second := range []string{socket, beside} {
		_, _, err := command(t, "", append(r.environ, "ENGINE_SOCKET="+second), "serve")
		if err == nil || !strings.Contains(err.Error(), filepath.Dir(socket)) || !strings.Contains(err.Error(), "ENGINE_SOCKET") {
			t.Errorf("a second proxy on %s: %v", second, err)
		}
	}
	if out, _, err := command(t, "", r.environ, "drain"); err != nil || !strings.Contains(out, "draining") {
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
	if out, _, err := command(t, "", r.environ, "drain"); err != nil || !strings.Contains(out, "draining") {
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
	if _, _, err := command(t, "", r.environ, "drain"); err == nil {
		t.Error("drain reaches a proxy that has ended")
	}
	if strings.Contains(r.log.String(), "demo-key") {
		t.Error("the log holds a key")
	}
}

func TestTestMonitoring(t *testing.T) {
	r := startProxy(t, "API_KEYS=demo:demo-key")
	out, _, err := command(t, "", nil, "test-monitoring", "--url="+r.url, "--key=wrong")
	if err != nil || !strings.Contains(out, "all checks passed") || !strings.Contains(out, "skip  numbers of the inference") {
		t.Errorf("against a good server: %v\n%s", err, out)
	}
	out, _, err = command(t, "", nil, "test-monitoring", "--url="+r.url, "--key=demo-key")
	if err == nil || !strings.Contains(out, "FAIL  one inference is answered: status 503") {
		t.Errorf("against a server without an engine: %v\n%s", err, out)
	}
}

func TestTestMonitoringFollowsTheMetrics(t *testing.T) {
	r := startProxy(t, "AUTH_DISABLED=true", "PROMETHEUS_ENABLED=false")
	out, _, err := command(t, "", nil, "test-monitoring", "--url="+r.url)
	if err != nil || !strings.Contains(out, "/prometheus is off, as /status says") {
		t.Errorf("with the metrics off: %v\n%s", err, out)
	}
	for address, want := range map[string]string{"": "", "127.0.0.1:9100": "http://127.0.0.1:9100", ":9100": "http://127.0.0.1:9100", "[::]:9100": "http://127.0.0.1:9100"} {
		if got := metricsURL(address); got != want {
			t.Errorf("METRICS_ADDR=%s: %s, want %s", address, got, want)
		}
	}
}

// Without --url the server is looked for where the settings say, those of the file too, and so is its metrics page.
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
	out, _, err := command(t, "", []string{"CONFIG_FILE=" + file}, "test-monitoring")
	if err == nil || !strings.Contains(out, "ok    /figures can be read") || !strings.Contains(out, "FAIL  one inference is answered: status 503") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, _, err := command(t, "", []string{"CONFIG_FILE=" + file}, "top", "--once"); err != nil || !strings.Contains(out, "engine DOWN") {
		t.Errorf("top: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"test-monitoring"}, {"top", "--once"}} {
		if _, _, err := command(t, "", []string{"PORT=many"}, args...); err == nil || !strings.Contains(err.Error(), "must be a whole number") {
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
	out, _, err := command(t, "", nil, "test-monitoring", "--url="+bad.URL)
	if err == nil {
		t.Fatalf("a bad server passes:\n%s", out)
	}
	for _, want := range []string{`status "fine"`, "cached_models is 2, but the list has 0", "an entry lacks something", "api_requests_total is a gauge", "tokens_generated_total is missing",
		"FAIL  errors are JSON", "FAIL  /metrics/router", "FAIL  /health was counted", "FAIL  one inference"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, _, err := command(t, "", nil, "test-monitoring", "--url=http://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no server answers") {
		t.Errorf("without a server: %v", err)
	}
}

func TestKeysAreReloaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	write := func(secret string) {
		t.Helper()
		hash, _, err := command(t, secret, nil, "keys", "hash")
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
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, _ := r.get(t, "/infer", "X-API-Key", "second!"); status == 503 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new key isn't taken")
		}
	}
	if status, _ := r.get(t, "/infer", "X-API-Key", "first"); status != 401 {
		t.Errorf("the key that was taken away: %d", status)
	}
}
