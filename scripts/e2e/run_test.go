package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// launch starts scripts/run.sh, as make run does, and waits until it has printed what to try.
func launch(t *testing.T, env ...string) *process {
	t.Helper()
	env = append(append(cleanEnvironment(), "ENGINE="+programs.engine, "PROXY="+programs.proxy, "CACHE_DIR="+programs.cache), env...)
	if !realModel {
		env = append(env, "ENGINE_MOCK=true")
	}
	p := start(t, "run.sh", filepath.Join("..", "run.sh"), env)
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !regexp.MustCompile(`(?s)Tandem is ready.*/models\n.*\n\n`).MatchString(p.log.String()) {
		select {
		case <-tick.C:
		case <-p.done:
			t.Fatalf("run.sh ended: %v\n%s", p.err, p.log.String())
		case <-deadline.C:
			t.Fatalf("run.sh isn't ready:\n%s", p.log.String())
		}
	}
	return p
}

// printed are the curl lines among the output, each in one line.
func printed(p *process) []string {
	joined := strings.ReplaceAll(p.log.String(), " \\\n", " ")
	var lines []string
	for _, m := range regexp.MustCompile(`(?m)^  (curl .*)$`).FindAllStringSubmatch(joined, -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// paste does what a printed curl line says.
func paste(t *testing.T, line string) (*http.Response, string) {
	t.Helper()
	url := strings.Fields(line)[1]
	method, body := http.MethodGet, ""
	if m := regexp.MustCompile(`-d '([^']*)'`).FindStringSubmatch(line); m != nil {
		method, body = http.MethodPost, m[1]
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for _, m := range regexp.MustCompile(`-H '([^:']+): ([^']*)'`).FindAllStringSubmatch(line, -1) {
		r.Header.Set(m[1], m[2])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return resp, string(raw)
}

// pasteAll wants every printed line to be answered, and gives the headers of the answered question.
func pasteAll(t *testing.T, p *process) (header http.Header) {
	t.Helper()
	lines := printed(p)
	if len(lines) < 4 {
		t.Fatalf("printed lines: %q", lines)
	}
	for _, line := range lines {
		resp, body := paste(t, line)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", line, resp.StatusCode, tail(body, 300))
		}
		if strings.Contains(line, "/infer") {
			header = resp.Header
		}
	}
	return header
}

func TestRunPrintsLinesThatWork(t *testing.T) {
	port := freePort(t)
	p := launch(t, fmt.Sprintf("PORT=%d", port), "MODELS_DIR="+t.TempDir())
	header := pasteAll(t, p)
	if header.Get("X-Ratelimit-Limit-Requests") != "120" {
		t.Errorf("the limit is %q a minute", header.Get("X-Ratelimit-Limit-Requests"))
	}
	checkPageLine(t, p, port)
	documented := fmt.Sprintf(`curl http://127.0.0.1:%d/infer -H 'Content-Type: application/json' -H 'X-API-Key: demo-key' -d '{"prompt":"What is the capital of France?","max_new_tokens":32,"adapter_version":"v1.0","base_model":"demo"}'`, port)
	if got := strings.Join(strings.Fields(printed(p)[0]), " "); got != documented {
		t.Errorf("the first line is\n%s\nwant\n%s", got, documented)
	}
}

// checkPageLine wants the page's address before anything else that there is to try, and it to be what the line says.
func checkPageLine(t *testing.T, p *process, port int) {
	t.Helper()
	_, said, _ := strings.Cut(p.log.String(), "Try:\n\n")
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	if !strings.HasPrefix(line, url) {
		t.Fatalf("the first line to try is %q, not the page's", line)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	isPage := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")
	if isPage != strings.Contains(line, "in a browser") || isPage == strings.Contains(line, "a plain table") {
		t.Errorf("%q, and / is %s", line, resp.Header.Get("Content-Type"))
	}
}

// What a configuration file sets goes over what run.sh would choose, and the lines are about what is installed.
func TestRunTakesTheConfigurationFile(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	packed, err := os.ReadFile(filepath.Join("..", "..", "engine", "demo", "demo-q8_0.gguf.xz"))
	if err != nil {
		t.Fatal(err)
	}
	model, config := filepath.Join(dir, "models", "acme", "facts", "model.gguf.xz"), filepath.Join(dir, "config.yaml")
	if err := os.MkdirAll(filepath.Dir(model), 0o755); err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("server:\n  port: %d\nmonitoring:\n  metrics_path: /figures\nmodels:\n  dir: %s\nsecurity:\n  rate_limit: 7/minute\n  api_key_header: X-Token\n",
		port, filepath.Join(dir, "models"))
	for name, content := range map[string][]byte{model: packed, config: []byte(settings)} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rested := time.Now().Add(-time.Minute)
	if err := os.Chtimes(model, rested, rested); err != nil {
		t.Fatal(err)
	}
	p := launch(t, "CONFIG_FILE="+config)
	header := pasteAll(t, p)
	if header.Get("X-Ratelimit-Limit-Requests") != "7" {
		t.Errorf("the limit is %q a minute", header.Get("X-Ratelimit-Limit-Requests"))
	}
	all := strings.Join(printed(p), "\n")
	for _, want := range []string{fmt.Sprintf("127.0.0.1:%d/infer", port), "X-Token: demo-key", `"base_model":"acme/facts"`, "/figures"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
}

// A server that runs already isn't taken for the new one.
func TestRunTellsThatThePortIsTaken(t *testing.T) {
	other := newStack(t)
	port := strings.TrimPrefix(other.url, "http://127.0.0.1:")
	p := start(t, "run.sh", filepath.Join("..", "run.sh"), append(cleanEnvironment(), "ENGINE="+programs.engine, "PROXY="+programs.proxy, "ENGINE_MOCK=true", "PORT="+port))
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatal("run.sh goes on")
	}
	if log := p.log.String(); p.err == nil || strings.Contains(log, "is ready") || !strings.Contains(log, "127.0.0.1:"+port+" already") {
		t.Errorf("%v\n%s", p.err, log)
	}
}

// A mistake in the settings ends it at once, and is told.
func TestRunTellsWhatIsWrong(t *testing.T) {
	for setting, want := range map[string]string{"RATE_LIMIT=often": "RATE_LIMIT", "MODEL=giant": "no model giant; there are: smollm2"} {
		p := start(t, "run.sh", filepath.Join("..", "run.sh"), append(cleanEnvironment(), "ENGINE="+programs.engine, "PROXY="+programs.proxy, setting))
		select {
		case <-p.done:
		case <-time.After(30 * time.Second):
			t.Fatal("run.sh goes on")
		}
		if log := p.log.String(); p.err == nil || !strings.Contains(log, want) || strings.Contains(log, "API_KEYS_FILE") {
			t.Errorf("%s: %v\n%s", setting, p.err, log)
		}
	}
}
