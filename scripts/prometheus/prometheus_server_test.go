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

	"tandem/scripts/launch"

	"go.yaml.in/yaml/v3"
)

// durationDivisor divides every duration in the rules.
const durationDivisor = "30"

// prometheusServer is a running Prometheus.
type prometheusServer struct {
	ctx     context.Context
	url     string
	process *launch.Process
}

func startPrometheus(t *testing.T, b binaries, address string, services []*scrapedService) *prometheusServer {
	t.Helper()
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules")
	if out, err := exec.Command(b.rules, "-into", rules, "-divide", durationDivisor).CombinedOutput(); err != nil {
		t.Fatalf("write rules: %v\n%s", err, out)
	}
	config := filepath.Join(b.logs, "prometheus.yaml")
	if err := os.WriteFile(config, configuration(t, rules, services), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &prometheusServer{ctx: t.Context(), url: "http://" + address}
	s.process = startProcess(t, b.logs, "prometheus", b.prometheus, launch.Environment(), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--enable-feature=exemplar-storage", "--log.level=warn")
	err := eventually(30*time.Second, 100*time.Millisecond, func() error {
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

// configuration is deploy/prometheus/prometheus.yaml with intervals that fit the rules, and its scrape job repeated for
// each service.
func configuration(t *testing.T, rules string, services []*scrapedService) []byte {
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

// get calls the HTTP API and decodes the data of its answer.
func (s *prometheusServer) get(path string, parameters url.Values, data any) error {
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

// sample is an element of an instant query's result.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, value as text
}

// value is the sample's value as Prometheus writes it, for instance NaN.
func (s sample) value() string { return fmt.Sprint(s.Value[1]) }

func (s *prometheusServer) query(expression string) ([]sample, error) {
	var data struct{ Result []sample }
	err := s.get("/api/v1/query", url.Values{"query": {expression}}, &data)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	return data.Result, nil
}

// alertState is the state of an alert.
type alertState int

const (
	inactive alertState = iota
	pending
	firing
)

func (s alertState) String() string { return [...]string{"inactive", "pending", "firing"}[s] }

// alertStates are the states of alerts by job, then by name; those of error budgets have their window in the name:
// "LLMAvailabilityBudgetBurn 1h".
type alertStates map[string]map[string]alertState

// alertStates evaluates an expression over ALERTS, the series that Prometheus keeps of its alerts.
func (s *prometheusServer) alertStates(expression string) (alertStates, error) {
	samples, err := s.query(expression)
	if err != nil {
		return nil, err
	}
	all := make(alertStates)
	for _, a := range samples {
		name, job := a.Metric["alertname"], a.Metric["job"]
		if w := a.Metric["window"]; w != "" {
			name += " " + w
		}
		if all[job] == nil {
			all[job] = make(map[string]alertState)
		}
		now := pending
		if a.Metric["alertstate"] == "firing" {
			now = firing
		}
		all[job][name] = max(all[job][name], now)
	}
	return all, nil
}

// highestAlertStates returns the highest state of each alert since the start.
func (s *prometheusServer) highestAlertStates() (alertStates, error) {
	return s.alertStates("max_over_time(ALERTS[1h])")
}

// activeAlertStates returns the states now.
func (s *prometheusServer) activeAlertStates() (alertStates, error) { return s.alertStates("ALERTS") }
