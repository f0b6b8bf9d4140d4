package compose

import (
	"regexp"
	"strings"
	"testing"

	"tandem/deploy/test/docs"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := docs.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func problems(t *testing.T, text string) []string {
	p, err := Load(t.Context(), text)
	if err != nil {
		return []string{err.Error()}
	}
	return Check(p)
}

func TestCompose(t *testing.T) {
	for _, p := range problems(t, read(t, "deploy/compose.yaml")) {
		t.Error(p)
	}
}

// Each mutation breaks one thing, which must be found.
func TestEveryCheckCanFail(t *testing.T) {
	text := read(t, "deploy/compose.yaml")
	for _, m := range []struct{ old, new, want string }{
		{"stop_grace_period: 150s", "stop_grace: 150s", "stop_grace"},
		{"retries: 3", "retries: many", "retries"},
		{"read_only: true", "read_only: false", "more rights"},
		{"cap_drop: [ALL]", "cap_drop: [NET_RAW]", "more rights"},
		{"test: [CMD, /usr/local/bin/tandem-proxy, healthcheck]", "test: [NONE]", "no health check"},
		{"prometheus:v3.14.0", "prometheus:latest", "isn't a version"},
		{`"127.0.0.1:9090:9090"`, `"9090:9090"`, "open to others"},
		{"./prometheus:/etc/prometheus:ro", "./prometheus:/etc/prometheus", "may write"},
		{"./alertmanager:/etc/alertmanager:ro", "./alerts:/etc/alertmanager:ro", "where nothing is"},
		{"depends_on: [prometheus]", "depends_on: [prom]", "prom"},
		{"RATE_LIMIT:", "RATE_LIMITS:", "RATE_LIMITS, which it doesn't know"},
		{"command: [supervise]", "command: [serve]", "not supervise"},
		{"llm-inference-engine:1.0.0-cpu", "llm-inference-engine:2.0.0-cpu", "doesn't build the image"},
		{"Dockerfile.engine", "Dockerfile.motor", "from Dockerfile.motor"},
		{"context: ..,", "context: .,", "isn't built from this project"},
		{`volumes: ["socket:/run/tandem"]`, `volumes: ["cache:/run/tandem"]`, "socket of llm-inference"},
		{"stop_grace_period: 150s", "stop_grace_period: 10s", "no time to drain"},
		{"${API_KEYS:-local:demo-key}", "''", "no keys"},
		{"${PORT:-8000}:8000", "${PORT:-8000}:80", "published port"},
		{":/models:ro", ":/model:ro", "models aren't mounted"},
		{"CACHE_DIR: /tmp/cache", "CACHE_DIR: /cache", "can't write to its CACHE_DIR"},
		{"network_mode: none", "networks: [frontend]", "has a network"},
		{"prometheus.compose.yaml", "prometheus.yml", "read configuration of prometheus"},
		{"prometheus.compose.yaml", "prometheus.yaml", "has 1 targets"},
		{"--config.file=/etc/alertmanager", "--config=/etc/alertmanager", "alertmanager is told no configuration"},
		{"127.0.0.1:9093:9093", "127.0.0.1:9093:9094", "asks alertmanager:9093"},
		{"networks: [frontend, monitoring]", "networks: [frontend]", "share no network"},
		{"http://prometheus:9090", "http://prom:9090", "grafana asks prom:9090"},
		{"PROMETHEUS_URL:", "PROM_URL:", "isn't given PROMETHEUS_URL"},
		{"dashboards/llm-inference:ro", "dashboards/llm:ro", "dashboards aren't mounted"},
		{"./grafana/provisioning:", "./grafana/dashboards:", "provisioning isn't mounted"},
	} {
		if !strings.Contains(text, m.old) {
			t.Errorf("there is no %q to break", m.old)
			continue
		}
		found := problems(t, strings.Replace(text, m.old, m.new, 1))
		if !strings.Contains(strings.Join(found, "\n"), m.want) {
			t.Errorf("with %q instead of %q: %q, want %q", m.new, m.old, found, m.want)
		}
	}
}

// The images of Prometheus and Alertmanager are of the versions with which rules and configurations are tested.
func TestVersions(t *testing.T) {
	text, tools := read(t, "deploy/compose.yaml"), read(t, "scripts/tools/go.mod")
	for module, image := range map[string]string{
		`prometheus/prometheus v0\.3(\d\d)\.(\d+)`: "prom/prometheus:v3.$1.$2",
		`prometheus/alertmanager (v\S+)`:           "prom/alertmanager:$1",
	} {
		exp := regexp.MustCompile(module)
		m := exp.FindStringSubmatchIndex(tools)
		if m == nil {
			t.Errorf("scripts/tools/go.mod doesn't have %s", module)
			continue
		}
		if want := string(exp.ExpandString(nil, image, tools, m)); !strings.Contains(text, want+"\n") {
			t.Errorf("deploy/compose.yaml doesn't take %s", want)
		}
	}
}

// Alerts that are routed or inhibited exist. The file itself is checked by amtool in scripts/check-rules.sh.
func TestAlertmanagerNamesAlerts(t *testing.T) {
	text, rules := read(t, "deploy/alertmanager/alertmanager.yaml"), read(t, "deploy/prometheus/alerts.rules.yaml")
	names := regexp.MustCompile(`alertname=~?"([^"]+)"`).FindAllStringSubmatch(text, -1)
	if len(names) == 0 {
		t.Error("nothing is inhibited")
	}
	for _, m := range names {
		for name := range strings.SplitSeq(m[1], "|") {
			if !strings.Contains(rules, "alert: "+name+"\n") {
				t.Errorf("alert %s isn't one of ours", name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`severity="([^"]+)"`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(rules, "severity: "+m[1]+"\n") {
			t.Errorf("no alert is of severity %s", m[1])
		}
	}
	_, block, _ := strings.Cut(text, "inhibit_rules:\n")
	if page := read(t, "docs/monitoring.md"); !strings.Contains(page, "inhibit_rules:\n"+block) {
		t.Error("docs/monitoring.md shows other inhibitions")
	}
}
