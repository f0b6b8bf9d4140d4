package api

import (
	"fmt"
	"strings"
	"testing"
)

func TestValidModelName(t *testing.T) {
	for name, want := range map[string]bool{
		"demo": true, "microsoft/DialoGPT-medium": true, "a": true, "0x": true, "a.b_c-d/e..f": true, strings.Repeat("a", MaxNameBytes): true,
		"": false, "none": false, "unknown": false, "other": false, "/": false, "a/": false, "/a": false, "a/b/c": false, ".": false, "..": false,
		"a/..": false, "../a": false, ".hidden": false, "-flag": false, "_a": false, "a b": false, "a\x00": false, "a\\b": false, "é": false,
		strings.Repeat("a", MaxNameBytes+1): false,
	} {
		if got := ValidModelName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	for version, want := range map[string]bool{"v1.0": true, "base": true, "": false, "none": false, "a/b": false, "..": false} {
		if got := ValidVersion(version); got != want {
			t.Errorf("version %q: %v", version, got)
		}
	}
}

func TestResolve(t *testing.T) {
	models := []Model{
		{Name: "demo", DefaultVersion: "v2.0", Versions: []string{"base", "v1.0", "v2.0"}},
		{Name: "org/plain", Versions: []string{"base", "v1.0"}},
		{Name: "org/bare", Versions: []string{"base"}},
		{Name: "org/broken", DefaultVersion: "gone", Versions: []string{"base"}},
		{Name: "org/unlisted"},
	}
	for _, c := range []struct{ rule, base, version, want string }{
		{"both given", "demo", "v1.0", "demo@v1.0"},
		{"no model is the default model", "", "v1.0", "demo@v1.0"},
		{"nothing given", "", "", "demo@v2.0"},
		{"no version is the model's default", "demo", "", "demo@v2.0"},
		{"no version and no default of the model's is the configured one", "org/plain", "", "org/plain@v1.0"},
		{"no version and the configured one isn't there is base", "org/bare", "", "org/bare@base"},
		{"base is always a version", "org/unlisted", "base", "org/unlisted@base"},
		{"unknown model", "nobody/nothing", "", "model_not_found base_model"},
		{"unknown model with a known version", "nobody/nothing", "v1.0", "model_not_found base_model"},
		{"names are exact", "Demo", "", "model_not_found base_model"},
		{"a path is no name", "../demo", "", "model_not_found base_model"},
		{"unknown version", "demo", "v9", "version_not_found adapter_version"},
		{"version of another model", "org/bare", "v2.0", "version_not_found adapter_version"},
		{"a model's default that isn't installed is not replaced silently", "org/broken", "", "version_not_found adapter_version"},
	} {
		model, version, err := Resolve(models, "demo", "v1.0", c.base, c.version)
		got := model + "@" + version
		if err != nil {
			got = fmt.Sprintf("%s %s", err.Type, err.Param)
			if err.Status() != 404 || model+version != "" {
				t.Errorf("%s: status %d, %q %q", c.rule, err.Status(), model, version)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.rule, got, c.want)
		}
	}
}

func TestResolveTellsWhatIsInstalled(t *testing.T) {
	f := func(models []Model, base, version string, parts ...string) {
		t.Helper()
		_, _, err := Resolve(models, "default/model", "v1.0", base, version)
		if err == nil {
			t.Fatal("no error")
		}
		for _, part := range parts {
			if !strings.Contains(err.Message, part) {
				t.Errorf("%q is not in %q", part, err.Message)
			}
		}
		if len(err.Message) > 1000 {
			t.Errorf("the message has %d bytes", len(err.Message))
		}
	}
	two := []Model{{Name: "a/one", Versions: []string{"v1.0"}}, {Name: "two"}}
	f(two, "x", "", `"x"`, "a/one, two", "MODELS_DIR")
	f(two, "", "", "no base_model given", `"default/model"`)
	f(two, "a/one", "v7", `"v7"`, "base, v1.0", "versions/<version>.gguf")
	f(nil, "x", "", "installed: none")
	f(two, strings.Repeat("\x00", MaxNameBytes), "", "…")
	many := make([]Model, 1000)
	for i := range many {
		many[i].Name = fmt.Sprintf("organisation/model-%03d", i)
	}
	f(many, "x", "", "organisation/model-000, ", "more (see GET /models)")
}
