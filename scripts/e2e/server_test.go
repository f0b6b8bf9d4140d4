package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tandem/scripts/await"
	"tandem/scripts/launch"
)

// failureLimit ends the wait for what doesn't come. It is long, since on a busy machine everything takes its time.
const failureLimit = 3 * time.Minute

// testServer is a proxy and a supervised engine.
type testServer struct {
	t      *testing.T
	dir    string
	url    string
	key    string
	proxy  *process
	engine *process
	env    []string
	client *http.Client
}

// startServer starts both programs with settings added to the environment and waits until the server is ready.
func startServer(t *testing.T, settings ...string) *testServer {
	t.Helper()
	s := newServer(t, settings...)
	s.startProxy()
	s.startEngine()
	s.waitReady(failureLimit)
	return s
}

// onceWithMock is for tests of what the engine has no part in: the proxy's own work, scripts, or an engine that is the
// mock anyway. They run with the mock engine; beside llama.cpp they would only take their time again. make chaos, which
// runs with one engine alone, has them with that one.
func onceWithMock(t *testing.T) {
	t.Helper()
	if withLlama && os.Getenv("CHAOS_KILLS") == "" {
		t.Skip("the run with the mock engine has it")
	}
}

// newServer prepares directories and settings and starts nothing.
func newServer(t *testing.T, settings ...string) *testServer {
	t.Helper()
	dir := t.TempDir()
	socketDir, err := os.MkdirTemp("", "tnd") // a short path: sun_path holds 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socketDir) })
	port := launch.FreePort(t)
	s := &testServer{t: t, dir: dir, key: "test-secret", url: "http://127.0.0.1:" + strconv.Itoa(port)}
	s.env = launch.Environment(
		"HOST=127.0.0.1", "PORT="+strconv.Itoa(port),
		"ENGINE_SOCKET="+filepath.Join(socketDir, "engine.sock"),
		"API_KEYS=test:"+s.key, "RATE_LIMIT=off",
		"MODELS_DIR="+filepath.Join(dir, "models"),
		"CACHE_DIR="+binaries.cache,
		"ENGINE_WAIT=60s", // an engine that was killed may need more than the default until it is back
		"LOG_LEVEL=info")
	if err := os.MkdirAll(filepath.Join(dir, "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	if !withLlama {
		s.env = append(s.env, "ENGINE_MOCK=true")
	}
	s.env = append(s.env, settings...)
	s.client = &http.Client{Timeout: failureLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

func (s *testServer) startProxy() {
	s.proxy = startProcess(s.t, "proxy", binaries.proxy, s.env, "serve")
}
func (s *testServer) startEngine() {
	s.engine = startProcess(s.t, "engine", binaries.engine, s.env, "supervise")
}

func (s *testServer) waitReady(limit time.Duration) {
	s.t.Helper()
	s.waitFor(limit, "readiness", func() bool {
		status, _, err := s.get("/readyz")
		return err == nil && status == http.StatusOK
	})
}

// waitFor polls until ok returns true. It fails the test when that takes too long or the proxy ends meanwhile.
func (s *testServer) waitFor(within time.Duration, what string, ok func() bool) {
	s.t.Helper()
	done := func() bool {
		if ok() {
			return true
		}
		select {
		case <-s.proxy.Ended():
			s.t.Fatalf("the proxy ended while waiting for %s: %v", what, s.proxy.Err())
		default:
		}
		return false
	}
	if !await.Every(20*time.Millisecond, within, done) {
		s.t.Fatalf("no %s within %v", what, within)
	}
}

// waitProxyAnswers waits until the proxy serves HTTP, whether or not there is an engine.
func (s *testServer) waitProxyAnswers() {
	s.t.Helper()
	s.waitFor(failureLimit, "a proxy", func() bool {
		status, _, err := s.get("/livez")
		return err == nil && status == http.StatusOK
	})
}
