package models

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	good := []string{"demo", "microsoft/DialoGPT-medium", "a", "0", "A.b_c-d", "x/y", "none/x", strings.Repeat("a", 96)}
	bad := []string{
		"", "/", "a/", "/a", "a//b", "a/b/c", ".", "..", "../a", "a/..", ".hidden", "a/.hidden", "-a", "_a", "a b", "a\x00b", "ä",
		"a\nb", `a\b`, "none", "unknown", "other", strings.Repeat("a", 97), "a@b", "a#b", "%2e%2e",
	}
	for _, n := range good {
		if err := CheckName(n); err != nil {
			t.Errorf("CheckName(%q): %v", n, err)
		}
	}
	for _, n := range bad {
		if CheckName(n) == nil {
			t.Errorf("CheckName(%q) passes", n)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for _, n := range []string{"base", "none", "unknown", "other", "", "..", "a/b", ".x"} {
		if checkVersion(n) == nil {
			t.Errorf("checkVersion(%q) passes", n)
		}
	}
	if err := checkVersion("v1.0"); err != nil {
		t.Error(err)
	}
}

func TestParseSplitName(t *testing.T) {
	tests := []struct {
		in          string
		name        string
		part, parts int
		ok          bool
	}{
		{"model-00001-of-00002", "model", 1, 2, true},
		{"model-00002-of-00002", "model", 2, 2, true},
		{"model-00003-of-00002", "", 0, 0, false},
		{"model-00000-of-00002", "", 0, 0, false},
		{"model-0001-of-00002", "", 0, 0, false},
		{"model-00001-of-99999", "", 0, 0, false},
		{"model-0000a-of-00002", "", 0, 0, false},
		{"-00001-of-00002", "", 0, 0, false},
		{"model", "", 0, 0, false},
	}
	for _, tt := range tests {
		name, part, parts, ok := parseSplitName(tt.in)
		if name != tt.name || part != tt.part || parts != tt.parts || ok != tt.ok {
			t.Errorf("parseSplitName(%q) = %q, %d, %d, %v", tt.in, name, part, parts, ok)
		}
	}
}

// FuzzName puts a file with any name that the system takes where a model, a version and an organisation may be:
// whatever is listed has a valid name and is inside the models directory.
func FuzzName(f *testing.F) {
	for _, s := range []string{
		"v1.0.gguf", "base.gguf", "..", "...gguf", ".gguf", "v1.gguf.xz", "model-00001-of-00001.gguf", "model.gguf", "model.yaml", "none",
		"a\nb.gguf", "v1\x7f.gguf", "*?[.gguf", "ünïcode.gguf", "-00001-of-00002.gguf", "versions",
	} {
		f.Add(s)
	}
	content := gguf("adapter", 1)
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) == nil && (!filepath.IsLocal(name) || filepath.Clean(name) != name) {
			t.Fatalf("name %q is taken and leaves the directory", name)
		}
		if strings.ContainsAny(name, "/\x00") || len(name) > 200 || name == "" || name == "." || name == ".." {
			return
		}
		root := t.TempDir()
		for _, at := range []string{"one/versions/" + name, "one/" + name, name + "/model.gguf", "org/" + name + "/model.gguf"} {
			path := filepath.Join(root, at)
			if os.MkdirAll(filepath.Dir(path), 0o755) != nil || os.WriteFile(path, content, 0o644) != nil {
				return
			}
			if err := os.Chtimes(path, longAgo, longAgo); err != nil {
				t.Fatal(err)
			}
		}
		r := newTestRegistry(t, RegistryOptions{Dir: root})
		for _, m := range r.Snapshot() {
			if err := CheckName(m.Name); err != nil {
				t.Errorf("listed: %v", err)
			}
			for _, v := range m.Versions {
				if v.Name != BaseVersion && checkVersion(v.Name) != nil {
					t.Errorf("listed version %q", v.Name)
				}
				src := r.source(m.Name, v.Name)
				for _, a := range []*weightsFile{src.base, src.adapter} {
					if a == nil {
						continue
					}
					for _, p := range a.parts {
						if rel, err := filepath.Rel(root, p.realPath); err != nil || !filepath.IsLocal(rel) {
							t.Errorf("%q lies outside", p.realPath)
						}
					}
				}
			}
		}
	})
}
