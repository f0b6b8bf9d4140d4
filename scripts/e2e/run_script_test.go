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

	"tandem/scripts/await"
	"tandem/scripts/launch"
)

// startRunScript starts scripts/run.sh, as make run does, and waits until it has printed what to try.
func startRunScript(t *testing.T, env ...string) *process {
	t.Helper()
	env = append(launch.Environment("ENGINE="+binaries.engine, "PROXY="+binaries.proxy, "CACHE_DIR="+binaries.cache), env...)
	if !withLlama {
		env = append(env, "ENGINE_MOCK=true")
	}
	p := startProcess(t, "run.sh", filepath.Join("..", "run.sh"), env)
	ready := regexp.MustCompile(`(?s)Tandem is ready.*/models\n.*\n\n`)
	await.Until(t, failureLimit, "run.sh prints what to try", func() bool {
		select {
		case <-p.Ended():
			t.Fatalf("run.sh ended: %v\n%s", p.Err(), p.log.String())
		default:
		}
		return ready.MatchString(p.log.String())
	})
	return p
}

// printedCommands returns the curl commands in the output, each joined to one line.
func printedCommands(p *process) []string {
	joined := strings.ReplaceAll(p.log.String(), " \\\n", " ")
	var lines []string
	for _, m := range regexp.MustCompile(`(?m)^  (curl .*)$`).FindAllStringSubmatch(joined, -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// runCurl sends the request of a printed curl command.
func runCurl(t *testing.T, line string) (*http.Response, string) {
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

// checkPrintedCommands asserts that every printed command is answered and returns the header of the answer of /infer.
func checkPrintedCommands(t *testing.T, p *process) (header http.Header) {
	t.Helper()
	lines := printedCommands(p)
	if len(lines) < 4 {
		t.Fatalf("printed lines: %q", lines)
	}
	for _, line := range lines {
		resp, body := runCurl(t, line)
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
	port := launch.FreePort(t)
	p := startRunScript(t, fmt.Sprintf("PORT=%d", port), "MODELS_DIR="+t.TempDir())
	header := checkPrintedCommands(t, p)
	if header.Get("X-Ratelimit-Limit-Requests") != "120" {
		t.Errorf("the limit is %q a minute", header.Get("X-Ratelimit-Limit-Requests"))
	}
	checkPrintedPageURL(t, p, port)
	documented := fmt.Sprintf(`curl http://127.0.0.1:%d/infer -H 'Content-Type: application/json' -H 'X-API-Key: demo-key' -d '{"prompt":"What is the capital of France?","max_new_tokens":32,"adapter_version":"v1.0","base_model":"demo"}'`, port)
	if got := strings.Join(strings.Fields(printedCommands(p)[0]), " "); got != documented {
		t.Errorf("the first line is\n%s\nwant\n%s", got, documented)
	}
}

// checkPrintedPageURL asserts that the first line to try is the page's address, and that it says truly whether that is
// the live page or a plain table.
func checkPrintedPageURL(t *testing.T, p *process, port int) {
	t.Helper()
	_, toTry, _ := strings.Cut(p.log.String(), "Try:\n\n")
	line, _, _ := strings.Cut(strings.TrimSpace(toTry), "\n")
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

// A configuration file takes precedence over what run.sh would choose, and the commands name the installed model.
func TestRunTakesTheConfigurationFile(t *testing.T) {
	dir, port := t.TempDir(), launch.FreePort(t)
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
	modified := time.Now().Add(-time.Minute)
	if err := os.Chtimes(model, modified, modified); err != nil {
		t.Fatal(err)
	}
	p := startRunScript(t, "CONFIG_FILE="+config)
	header := checkPrintedCommands(t, p)
	if header.Get("X-Ratelimit-Limit-Requests") != "7" {
		t.Errorf("the limit is %q a minute", header.Get("X-Ratelimit-Limit-Requests"))
	}
	all := strings.Join(printedCommands(p), "\n")
	for _, want := range []string{fmt.Sprintf("127.0.0.1:%d/infer", port), "X-Token: demo-key", `"base_model":"acme/facts"`, "/figures"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
}

// A server that already runs isn't taken for the new one.
func TestRunTellsThatThePortIsTaken(t *testing.T) {
	onceWithMock(t)
	other := startServer(t)
	port := strings.TrimPrefix(other.url, "http://127.0.0.1:")
	p := startProcess(t, "run.sh", filepath.Join("..", "run.sh"), launch.Environment("ENGINE="+binaries.engine, "PROXY="+binaries.proxy, "ENGINE_MOCK=true", "PORT="+port))
	p.waitEnd(t, failureLimit)
	if log := p.log.String(); p.Err() == nil || strings.Contains(log, "is ready") || !strings.Contains(log, "127.0.0.1:"+port+" already") {
		t.Errorf("%v\n%s", p.Err(), log)
	}
}

// A mistake in the settings ends the script at once, with a message.
func TestRunTellsWhatIsWrong(t *testing.T) {
	onceWithMock(t)
	for setting, want := range map[string]string{"RATE_LIMIT=often": "RATE_LIMIT", "MODEL=giant": "no model giant; there are: smollm2"} {
		p := startProcess(t, "run.sh", filepath.Join("..", "run.sh"), launch.Environment("ENGINE="+binaries.engine, "PROXY="+binaries.proxy, setting))
		p.waitEnd(t, failureLimit)
		if log := p.log.String(); p.Err() == nil || !strings.Contains(log, want) || strings.Contains(log, "API_KEYS_FILE") {
			t.Errorf("%s: %v\n%s", setting, p.Err(), log)
		}
	}
}
