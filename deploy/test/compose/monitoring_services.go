package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

// prometheusConfig is what is read of Prometheus' configuration; promtool checks the rest.
type prometheusConfig struct {
	RuleFiles []string `json:"rule_files"`
	Alerting  struct {
		Alertmanagers []staticTargets `json:"alertmanagers"`
	} `json:"alerting"`
	ScrapeConfigs []staticTargets `json:"scrape_configs"`
}

type staticTargets struct {
	StaticConfigs []struct {
		Targets []string `json:"targets"`
	} `json:"static_configs"`
}

var variablePattern = regexp.MustCompile(`\$\{([A-Z_]+)\}`)

// checkMonitoring checks that the addresses and files that one service uses exist in the others.
func checkMonitoring(p *types.Project, f *findings) {
	text, err := configOf(p, "prometheus")
	if err != nil {
		f.add("%v", err)
		return
	}
	var c prometheusConfig
	if err := yaml.Unmarshal(text, &c); err != nil {
		f.add("read Prometheus' configuration: %v", err)
	}
	for _, rules := range c.RuleFiles {
		if v := mountAt(p.Services["prometheus"], "/etc/prometheus"); v == nil || !exists(filepath.Join(v.Source, rules)) {
			f.add("the rules %s aren't mounted", rules)
		}
	}
	targets := 0
	for _, j := range append(c.Alerting.Alertmanagers, c.ScrapeConfigs...) {
		for _, s := range j.StaticConfigs {
			checkTargets(p, "prometheus", s.Targets, f)
			targets += len(s.Targets)
		}
	}
	if targets != 2 {
		f.add("Prometheus has %d targets, not the proxy and Alertmanager", targets)
	}
	if _, err := configOf(p, "alertmanager"); err != nil {
		f.add("%v", err)
	}
	checkGrafana(p, f)
}

// configOf reads the file that the service's --config.file names, through its mounts.
func configOf(p *types.Project, name string) ([]byte, error) {
	s := p.Services[name]
	for _, word := range s.Command {
		file, ok := strings.CutPrefix(word, "--config.file=")
		if !ok {
			continue
		}
		v := mountAt(s, file)
		if v == nil {
			return nil, fmt.Errorf("%s of %s is on no volume", file, name)
		}
		text, err := os.ReadFile(filepath.Join(v.Source, strings.TrimPrefix(file, v.Target)))
		if err != nil {
			return nil, fmt.Errorf("read configuration of %s: %w", name, err)
		}
		return text, nil
	}
	return nil, fmt.Errorf("%s is told no configuration", name)
}

// checkTargets checks that each address is that of a service that listens there and shares a network.
func checkTargets(p *types.Project, from string, addresses []string, f *findings) {
	for _, a := range addresses {
		host, port, _ := strings.Cut(a, ":")
		s, ok := p.Services[host]
		if !ok || containerPort(s) != port {
			f.add("%s asks %s, where no service is", from, a)
			continue
		}
		shared := false
		for n := range s.Networks {
			_, ok := p.Services[from].Networks[n]
			shared = shared || ok
		}
		if !shared {
			f.add("%s and %s share no network", from, host)
		}
	}
}

func checkGrafana(p *types.Project, f *findings) {
	s := p.Services["grafana"]
	v := mountAt(s, "/etc/grafana/provisioning")
	if v == nil {
		f.add("Grafana isn't provisioned")
		return
	}
	source, err1 := os.ReadFile(filepath.Join(v.Source, "datasources", "prometheus.yaml"))
	provider, err2 := os.ReadFile(filepath.Join(v.Source, "dashboards", "llm-inference.yaml"))
	if err1 != nil || err2 != nil {
		f.add("Grafana's provisioning isn't mounted: %v, %v", err1, err2)
		return
	}
	for _, m := range variablePattern.FindAllStringSubmatch(string(source), -1) {
		address := s.Environment[m[1]]
		if address == nil {
			f.add("Grafana isn't given %s", m[1])
			continue
		}
		checkTargets(p, "grafana", []string{strings.TrimPrefix(*address, "http://")}, f)
	}
	var d struct {
		Providers []struct {
			Options struct {
				Path string `json:"path"`
			} `json:"options"`
		} `json:"providers"`
	}
	if err := yaml.Unmarshal(provider, &d); err != nil || len(d.Providers) != 1 {
		f.add("read Grafana's providers: %v", err)
		return
	}
	place := d.Providers[0].Options.Path
	if v := mountAt(s, place); v == nil || filepath.Base(v.Source) != "dashboards" || v.Target != place {
		f.add("the dashboards aren't mounted at %s", place)
	}
}
