package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
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
	if c.Port != 9000 || !c.RateLimit.Off() || !c.DefaultModelSet || c.EnginePeerUIDs[0] != 10001 || !c.ReplayDecode || c.LogLevel != slog.LevelDebug {
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
