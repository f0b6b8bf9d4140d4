package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tandem/schema/settings"
)

func TestPagesAreCurrent(t *testing.T) {
	if err := run(filepath.Join("..", ".."), true); err != nil {
		t.Error(err)
	}
}

func TestStalePageIsFoundAndWritten(t *testing.T) {
	root := t.TempDir()
	if err := run(root, true); err == nil {
		t.Error("missing pages are current")
	}
	if err := run(root, false); err != nil {
		t.Fatal(err)
	}
	if err := run(root, true); err != nil {
		t.Errorf("written pages: %v", err)
	}
	name := filepath.Join(root, "docs", "metrics.md")
	if err := os.WriteFile(name, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(root, true); err == nil || !strings.Contains(err.Error(), "docs/metrics.md") {
		t.Errorf("an old page: %v", err)
	}
}

func TestExampleConfigIsGoodAndChangesNothing(t *testing.T) {
	example := string(exampleConfig())
	uncommented := regexp.MustCompile(`(?m)^( +)#([a-z])`).ReplaceAllString(example, "$1$2")
	for name, text := range map[string]string{"as it is": example, "every key uncommented": uncommented} {
		for _, program := range []settings.Owner{settings.Proxy, settings.Engine} {
			v, err := settings.Load(program, nil, []string{"CONFIG_FILE=x"}, func(string) ([]byte, error) { return []byte(text), nil })
			if err != nil {
				t.Errorf("%s, %s: %v", name, program, err)
				continue
			}
			for _, s := range settings.All() {
				if s.Path == "" {
					continue
				}
				source, _ := v.Source(s.Env)
				fromFile := name != "as it is"
				if (source == settings.FromFile) != fromFile || v.Text(s.Env) != s.Default {
					t.Errorf("%s: %s = %q from %s, want %q", name, s.Env, v.Text(s.Env), source, s.Default)
				}
			}
		}
	}
}
