package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/schema/catalogue"
	"tandem/schema/settings"
)

func TestConfigDefaults(t *testing.T) {
	c, err := loadConfig(nil, []string{"AUTH_DISABLED=true"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "0.0.0.0" || c.Port != 8000 || c.LogLevel != slog.LevelInfo || !c.PrometheusEnabled || c.MetricsPath != "/prometheus" || !c.CustomMetrics {
		t.Errorf("server and monitoring: %+v", c)
	}
	if c.DefaultModel != "microsoft/DialoGPT-medium" || c.DefaultModelSet || c.DefaultVersion != "v1.0" || c.CacheSize != 5 {
		t.Errorf("models: %+v", c)
	}
	if c.APIKeyHeader != "X-API-Key" || c.RateLimit.Requests != 5 || c.RateLimit.Unit != time.Minute {
		t.Errorf("security: %+v", c)
	}
	if c.QueueCapacity != 256 || c.RequestTimeout != 300*time.Second || c.EngineWait != 10*time.Second || c.ReplayDecode ||
		c.MaxBodyBytes != 8<<20 || c.PromptBytes != 1<<20 || c.JournalMaxBytes != 256<<20 {
		t.Errorf("limits: %+v", c)
	}
}

func TestStallTimeoutHoldsForTheSocket(t *testing.T) {
	c, err := loadConfig([]string{"--engine-stall-timeout=10m"}, []string{"AUTH_DISABLED=true"})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{config: c}
	if got := s.linkOptions().StallTimeout; got != 10*time.Minute {
		t.Errorf("an engine may be silent for %s", got)
	}
}

func TestConfigFromFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.yaml")
	text := `server: {port: 9000, trusted_proxies: [10.1.2.3/8, "::1"]}
security: {api_keys_file: /keys, rate_limit: off}
models: {default_model: microsoft/DialoGPT-medium}
engine: {parallel: 4, peer_uids: ["10001"]}
restart: {replay: decode}
`
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig([]string{"--log-level=debug"}, []string{"CONFIG_FILE=" + name})
	if err != nil {
		t.Fatal(err)
	}
	if c.Port != 9000 || !c.RateLimit.Unlimited() || !c.DefaultModelSet || c.EnginePeerUIDs[0] != 10001 || !c.ReplayDecode || c.LogLevel != slog.LevelDebug {
		t.Errorf("config: %+v", c)
	}
	if len(c.TrustedProxies) != 2 || c.TrustedProxies[0].String() != "10.0.0.0/8" || c.TrustedProxies[1].String() != "::1/128" {
		t.Errorf("trusted proxies: %v", c.TrustedProxies)
	}
}

func TestConfigThatDoesNotFit(t *testing.T) {
	cases := map[string]struct {
		env  []string
		want string
	}{
		"no keys":         {nil, "keys new NAME"},
		"keys and none":   {[]string{"AUTH_DISABLED=true", "API_KEYS=a:b"}, "remove one"},
		"half of TLS":     {[]string{"AUTH_DISABLED=true", "TLS_CERT_FILE=/c"}, "TLS_KEY_FILE"},
		"path taken":      {[]string{"AUTH_DISABLED=true", "METRICS_PATH=/health"}, "taken"},
		"prompt too long": {[]string{"AUTH_DISABLED=true", "MAX_BODY_BYTES=1KiB"}, "PROMPT_MAX"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(nil, c.env)
			var all *settings.Error
			if !errors.As(err, &all) || len(all.Problems) != 1 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// check-config must find what would keep the proxy from starting.
func TestMetricsPathOfAnotherEndpoint(t *testing.T) {
	r := startProxy(t, "AUTH_DISABLED=true")
	_, text := r.get(t, "/openapi.json")
	var document struct{ Paths map[string]any }
	if err := json.Unmarshal([]byte(text), &document); err != nil || document.Paths["/prometheus"] == nil {
		t.Fatalf("the document has %d paths, %v", len(document.Paths), err)
	}
	taken := append(slices.Collect(maps.Keys(document.Paths)), "/page/app.js", "/page/app.css", "/page/icon.svg")
	for _, path := range taken {
		_, err := loadConfig(nil, []string{"AUTH_DISABLED=true", "METRICS_PATH=" + path})
		if refused := err != nil && strings.Contains(err.Error(), "METRICS_PATH"); refused != (path != "/prometheus") {
			t.Errorf("METRICS_PATH=%s: %v", path, err)
		}
	}
	if _, err := loadConfig(nil, []string{"AUTH_DISABLED=true", "METRICS_PATH=/metrics"}); err != nil {
		t.Errorf("a path of its own: %v", err)
	}
}

func TestDocumentNamesSettingsThatExist(t *testing.T) {
	r := startProxy(t, "AUTH_DISABLED=true")
	_, text := r.get(t, "/openapi.json")
	names := regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)+\b`).FindAllString(text, -1)
	if len(names) == 0 {
		t.Error("the document names no setting")
	}
	for _, name := range names {
		if settings.Find(name) == nil {
			t.Errorf("there is no setting %s", name)
		}
	}
}

// Settings that don't fit together and mistakes in the keys are reported together with invalid values, under the names
// that the user wrote.
func TestAllMistakesOfSettingsAndKeysAtOnce(t *testing.T) {
	dir := t.TempDir()
	keys, file := filepath.Join(dir, "keys.yaml"), filepath.Join(dir, "config.yaml")
	text := "server:\n  port: many\n  tls_cert_file: /c\n  prompt_max: 1 MB\n  max_body_bytes: huge\nmonitoring:\n  metrics_path: /health\nsecurity:\n  api_keys_file: " + keys + "\n"
	for name, content := range map[string]string{file: text, keys: "keys:\n  - name: a\n    sha256: short\n  - nam: b\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := runCommand(t, "", []string{"CONFIG_FILE=" + file, "QUEUE_CAPACITY=some"}, "check-config", "--metrics-addr=9090")
	want := []string{
		`config.yaml:2 server.port: "many" must be a whole number`,
		`config.yaml:5 server.max_body_bytes: "huge" must be a size`,
		`variable QUEUE_CAPACITY: "some" must be a whole number`,
		`flag --metrics-addr: "9090" must be host:port`,
		`config.yaml:3 server.tls_cert_file: is only good together with`,
		`config.yaml:7 monitoring.metrics_path: /health is taken`,
		`API keys in ` + keys + `:`,
		`line 3: sha256: want`,
		`line 4: nam: unknown field`,
		`line 4: the entry has no name`,
		`line 4: the entry has no sha256`,
	}
	if err == nil {
		t.Fatal("was taken")
	}
	got := strings.Split(err.Error(), "\n")
	for _, w := range want {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, w) }) {
			t.Errorf("missing: %s", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
	if t.Failed() {
		t.Logf("the refusal:\n%s", err)
	}
}

// What was not understood leads to no second problem.
func TestOneMistakeIsToldOnce(t *testing.T) {
	for name, env := range map[string][]string{
		"a file that can't be read": {"CONFIG_FILE=/dev/stdin/nothing"},
		"auth":                      {"AUTH_DISABLED=maybe"},
		"body":                      {"AUTH_DISABLED=true", "MAX_BODY_BYTES=many", "PROMPT_MAX=16MiB"},
	} {
		_, err := loadConfig(nil, env)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The table of errors and the catalogue of metrics can't import each other; here they meet.
func TestErrorsAreCountedUnderLabelsOfTheCatalogue(t *testing.T) {
	sets := map[string][]string{"llm_requests_rejected_total": api.RejectedReasons(), "failed_inferences_total": api.FailedTypes()}
	for name, used := range sets {
		labels := catalogue.Find(name).Labels
		known := labels[len(labels)-1].Values
		for _, value := range used {
			if !slices.Contains(known, value) {
				t.Errorf("%s: %q is not in the catalogue", name, value)
			}
		}
	}
	if api.MaxDomains != catalogue.MaxDomains || api.DomainGeneral != catalogue.General || api.DomainOther != catalogue.Other ||
		api.NameNone != catalogue.None || api.NameUnknown != catalogue.Unknown {
		t.Error("names of special label values differ")
	}
}
