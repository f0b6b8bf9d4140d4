package prometheus

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tandem/scripts/launch"

	"github.com/alicebob/miniredis/v2"
)

const apiKey = "test-secret"

// scrapedService is a proxy with a supervised mock engine, and its clients. Prometheus scrapes it under a job of its
// own.
type scrapedService struct {
	t        *testing.T
	binaries binaries
	job      string
	dir      string
	address  string // host:port
	env      []string
	store    *miniredis.Miniredis // of the rate limits; nil without one
	proxy    *launch.Process
	engine   *launch.Process
	http     *http.Client

	clients sync.WaitGroup
	mu      sync.Mutex // guards answers
	answers map[string]int
}

func startScrapedService(t *testing.T, b binaries, address string, sc scenario) *scrapedService {
	t.Helper()
	dir, err := os.MkdirTemp("", "tnd") // short: a socket's path holds 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	s := &scrapedService{t: t, binaries: b, job: job + sc.name, dir: dir, address: address, answers: make(map[string]int)}
	s.env = append(launch.Environment("HOST="+host, "PORT="+port, "ENGINE_SOCKET="+filepath.Join(dir, "e.sock"), "API_KEYS=test:"+apiKey,
		"RATE_LIMIT=off", "MODELS_DIR="+filepath.Join(dir, "models"), "CACHE_DIR="+filepath.Join(b.logs, "cache"),
		"ENGINE_MOCK=true", "GOMEMLIMIT=200MiB", "API_KEYS_FILE="+s.keyFile()), sc.settings...)
	if sc.store {
		s.store = miniredis.RunT(t)
		s.env = append(s.env, "RATE_LIMIT_STORE=redis://"+s.store.Addr(), "RATE_LIMIT_STORE_TIMEOUT=1s")
	}
	if err := os.Mkdir(filepath.Join(dir, "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.keyFile(), []byte("keys: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(s.http.CloseIdleConnections)
	s.proxy = startProcess(t, b.logs, s.job+".proxy", b.proxy, s.env, "serve")
	s.startEngine()
	return s
}

func (s *scrapedService) keyFile() string { return filepath.Join(s.dir, "keys.yaml") }

func (s *scrapedService) startEngine() {
	s.engine = startProcess(s.t, s.binaries.logs, s.job+".engine", s.binaries.engine, s.env, "supervise")
}

func (s *scrapedService) ready() error {
	select {
	case <-s.proxy.Ended():
		return fmt.Errorf("%s: the proxy ended", s.job) // and another process answers on its port
	default:
	}
	resp, err := s.http.Get("http://" + s.address + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: /readyz says %d", s.job, resp.StatusCode)
	}
	return nil
}

// killEngine ends the engine process like a crash.
func (s *scrapedService) killEngine(ctx context.Context) error {
	return eventually(10*time.Second, 20*time.Millisecond, func() error {
		pid := s.engine.ChildPID()
		if pid == 0 {
			return fmt.Errorf("%s has no engine process", s.job)
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	})
}

// question is one request to the mock engine, which answers with the prompt.
type question struct {
	prompt, version, key string
	stream               bool
	trace                string // traceparent
}

// ask sends a request and returns its status line, or why there is none.
func (s *scrapedService) ask(ctx context.Context, q question) string {
	body := fmt.Sprintf(`{"prompt":%q,"base_model":"demo","adapter_version":%q,"max_new_tokens":32,"stream":%t}`, q.prompt, q.version, q.stream)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+"/infer", strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", q.key)
	if q.trace != "" {
		r.Header.Set("traceparent", q.trace)
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "cut off"
	}
	return resp.Status
}

// load says what clients do until they are stopped: ask, and pause.
type load struct {
	clients int
	pause   time.Duration
	ask     func(n int) question // n counts the questions of one client
}

func (s *scrapedService) startClients(ctx context.Context, l load) {
	for c := range l.clients {
		s.clients.Go(func() {
			wait := time.NewTimer(l.pause * time.Duration(c) / time.Duration(l.clients)) // not all at once
			defer wait.Stop()
			for n := c; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-wait.C:
				}
				s.countAnswer(s.ask(ctx, l.ask(n)))
				wait.Reset(l.pause)
			}
		})
	}
}

func (s *scrapedService) countAnswer(answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[answer]++
}

func (s *scrapedService) answerCounts() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.answers)
}
