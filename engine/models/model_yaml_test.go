package models

import (
	"strings"
	"testing"
)

func TestParseModelFile(t *testing.T) {
	m, err := parseModelYAML([]byte(`# a comment
description: Small talk
domain: support
default_version: v1.0
template: off
pooling: cls
defaults:
  temperature: 0.7
  top_p: 0.9
  top_k: 40
  max_new_tokens: 64
checksums:
  model.gguf: C06D2DD2797610EFBF2907B83EBDB19D2012A6D0E758F19F3D322179B7F28983
versions:
  v1.0: {file: model.gguf}
`))
	if err != nil {
		t.Fatal(err)
	}
	if m.Description != "Small talk" || m.Domain != "support" || m.DefaultVersion != "v1.0" || m.Versions["v1.0"].File != "model.gguf" {
		t.Errorf("parsed %+v", m)
	}
	if mode, _ := m.template(); mode != TemplateOff {
		t.Errorf("template %v", mode)
	}
	if pooling, _ := parsePooling(m.Pooling); pooling != PoolingCLS {
		t.Errorf("pooling %v", pooling)
	}
	if *m.Defaults.Temperature != 0.7 || *m.Defaults.TopK != 40 || *m.Defaults.MaxNewTokens != 64 || m.Defaults.MinP != nil {
		t.Errorf("defaults %+v", m.Defaults)
	}
	if m.Checksums["model.gguf"][:4] != "c06d" {
		t.Errorf("checksums %v", m.Checksums)
	}
}

func TestParseModelFileErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown key", "description: x\ntemprature: 1\n", "line 2: field temprature is not a known key"},
		{"unknown default", "defaults:\n  temp: 1\n", "line 2: field temp"},
		{"repeated key", "domain: a\ndomain: b\n", "line 2"},
		{"wrong type", "defaults: {top_k: many}\n", "line 1"},
		{"not a map", "- a\n", "line 1"},
		{"broken", "a: [\n", "line"},
		{"two documents", "domain: a\n---\ndomain: b\n", "more than one document"},
		{"temperature", "defaults: {temperature: -1}\n", "defaults.temperature"},
		{"not a number", "defaults: {top_p: .nan}\n", "defaults.top_p"},
		{"max_new_tokens", "defaults: {max_new_tokens: 0}\n", "defaults.max_new_tokens"},
		{"template", "template: maybe\n", "template"},
		{"pooling", "pooling: median\n", "must be mean, cls, last or rank"},
		{"checksum", "checksums: {model.gguf: abc}\n", "checksums.model.gguf"},
		{"version name", "versions: {base: {file: model.gguf}}\n", "reserved"},
		{"weights outside", "file: ../model.gguf\n", "must name a file"},
		{"weights of another kind", "file: model.bin\n", "must end with"},
		{"file outside", "versions: {v1: {file: ../x/model.gguf}}\n", "must name a file"},
		{"absolute file", "versions: {v1: {file: /etc/model.gguf}}\n", "must name a file"},
		{"file of another kind", "versions: {v1: {file: model.bin}}\n", "must end with"},
		{"domain", "domain: a b\n", "domain"},
		{"too long", "description: " + strings.Repeat("x", maxModelYAMLBytes), "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseModelYAML([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := parseModelYAML(nil); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func FuzzModelYAML(f *testing.F) {
	f.Add([]byte("description: x\ndefaults: {temperature: 1}\nversions: {v1: {file: a.gguf}}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseModelYAML(text)
		if err != nil {
			return
		}
		for name := range m.Versions {
			if checkVersion(name) != nil {
				t.Errorf("accepted version %q", name)
			}
		}
	})
}
