package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/metrics"
)

func TestSettingsReachWhatTheyAreAbout(t *testing.T) {
	s := &service{config: &Config{DefaultModel: "demo", KeepRemoved: 7 * time.Minute}}
	choose := s.requestTableOptions().ChooseDefault
	if got := choose([]string{"only"}); got != "only" {
		t.Errorf("DEFAULT_MODEL isn't set and one model is installed: the default is %q", got)
	}
	s.config.DefaultModelSet = true
	if got := s.requestTableOptions().ChooseDefault([]string{"only"}); got != "demo" {
		t.Errorf("DEFAULT_MODEL is set: the default is %q", got)
	}
	if got := s.metricsOptions().KeepRemoved; got != 7*time.Minute {
		t.Errorf("METRICS_KEEP_REMOVED: %v", got)
	}
}

// A key that comes while the server runs may bring a domain that nobody had before.
func TestDomainOfANewKeyIsKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte("keys:\n  - {name: a, domain: search, sha256: 3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := auth.Open(auth.Options{File: path})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{config: &Config{}, log: slog.New(slog.DiscardHandler), keys: keys, metrics: metrics.New(metrics.Options{}), domains: api.NewDomains([]string{"chat"})}
	s.metrics.RegisterModel("demo", "v1.0")
	s.keysReloaded(auth.Reload{Keys: 1})
	if got := s.domains.Resolve(api.DomainSources{Key: "search"}); got != "search" {
		t.Errorf("the key's domain counts as %s", got)
	}
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		if f.GetName() != "successful_inferences_total" {
			continue
		}
		for _, m := range f.Metric {
			if m.Label[0].GetValue() == "search" && m.Counter.GetValue() == 0 {
				found++
			}
		}
	}
	if found == 0 {
		t.Error("its counters don't begin at 0")
	}
}
