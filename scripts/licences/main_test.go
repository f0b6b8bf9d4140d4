package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Whether the files are current is checked by make lint.
func TestTextsAreWhole(t *testing.T) {
	for file, wanted := range map[string][]string{
		"../../proxy/licences.txt":  {"github.com/valyala/fasthttp@", "google.golang.org/grpc@", "go.opentelemetry.io/otel@", "uPlot", "Go standard library"},
		"../../engine/licences.txt": {"github.com/VictoriaMetrics/metrics@", "google.golang.org/grpc@", "go.opentelemetry.io/otel@", "llama.cpp", "nlohmann/json"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range wanted {
			if !strings.Contains(string(text), "==== "+name) {
				t.Errorf("%s doesn't name %s", file, name)
			}
		}
		if strings.Contains(string(text), "goleak") {
			t.Errorf("%s names what only tests use", file)
		}
	}
}

// Every package in the page's bundle must have its licence in the folder extra.
func TestBundleHoldsNothingElse(t *testing.T) {
	raw, err := os.ReadFile("../../proxy/server/page/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Dependencies map[string]string }
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest.Dependencies) != 1 || manifest.Dependencies["uplot"] == "" {
		t.Errorf("the page depends on %v, of which only uplot has a text here", manifest.Dependencies)
	}
}

func TestLicenceFiles(t *testing.T) {
	for name, want := range map[string]bool{
		"LICENSE": true, "LICENSE.txt": true, "License.md": true, "COPYING": true, "NOTICE.txt": true, "PATENTS": true, "LICENSE-MIT": true,
		"license.go": false, "licenses_test.go": false, "README.md": false, "notice.go": false,
	} {
		if got := isLicence(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
