package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs are built once for all tests, with the race detector when the tests have it.
var programs struct{ proxy, engine, cache string }

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "tandem-e2e")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	programs.proxy = filepath.Join(dir, "tandem-proxy")
	programs.engine = filepath.Join(dir, "tandem-engine")
	programs.cache = filepath.Join(dir, "cache")
	for program, source := range map[string]string{programs.proxy: "tandem/proxy", programs.engine: "tandem/engine"} {
		args := append([]string{"build", "-o", program}, buildFlags(strings.HasSuffix(source, "engine"))...)
		if out, err := exec.Command("go", append(args, source)...).CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build %s: %w\n%s", source, err, out)
		}
	}
	return m.Run(), nil
}

// buildFlags are those of a program under test.
func buildFlags(engine bool) (flags []string) {
	if raceDetector {
		flags = append(flags, "-race")
	}
	if engine && engineTags != "" {
		flags = append(flags, "-tags", engineTags)
	}
	return flags
}

// process is one program under test. Its output is shown when the test fails.
type process struct {
	name string
	cmd  *exec.Cmd
	log  lockedBuffer
	done chan struct{} // closed when it ended
	err  error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, name, program string, env []string, args ...string) *process {
	t.Helper()
	p := &process{name: name, done: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, tail(p.log.String(), 12_000))
		}
		if strings.Contains(p.log.String(), "DATA RACE") {
			t.Errorf("%s has a data race:\n%s", name, p.log.String())
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// stop asks the process to end and fails the test when it doesn't do so cleanly.
func (p *process) stop(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		return
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			t.Errorf("%s after SIGTERM: %v", p.name, p.err)
		}
	case <-time.After(30 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
		t.Errorf("%s didn't end within 30 s of SIGTERM", p.name)
	}
}

// stack is a proxy and a supervised engine.
type stack struct {
	t       *testing.T
	dir     string
	url     string
	key     string
	proxy   *process
	engine  *process
	env     []string
	clients *http.Client
}

// newStack starts both programs with settings added to the environment and waits until the server is ready.
func newStack(t *testing.T, settings ...string) *stack {
	t.Helper()
	s := prepareStack(t, settings...)
	s.startProxy()
	s.startEngine()
	s.waitReady(60 * time.Second)
	return s
}

func prepareStack(t *testing.T, settings ...string) *stack {
	t.Helper()
	dir := t.TempDir()
	socketDir, err := os.MkdirTemp("", "tnd") // a short path: sun_path holds 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socketDir) })
	port := freePort(t)
	s := &stack{t: t, dir: dir, key: "test-secret", url: "http://127.0.0.1:" + strconv.Itoa(port)}
	s.env = append(cleanEnvironment(),
		"HOST=127.0.0.1", "PORT="+strconv.Itoa(port),
		"ENGINE_SOCKET="+filepath.Join(socketDir, "engine.sock"),
		"API_KEYS=test:"+s.key, "RATE_LIMIT=off",
		"MODELS_DIR="+filepath.Join(dir, "models"),
		"CACHE_DIR="+programs.cache,
		"LOG_LEVEL=info")
	if err := os.MkdirAll(filepath.Join(dir, "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	if !realModel {
		s.env = append(s.env, "ENGINE_MOCK=true")
	}
	s.env = append(s.env, settings...)
	s.clients = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
	t.Cleanup(s.clients.CloseIdleConnections)
	return s
}

// cleanEnvironment keeps what programs need to run and nothing that configures ours.
func cleanEnvironment() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "BACKEND_DIR", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *stack) startProxy() { s.proxy = start(s.t, "proxy", programs.proxy, s.env, "serve") }
func (s *stack) startEngine() {
	s.engine = start(s.t, "engine", programs.engine, s.env, "supervise")
}

func (s *stack) waitReady(limit time.Duration) {
	s.t.Helper()
	s.waitFor(limit, "readiness", func() bool {
		status, _, err := s.get("/readyz")
		return err == nil && status == http.StatusOK
	})
}

// waitFor polls an endpoint-backed condition; the programs offer no event for it.
func (s *stack) waitFor(limit time.Duration, what string, ok func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-s.proxy.done:
			s.t.Fatalf("the proxy ended while waiting for %s: %v", what, s.proxy.err)
		case <-ctx.Done():
			s.t.Fatalf("no %s within %v", what, limit)
		}
	}
}

func (s *stack) get(path string) (int, string, error) {
	resp, err := s.clients.Get(s.url + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// answer is what POST /infer gave.
type answer struct {
	Status int
	Header http.Header
	Body   string

	Result   string `json:"result"`
	Metadata struct {
		Model          string  `json:"model"`
		Version        string  `json:"version"`
		Tokens         int     `json:"tokens_generated"`
		ResponseTime   float64 `json:"response_time"`
		GenerationTime float64 `json:"generation_time"`
		FinishReason   string  `json:"finish_reason"`
		PromptTokens   int     `json:"prompt_tokens"`
		Seed           uint64  `json:"seed"`
	} `json:"metadata"`
	Error struct {
		Type      string  `json:"type"`
		Message   string  `json:"message"`
		Param     *string `json:"param"`
		RequestID string  `json:"request_id"`
	} `json:"error"`
}

func (s *stack) request(ctx context.Context, body string, headers ...string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/infer", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", s.key)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	return r, nil
}

var errNotJSON = errors.New("the body is no JSON")
