package manifest

import (
	"strings"
	"testing"

	"tandem/deploy/test/docs"
)

// The scrape configurations for a plain Prometheus name the Service and the label of the manifests.
func TestScrapeConfigurationsFindThePods(t *testing.T) {
	s, err := Decode([]byte(render(t)["cpu"]))
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorkload(s)
	if err != nil {
		t.Fatal(err)
	}
	headless := ""
	for _, service := range s.Services {
		if service.Spec.ClusterIP == "None" {
			headless = service.Name
		}
	}
	path := "metrics_path: '" + w.value(w.proxy, "METRICS_PATH") + "'"
	for file, parts := range map[string][]string{
		"prometheus.dns.yaml":  {"names: ['" + headless + "']", "port: 8000\n", path},
		"prometheus.pods.yaml": {"label: app=" + w.labels["app"] + "\n", "regex: '8000'", path},
	} {
		text, err := docs.Read("deploy/prometheus/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s doesn't say %q", file, part)
			}
		}
		if strings.Contains(text, "__meta_kubernetes_pod_container_init") {
			t.Errorf("%s treats init containers in a way of its own; the proxy is one", file)
		}
	}
}
