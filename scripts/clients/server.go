package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tandem/scripts/gguf"
	"tandem/scripts/launch"
	"tandem/scripts/models/fixedanswer"
)

// The keys of the server; limitedKey may ask once an hour, otherKey for no model that there is.
const (
	everythingKey = "clients-secret"
	limitedKey    = "limited-secret"
	otherKey      = "other-secret"
)

// server is both programs with settings for the suites.
type server struct {
	url           string
	mock          bool
	model         string
	dir           string
	proxy, engine *launch.Process
	log           *os.File // of both programs and of the suites
}

// startServer starts both programs and waits until they are ready.
func startServer(ctx context.Context) (*server, error) {
	s := &server{mock: os.Getenv("ENGINE") == "mock", model: "smollm2"}
	if s.mock {
		s.model = "demo"
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start the server: %w", err), s.stop())
	}
	return s, nil
}

func (s *server) start(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "tndc"); err != nil { // short: the path of a socket has at most 107 bytes
		return err
	}
	if err := os.MkdirAll("out", 0o755); err != nil {
		return err
	}
	if s.log, err = os.Create("out/clients.log"); err != nil {
		return err
	}
	settings, err := s.settings()
	if err != nil {
		return err
	}
	if s.proxy, err = launch.Start("proxy", os.Getenv("PROXY"), settings, s.log, "serve"); err != nil {
		return err
	}
	if s.engine, err = launch.Start("engine", os.Getenv("ENGINE_PROGRAM"), settings, s.log, "supervise"); err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil || s.mock {
		return err
	}
	return s.checkToolTemplate()
}

func (s *server) settings() ([]string, error) {
	keys := filepath.Join(s.dir, "keys.yaml")
	if err := os.WriteFile(keys, []byte(keyFile()), 0o600); err != nil {
		return nil, err
	}
	ports, err := launch.FreePorts(1)
	if err != nil {
		return nil, err
	}
	s.url = "http://127.0.0.1:" + strconv.Itoa(ports[0])
	list := []string{
		"HOST=127.0.0.1", "PORT=" + strconv.Itoa(ports[0]), "ENGINE_SOCKET=" + filepath.Join(s.dir, "engine.sock"),
		"API_KEYS_FILE=" + keys, "RATE_LIMIT=off", "LOG_LEVEL=warn", "DEFAULT_MODEL=" + s.model,
	}
	models := filepath.Join(s.dir, "models")
	list = append(list, "MODELS_DIR="+models)
	if s.mock { // without a model, so that there is the demo model
		list = append(list, "ENGINE_MOCK=true", "MOCK_TOKEN_DELAY=2ms", "CACHE_DIR="+filepath.Join(s.dir, "cache"))
		return launch.Environment(list...), os.Mkdir(models, 0o755)
	}
	return launch.Environment(list...), s.installModel(models)
}

// installModel installs the model with a chat template that has a form for tools: its own has none.
func (s *server) installModel(models string) error {
	if err := os.MkdirAll(filepath.Join(models, s.model), 0o755); err != nil {
		return err
	}
	return gguf.WithTemplate(os.Getenv("MODEL_FILE"), filepath.Join(models, s.model, "model.gguf"), fixedanswer.ChatTemplate)
}

// checkToolTemplate fails unless tools are shown to the model by its template. Without a form for tools in it the
// engine takes one of its own, which would hide that.
func (s *server) checkToolTemplate() error {
	body := `{"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"f"}}]}`
	r, err := http.NewRequest(http.MethodPost, s.url+"/apply-template", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("X-Api-Key", everythingKey)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	prompt, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(prompt), fixedanswer.ToolsHeading)) {
		err = fmt.Errorf("the model's template doesn't show it tools: status %d, %s", resp.StatusCode, prompt)
	}
	return err
}

func keyFile() string {
	entry := func(name, secret, more string) string {
		sum := sha256.Sum256([]byte(secret))
		return fmt.Sprintf("  - name: %s\n    sha256: %s\n%s", name, hex.EncodeToString(sum[:]), more)
	}
	return strings.Join([]string{
		"keys:\n",
		entry("clients", everythingKey, ""),
		entry("limited", limitedKey, "    rate_limit: 1/hour\n"),
		entry("other", otherKey, "    models: [another-model]\n"),
	}, "")
}

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.ready() {
		select {
		case <-tick.C:
		case <-s.proxy.Ended():
			return errors.New("the proxy ended; out/clients.log says why")
		case <-s.engine.Ended():
			return errors.New("the engine ended; out/clients.log says why")
		case <-ctx.Done():
			return fmt.Errorf("wait for %s/readyz: %w", s.url, context.Cause(ctx))
		}
	}
	return nil
}

func (s *server) ready() bool {
	resp, err := http.Get(s.url + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stop ends what start started.
func (s *server) stop() error {
	var errs []error
	for _, p := range []*launch.Process{s.proxy, s.engine} {
		if p != nil {
			errs = append(errs, p.Stop(10*time.Second))
		}
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(errs...)
}

// forSuites is the environment in which suites find the server. The variables of the libraries themselves are set as
// well, so that none of them ever turns to another server, and so are those that switch their telemetry off.
func (s *server) forSuites() []string {
	engine := "llama"
	if s.mock {
		engine = "mock"
	}
	return []string{
		"TANDEM_URL=" + s.url, "TANDEM_KEY=" + everythingKey, "TANDEM_LIMITED_KEY=" + limitedKey,
		"TANDEM_OTHER_KEY=" + otherKey, "TANDEM_MODEL=" + s.model, "TANDEM_ENGINE=" + engine,
		"OPENAI_BASE_URL=" + s.url + "/v1", "OPENAI_API_KEY=unset", "ANTHROPIC_BASE_URL=" + s.url, "ANTHROPIC_API_KEY=unset",
		"LANGSMITH_TRACING=false", "LITELLM_LOCAL_MODEL_COST_MAP=True", "DO_NOT_TRACK=1", "PYTHONDONTWRITEBYTECODE=1",
	}
}
