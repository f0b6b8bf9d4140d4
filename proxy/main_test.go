package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/scripts/await"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(proxyProgramEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m,
		// fasthttp's clock, one a process, and its sweeper of idle workers, which ends at its next tick.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// commandOutput is what a command has written; it may be read while the command runs.
type commandOutput struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *commandOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *commandOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// runCommand runs one command to its end.
func runCommand(t *testing.T, stdin string, environ []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems commandOutput
	err = run(t.Context(), invocation{args: args, environ: environ, stdin: strings.NewReader(stdin), stdout: &out, stderr: &problems})
	return out.String(), problems.String(), err
}

func TestCommandLine(t *testing.T) {
	if out, _, err := runCommand(t, "", nil, "--version"); err != nil || !strings.HasPrefix(out, "tandem-proxy 1.0.0 (revision ") {
		t.Errorf("--version: %q, %v", out, err)
	}
	if out, _, err := runCommand(t, "", nil, "licenses"); err != nil || !strings.Contains(out, "github.com/valyala/fasthttp@") || !strings.Contains(out, "uPlot") {
		t.Errorf("licenses: %d bytes, %v", len(out), err)
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"serve", "--help"}} {
		out, _, err := runCommand(t, "", nil, args...)
		for _, want := range []string{"check-config", "keys new NAME", "--port (PORT)", "RATE_LIMIT"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%v: no %s in the help, %v", args, want, err)
			}
		}
	}
	for _, args := range [][]string{{"bogus"}, {"keys"}, {"keys", "new"}, {"serve", "--bogus=1"}, {"test-monitoring", "extra"}, {"check-config", "--port=70000"}} {
		if _, _, err := runCommand(t, "", []string{"AUTH_DISABLED=true"}, args...); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}

// runningProxy is a proxy without an engine.
type runningProxy struct {
	url     string
	environ []string
	log     *commandOutput
	stop    func() error
}

func startProxy(t *testing.T, environ ...string) *runningProxy {
	t.Helper()
	r := &runningProxy{log: &commandOutput{}, environ: append([]string{"HOST=127.0.0.1", "PORT=0", "ENGINE_WAIT=100ms",
		"ENGINE_SOCKET=" + filepath.Join(t.TempDir(), "engine.sock")}, environ...)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, invocation{args: []string{"serve"}, environ: r.environ, stdin: strings.NewReader(""), stdout: io.Discard, stderr: r.log})
	}()
	stopped := sync.OnceValue(func() error { cancel(); return <-ended })
	r.stop = stopped
	t.Cleanup(func() { _ = stopped() })
	listening := regexp.MustCompile(`msg=listening address=(\S+)`)
	if !await.For(10*time.Second, func() bool { return listening.MatchString(r.log.String()) }) {
		t.Fatalf("the proxy doesn't listen:\n%s", r.log)
	}
	r.url = "http://" + listening.FindStringSubmatch(r.log.String())[1]
	return r
}

func (r *runningProxy) get(t *testing.T, path string, headers ...string) (int, string) {
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
