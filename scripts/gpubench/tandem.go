package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tandem/scripts/launch"
)

const (
	apiKey    = "bench-key"
	stopLimit = 10 * time.Second
	pollEvery = 20 * time.Millisecond
)

// server is our two programs at work.
type server struct {
	url           string
	dir           string // of the socket: a short path
	proxy, engine *launch.Process
	log           *launch.Log
	client        *http.Client
	started       time.Duration // what the start took
}

// environment is what the programs get beside their settings: where things are, and which card.
func environment(settings ...string) []string {
	env := launch.Environment()
	for _, pair := range os.Environ() {
		for _, prefix := range []string{"CUDA_", "NVIDIA_", "GGML_", "TESTGPU_"} {
			if strings.HasPrefix(pair, prefix) {
				env = append(env, pair)
			}
		}
	}
	return append(env, settings...)
}

// start starts both programs and waits until they serve. Later settings go over earlier ones.
func (b *bench) start(ctx context.Context, settings ...string) (*server, error) {
	ports, err := launch.FreePorts(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tnd")
	if err != nil {
		return nil, err
	}
	s := &server{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), dir: dir, log: &launch.Log{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	env := environment(append([]string{"HOST=127.0.0.1", fmt.Sprintf("PORT=%d", ports[0]), "API_KEYS=bench:" + apiKey, "RATE_LIMIT=off",
		"ENGINE_SOCKET=" + filepath.Join(dir, "engine.sock"), "CACHE_DIR=" + filepath.Join(b.out, "cache"), "DEVICE=" + b.device,
		"MODELS_DIR=" + filepath.Join(b.out, "none"), "REQUEST_TIMEOUT=120s", "CACHE_SIZE=16"}, settings...)...)
	fmt.Fprintf(os.Stderr, "---- %s\n", strings.Join(settings, " "))
	output := io.MultiWriter(os.Stderr, s.log)
	began := time.Now()
	if s.proxy, err = launch.Start("proxy", filepath.Join(b.programs, "tandem-proxy"), env, output, "serve"); err != nil {
		return nil, err
	}
	if s.engine, err = launch.Start("engine", filepath.Join(b.programs, "tandem-engine"), env, output, "supervise"); err != nil {
		s.stop()
		return nil, err
	}
	if err := s.waitReady(ctx); err != nil {
		s.stop()
		return nil, err
	}
	s.started = time.Since(began)
	return s, nil
}

func (s *server) stop() {
	_ = s.proxy.Stop(stopLimit) // how they end is of no interest here
	if s.engine != nil {
		_ = s.engine.Stop(stopLimit)
	}
	_ = os.RemoveAll(s.dir)
}

func (s *server) waitReady(ctx context.Context) error {
	err := poll(ctx, func() (bool, error) {
		select {
		case <-s.engine.Ended():
			return false, fmt.Errorf("the engine ended: %s", s.lastError())
		case <-s.proxy.Ended():
			return false, fmt.Errorf("the proxy ended: %s", s.lastError())
		default:
		}
		return isOK(ctx, s.client, s.url+"/readyz"), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the server isn't ready: %w; %s", err, s.lastError())
	}
	return err
}

// lastError is the last line of the log that tells of something wrong.
func (s *server) lastError() string {
	last := "its log says nothing"
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
			last = strings.TrimSpace(line)
		}
	}
	return last
}

// poll asks until the answer is yes or an error.
func poll(ctx context.Context, ask func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func isOK(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	reply, err := client.Do(request)
	if err != nil {
		return false
	}
	reply.Body.Close()
	return reply.StatusCode == http.StatusOK
}

// get reads a page.
func (s *server) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, err
	}
	return s.do(request)
}

// post sends a body and decodes the reply.
func (s *server) post(ctx context.Context, path string, body, reply any) error {
	request, err := newRequest(s.url+path, body)
	if err != nil {
		return err
	}
	raw, err := s.do(request.WithContext(ctx))
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, reply)
}

func newRequest(url string, body any) (*http.Request, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-API-Key", apiKey)
	return request, nil
}

func (s *server) do(request *http.Request) ([]byte, error) {
	const most = 16 << 20
	reply, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(reply.Body, most))
	if err == nil && reply.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", request.URL.Path, reply.StatusCode, raw[:min(len(raw), 500)])
	}
	return raw, err
}

// status is what /status says of devices and memory.
type status struct {
	Device   string
	Backends []struct {
		Name    string
		Problem string
		Devices []struct {
			Name        string
			Description string
			Total       float64 `json:"memory_total"`
			Free        float64 `json:"memory_free"` // when the engine started
		}
	}
	Memory []struct {
		Model   string `json:"base_model"`
		Cells   int    `json:"kv_cells"`
		Limit   string `json:"kv_cells_limit"`
		Devices []struct {
			Name    string
			Weights float64
			Cache   float64 `json:"kv_cache"`
			Compute float64
		}
	} `json:"model_memory"`
}

func (s *server) status(ctx context.Context) (status, error) {
	var v status
	raw, err := s.get(ctx, "/status")
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	return v, err
}

// metrics reads the metrics page; look finds a sample by its name and a label in it, NaN where there is none.
func (s *server) metrics(ctx context.Context) (page string, err error) {
	raw, err := s.get(ctx, "/prometheus")
	return string(raw), err
}

func look(page, name, label string) float64 {
	for line := range strings.Lines(page) {
		rest, ok := strings.CutPrefix(line, name+"{")
		at := strings.LastIndexByte(rest, ' ')
		if !ok || at < 0 || !strings.Contains(rest[:at], label) {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(rest[at:]), 64); err == nil {
			return v
		}
	}
	return math.NaN()
}

// knows reports whether the engine has a setting.
func (b *bench) knows(ctx context.Context, setting string) (bool, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.programs, "tandem-engine"), "check-config")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return false, fmt.Errorf("ask the engine for its settings: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(line, " "); name == setting {
			return true, nil
		}
	}
	return false, nil
}
