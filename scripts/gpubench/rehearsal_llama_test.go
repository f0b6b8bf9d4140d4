//go:build llama

package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// linkPrograms builds the programs into a directory as a pack has them, with the test GPU among the backends and the
// test's own program as llama-server.
func linkPrograms(t *testing.T) (programs string) {
	t.Helper()
	testGPU, backends := os.Getenv("TESTGPU"), os.Getenv("BACKEND_DIR")
	if testGPU == "" || backends == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TESTGPU and BACKEND_DIR aren't set; make test sets them")
		}
		t.Skip(`SKIPPED without a test GPU; run: export TESTGPU="$(scripts/testgpu/build.sh)"`)
	}
	programs = t.TempDir()
	lib := filepath.Join(programs, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	capitals, err := filepath.Abs("../e2e/testdata/capitals.tsv")
	if err != nil {
		t.Fatal(err)
	}
	links := map[string]string{filepath.Join(lib, filepath.Base(testGPU)): testGPU, filepath.Join(programs, "capitals.tsv"): capitals}
	libraries, err := filepath.Glob(backends + "/*.so*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range libraries {
		links[filepath.Join(lib, filepath.Base(path))] = path
	}
	for link, to := range links {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	linkPeer(t, lib)
	// Without the race detector, whatever this test has: the end-to-end tests have it, and here it takes most of the
	// time.
	for program, source := range map[string]string{"tandem-proxy": "tandem/proxy", "tandem-engine": "tandem/engine"} {
		if out, err := exec.Command("go", "build", "-tags", "llama", "-o", filepath.Join(programs, program), source).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", source, err, out)
		}
	}
	return programs
}

// The whole of bench-gpu on a GPU that the CPU plays: every part runs, and is in the results.
func TestRehearsalOnTheTestGPU(t *testing.T) {
	programs, out, ofMachine := linkPrograms(t), t.TempDir(), t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-quick", "-within", "5m", "-device", "testgpu", "-programs", programs, "-out", out)
	// The engine is to find the backends beside it.
	libraryPath := filepath.Join(programs, "lib") + ":" + ofMachine
	cmd.Env = append(os.Environ(), playedBench+"=yes", "BACKEND_DIR=", "LD_LIBRARY_PATH="+libraryPath)
	output, err := cmd.CombinedOutput()
	t.Logf("%s", output)
	if err != nil {
		t.Errorf("bench-gpu: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(out, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var written results
	if err := json.Unmarshal(raw, &written); err != nil || len(written.Parts) != len(allParts()) {
		t.Fatalf("%v: %s", err, raw)
	}
	table, err := os.ReadFile(filepath.Join(out, "results.md"))
	if err != nil {
		t.Fatal(err)
	}
	// What the CPU can't play is skipped with words.
	mayBeSkipped := map[string]string{"nvml": "NVML tells of NVIDIA's cards alone"}
	for i, p := range written.Parts {
		words, may := mayBeSkipped[p.Name]
		switch {
		case p.Status == statusSkipped && may && strings.HasPrefix(p.Reason, words):
		case p.Status != statusDone || p.Seconds <= 0:
			t.Errorf("%s: %s", p.Name, p.verdict())
			showLog(t, filepath.Join(out, p.Name+".log"))
		case len(p.Rows) == 0:
			t.Errorf("%s measured nothing", p.Name)
		}
		if p.Name != allParts()[i].name || !strings.Contains(string(table), "\n## "+p.Name+"\n") {
			t.Errorf("the table has no part %s", p.Name)
		}
		for _, row := range p.Rows {
			if row.Figure == "speed" && row.Value <= 0 || row.Figure == "planned" && row.Value <= 0 || row.Figure == "measured" && row.Value <= 0 {
				t.Errorf("%s: %+v", p.Name, row)
			}
		}
	}
	log, err := os.ReadFile(filepath.Join(out, "throughput.log"))
	for _, want := range []string{"llama-server", " -dev TestGPU0 ", "LD_LIBRARY_PATH=" + filepath.Join(programs, "lib") + ":" + libraryPath + "\n"} {
		if err != nil || !strings.Contains(string(log), want) {
			t.Errorf("llama-server wasn't started with %q: %v", want, err)
		}
	}
	if !strings.Contains(string(table), "| Work | Figure | tandem | llama-server |") {
		t.Error("nothing is compared with llama-server")
	}
	t.Logf("%s", table)
}

func showLog(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Log(err)
		return
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > 4000 {
		_, _ = file.Seek(-4000, io.SeekEnd) // only shown
	}
	tail, err := io.ReadAll(file)
	t.Logf("%s (%v):\n%s", path, err, tail)
}
