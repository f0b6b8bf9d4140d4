package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// readResults reads results.json.
func readResults(t *testing.T, path string) (r results) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A run of some parts adds to what an earlier one of the same build found with the same flags.
func TestARunOfSomePartsAdds(t *testing.T) {
	dir := t.TempDir()
	o := &options{device: "cuda", shapes: []string{"1b"}, streams: []int{1}}
	first := newResults(o)
	first.Began = "2026-01-01T00:00:00Z"
	for _, name := range []string{"machine", "throughput", "sampling"} {
		first.put(&Part{Name: name, Status: statusDone, Began: first.Began, Seconds: 1})
	}
	if err := first.write(dir); err != nil {
		t.Fatal(err)
	}
	second := newResults(o)
	if err := second.takeOver(dir); err != nil {
		t.Fatal(err)
	}
	second.put(&Part{Name: "throughput", Status: statusFailed, Began: second.Began, Seconds: 2})
	second.put(&Part{Name: "answers", Status: statusDone, Began: second.Began, Seconds: 2})
	second.put(&Part{Name: "sampling", Status: statusNotRun, Began: second.Began})
	if err := second.write(dir); err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, p := range readResults(t, filepath.Join(dir, "results.json")).Parts {
		parts = append(parts, p.Name+" "+p.Status)
	}
	if got := strings.Join(parts, ", "); got != "machine done, answers done, throughput failed, sampling done" {
		t.Errorf("parts: %s", got)
	}
	table, err := os.ReadFile(filepath.Join(dir, "results.md"))
	if err != nil || strings.Count(string(table), "Of an earlier run with the same build and flags, begun 2026-01-01") != 2 {
		t.Errorf("%v, %s", err, table)
	}
}

// Results of another build or with other flags aren't lost, and nothing is added to them.
func TestResultsOfSomethingElseGoAside(t *testing.T) {
	dir := t.TempDir()
	old := newResults(&options{device: "cuda", shapes: []string{"8b"}})
	old.put(&Part{Name: "machine", Status: statusDone})
	if err := old.write(dir); err != nil {
		t.Fatal(err)
	}
	r := newResults(&options{device: "cuda", shapes: []string{"1b"}})
	if err := r.takeOver(dir); err != nil || r.Parts != nil {
		t.Fatalf("%v, %v", err, r.Parts)
	}
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"results-*.json", "results-*.md"} {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(found) != 1 {
			t.Errorf("%s: %q, %v", pattern, found, err)
		} else if strings.HasSuffix(pattern, "json") && readResults(t, found[0]).Command != old.Command {
			t.Errorf("%s isn't the earlier one", found[0])
		}
	}
}

func TestModelsOfAnotherBuildAreDropped(t *testing.T) {
	o := &options{out: t.TempDir()}
	model := filepath.Join(o.models(), "1b", "model.gguf")
	for _, c := range []struct {
		version string
		kept    bool
	}{{"one", false}, {"one", true}, {"two", false}} {
		writeFiles(t, o.models(), map[string]string{"1b/model.gguf": "weights"})
		before := version
		version = c.version
		err := o.dropModelsOfOthers()
		version = before
		if _, there := os.Stat(model); err != nil || (there == nil) != c.kept {
			t.Errorf("%s: %v, %v", c.version, there, err)
		}
	}
}
