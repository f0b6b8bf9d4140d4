package manifest

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tandem/deploy/test/docs"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// The kustomization in docs/deploy.md is built and checked like our overlays; only its images have another registry.
func TestDocumentedOverlay(t *testing.T) {
	page, err := docs.Read("docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	block := yamlBlock.FindStringSubmatch(page)
	if block == nil {
		t.Fatal("docs/deploy.md shows no kustomization")
	}
	root, err := docs.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	up, err := filepath.Rel(dir, filepath.Join(root, Directory))
	if err != nil {
		t.Fatal(err)
	}
	text, err := BuildText(dir, strings.ReplaceAll(block[1], "tandem/"+Directory, up))
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.ReplaceAll(string(text), "registry.example.com/", "")
	if plain == string(text) || !strings.Contains(plain, "namespace: llm") || !strings.Contains(plain, "name: CACHE_SIZE") {
		t.Errorf("the kustomization changes less than it says:\n%s", text)
	}
	for _, p := range problems(plain) {
		t.Error(p)
	}
}

// docs/deploy.md has the command that creates the Secret of the manifests; TestPod makes its content in the same way.
func TestDocumentedSecrets(t *testing.T) {
	page, err := docs.Read("docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	all := render(t)
	for _, c := range []struct{ name, key, command string }{
		{keysSecret, keysFile, "{ echo keys:; docker run --rm llm-inference:1.0.0 keys new team-a; } |\n  kubectl -n llm create secret generic llm-inference-api-keys --from-file=keys.yaml=/dev/stdin"},
		{"llm-inference-rate-limits", "url", "kubectl -n llm create secret generic llm-inference-rate-limits --from-literal=url="},
	} {
		if !strings.Contains(page, c.command) {
			t.Errorf("docs/deploy.md doesn't make the Secret %s", c.name)
		}
		if text := all["everything"]; !strings.Contains(text, "ame: "+c.name+"\n") || !strings.Contains(text, c.key+"\n") {
			t.Errorf("no manifest names the Secret %s", c.name)
		}
	}
	for name := range all {
		if _, ok := componentSets[name]; !ok && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/deploy.md doesn't name the overlay %s", name)
		}
	}
}

var (
	settingWord = regexp.MustCompile("`([A-Z][A-Z_0-9]+)(?:=[^`]*)?`")
	metricWord  = regexp.MustCompile("`(llm_[a-z_0-9]+)`")
)

// The settings and metrics that docs/deploy.md names exist.
func TestDocumentedNames(t *testing.T) {
	page, err := docs.Read("docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	settings, err := docs.Settings()
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := docs.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	compose, err := docs.Read("deploy/compose.yaml") // has variables of its own
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range settingWord.FindAllStringSubmatch(page, -1) {
		if _, ok := settings[m[1]]; !ok && !externalVariables.MatchString(m[1]) && !strings.Contains(compose, "${"+m[1]+":-") {
			t.Errorf("docs/deploy.md names a setting %s, which isn't there", m[1])
		}
	}
	for _, m := range metricWord.FindAllStringSubmatch(page, -1) {
		if _, ok := metrics[m[1]]; !ok {
			t.Errorf("docs/deploy.md names a metric %s, which isn't there", m[1])
		}
	}
}
