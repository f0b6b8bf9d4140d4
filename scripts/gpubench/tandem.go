package main

import (
	"bytes"
	"context"
	"encoding/json"
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
	proxyLog      *launch.Log
	engineLog     *launch.Log
	leave         func() bool // ends the watch over the part's time
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
	s := &server{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), dir: dir, proxyLog: &launch.Log{}, engineLog: &launch.Log{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	env := environment(append([]string{"HOST=127.0.0.1", fmt.Sprintf("PORT=%d", ports[0]), "API_KEYS=bench:" + apiKey, "RATE_LIMIT=off",
		"ENGINE_SOCKET=" + filepath.Join(dir, "engine.sock"), "CACHE_DIR=" + filepath.Join(b.out, "cache"), "DEVICE=" + b.device,
		"MODELS_DIR=" + filepath.Join(b.out, "none"), "REQUEST_TIMEOUT=120s", "CACHE_SIZE=16"}, settings...)...)
	fmt.Fprintf(os.Stderr, "---- %s\n", strings.Join(settings, " "))
	began := time.Now()
	if s.proxy, err = launch.Start("proxy", filepath.Join(b.programs, "tandem-proxy"), env, io.MultiWriter(os.Stderr, s.proxyLog), "serve"); err != nil {
		return nil, err
	}
	s.leave = killAfter(ctx, s.proxy)
	if s.engine, err = launch.Start("engine", filepath.Join(b.programs, "tandem-engine"), env, io.MultiWriter(os.Stderr, s.engineLog), "supervise"); err != nil {
		s.stop()
		return nil, err
	}
	s.leave()
	s.leave = killAfter(ctx, s.proxy, s.engine)
	if err := s.waitReady(ctx); err != nil {
		s.stop()
		return nil, err
	}
	s.started = time.Since(began)
	return s, nil
}

// killAfter kills processes when the part's time is over, which leaves none to wait for them, until leave is called.
func killAfter(ctx context.Context, processes ...*launch.Process) (leave func() bool) {
	return context.AfterFunc(ctx, func() {
		for _, p := range processes {
			p.Kill()
		}
	})
}

func (s *server) stop() {
	s.leave()
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
			return false, fmt.Errorf("the engine ended: %s", complaints(s.engineLog.String()))
		case <-s.proxy.Ended():
			return false, fmt.Errorf("the proxy ended: %s", complaints(s.proxyLog.String()))
		default:
		}
		return isOK(ctx, s.client, s.url+"/readyz"), nil
	})
	if ctx.Err() != nil { // then they were killed, which isn't the reason
		return fmt.Errorf("the server isn't ready: %s", complaints(s.engineLog.String()))
	}
	return err
}

// complaints are the last lines of a log that tell of something wrong; of a program that didn't come so far as to log,
// its last lines.
func complaints(log string) string {
	const most, longest = 4, 400
	var wrong, all []string
	for line := range strings.Lines(log) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		line = line[:min(len(line), longest)]
		all = append(all, line)
		logged := strings.Contains(line, "level=")
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") || !logged && strings.Contains(line, "error") {
			wrong = append(wrong, line)
		}
	}
	if wrong == nil {
		wrong = all
	}
	if wrong == nil {
		return "its log says nothing"
	}
	return strings.Join(wrong[max(0, len(wrong)-most):], " | ")
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

// accelerators are the devices on which the loaded model's weights lie, CPUs aside.
func (st status) accelerators() (names []string) {
	ofCPU := map[string]bool{}
	for _, backend := range st.Backends {
		for _, d := range backend.Devices {
			ofCPU[d.Name] = backend.Name == "cpu"
		}
	}
	for _, model := range st.Memory {
		for _, d := range model.Devices {
			if d.Weights > 0 && !ofCPU[d.Name] {
				names = append(names, d.Name)
			}
		}
	}
	return names
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
