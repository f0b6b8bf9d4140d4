package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// divisor of every duration in the rules.
const divisor = "30"

// server is a Prometheus.
type server struct {
	ctx     context.Context
	url     string
	process *process
}

func startServer(t *testing.T, p programs, address string, services []*service) *server {
	t.Helper()
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules")
	if out, err := exec.Command(p.rules, "-into", rules, "-divide", divisor).CombinedOutput(); err != nil {
		t.Fatalf("write rules: %v\n%s", err, out)
	}
	config := filepath.Join(p.logs, "prometheus.yaml")
	if err := os.WriteFile(config, configuration(t, rules, services), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &server{ctx: t.Context(), url: "http://" + address}
	s.process = start(t, p.logs, "prometheus", p.prometheus, environment(), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--enable-feature=exemplar-storage", "--log.level=warn")
	err := eventually(t.Context(), 30*time.Second, 100*time.Millisecond, func() error {
		resp, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("prometheus is not ready: %s", resp.Status)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// configuration is deploy/prometheus/prometheus.yaml with times that fit the rules, and its scrape job once for each service.
func configuration(t *testing.T, rules string, services []*service) []byte {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/prometheus/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Global map[string]any   `yaml:"global"`
		Rules  []string         `yaml:"rule_files"`
		Jobs   []map[string]any `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Jobs) != 1 {
		t.Fatalf("prometheus.yaml has %d jobs, want the documented one", len(c.Jobs))
	}
	c.Global = map[string]any{"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
	for i, name := range c.Rules {
		c.Rules[i] = filepath.Join(rules, name)
	}
	documented := c.Jobs[0]
	c.Jobs = nil
	for _, s := range services {
		job := make(map[string]any)
		for k, v := range documented {
			job[k] = v
		}
		job["job_name"], job["scrape_interval"] = s.job, "500ms"
		job["static_configs"] = []any{map[string]any{"targets": []string{s.address}}}
		c.Jobs = append(c.Jobs, job)
	}
	out, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// get asks the API and decodes its data.
func (s *server) get(path string, parameters url.Values, data any) error {
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path+"?"+parameters.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// sample of an instant query.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, value as text
}

// number is the sample's value as Prometheus writes it; NaN is one.
func (s sample) number() string { return fmt.Sprint(s.Value[1]) }

func (s *server) query(expression string) ([]sample, error) {
	var data struct{ Result []sample }
	err := s.get("/api/v1/query", url.Values{"query": {expression}}, &data)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	return data.Result, nil
}

// state of an alert.
type state int

const (
	inactive state = iota
	pending
	firing
)

func (s state) String() string { return [...]string{"inactive", "pending", "firing"}[s] }

// alertsOf are the states of alerts by job, then by name, those of the budgets with their window: "LLMAvailabilityBudgetBurn 1h".
type alertsOf map[string]map[string]state

// alerts gives the alerts of an expression over ALERTS, the series that Prometheus keeps of them.
func (s *server) alerts(expression string) (alertsOf, error) {
	samples, err := s.query(expression)
	if err != nil {
		return nil, err
	}
	all := make(alertsOf)
	for _, a := range samples {
		name, job := a.Metric["alertname"], a.Metric["job"]
		if w := a.Metric["window"]; w != "" {
			name += " " + w
		}
		if all[job] == nil {
			all[job] = make(map[string]state)
		}
		now := pending
		if a.Metric["alertstate"] == "firing" {
			now = firing
		}
		all[job][name] = max(all[job][name], now)
	}
	return all, nil
}

// seen are the highest states since the server began.
func (s *server) seen() (alertsOf, error) { return s.alerts("max_over_time(ALERTS[1h])") }

// active are the states now.
func (s *server) active() (alertsOf, error) { return s.alerts("ALERTS") }
