package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/scripts/await"
)

// The test's own program plays bench-gpu and the process of a part, by these variables, and llama-server by its name.
const (
	playedBench = "TANDEM_TEST_BENCH"
	playedPart  = "TANDEM_TEST_PART"
)

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == peerName:
		playPeer(os.Args[1:])
	case os.Getenv(playedBench) != "":
		main()
	case os.Getenv(playedPart) != "":
		playPart(os.Args[1], os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

// playPart does what the name says and never returns where a part wouldn't.
func playPart(name, rows string) {
	file, err := os.OpenFile(rows, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		panic(err)
	}
	b := &bench{name: name, file: file}
	b.add("work", "figure", "unit", "column", 7)
	switch name {
	case "hangs":
		server := exec.Command("sleep", "1000")
		if err := server.Start(); err != nil {
			panic(err)
		}
		b.note("%d", server.Process.Pid)
		select {}
	case "fails":
		b.tell(finding{Failed: "the reason"})
	case "stops in time":
		b.tell(finding{OutOfTime: "the server isn't ready"})
	case "dies":
		os.Exit(3)
	case "skips":
		b.tell(finding{Skipped: "no such thing"})
	case "is cut off":
		fmt.Fprint(file, `{"row":{"work":"half`)
	}
}

// A part that hangs, fails or dies is told, with what it measured before, and the others run.
func TestPartsDoNotHarmEachOther(t *testing.T) {
	t.Setenv(playedPart, "yes")
	dir := t.TempDir()
	r := &runner{results: &results{}, deadline: time.Now().Add(time.Hour), self: os.Args[0], out: dir,
		arguments: func(part, rows string, _ time.Duration) []string { return []string{part, rows} }}
	want := []struct{ name, status, reason string }{
		{"hangs", statusOutOfTime, "ended after its 10s"}, // enough to start and write, on a busy machine too
		{"stops in time", statusOutOfTime, "ended after its 1m0s: the server isn't ready"},
		{"fails", statusFailed, "the reason"},
		{"dies", statusFailed, "its process ended: exit status 3"},
		{"skips", statusSkipped, "no such thing"},
		{"is cut off", statusDone, ""},
		{"works", statusDone, ""},
	}
	var parts []part
	for _, w := range want {
		limit := time.Minute
		if w.name == "hangs" {
			limit = 10 * time.Second
		}
		parts = append(parts, part{name: w.name, limit: limit})
	}
	found, err := r.run(t.Context(), parts)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var written results
	if err := json.Unmarshal(raw, &written); err != nil || len(written.Parts) != len(want) {
		t.Fatalf("%v: %s", err, raw)
	}
	for i, w := range want {
		p := written.Parts[i]
		if p.Name != w.name || p.Status != w.status || p.Reason != w.reason || len(p.Rows) != 1 || p.Rows[0].Value != 7 {
			t.Errorf("%s: %+v, want %s, %q and its row", w.name, p, w.status, w.reason)
		}
	}
	if pid, err := strconv.Atoi(strings.Join(written.Parts[0].Notes, " ")); err != nil || !await.Every(10*time.Millisecond, 10*time.Second, gone(pid)) {
		t.Errorf("the server of the part that hung still runs: process %q, %v", written.Parts[0].Notes, err)
	}
	if err := failure(found); err == nil ||
		err.Error() != "not all parts were done: hangs (out of time), stops in time (out of time), fails (failed), dies (failed)" {
		t.Errorf("in all: %v", err)
	}
}

// gone reports whether a process has ended; one that nobody waits for may stay as a zombie.
func gone(pid int) func() bool {
	return func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}
}

// When the time of all is over, or somebody interrupts it, what is left is told as not run.
func TestPartsForWhichNoTimeIsLeft(t *testing.T) {
	dir := t.TempDir()
	r := &runner{results: &results{}, deadline: time.Now().Add(leastTime / 2), out: dir}
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx    context.Context
		reason string
	}{{t.Context(), "no time was left"}, {interrupted, "interrupted"}} {
		if p := r.one(c.ctx, part{name: "late", limit: time.Minute}); p.Status != statusNotRun || p.Reason != c.reason {
			t.Errorf("%+v", p)
		}
	}
}

// Where the machine doesn't compute, the rest isn't tried, unless it is asked for by name.
func TestAPartThatAllNeed(t *testing.T) {
	t.Setenv(playedPart, "yes")
	parts := []part{{name: "fails", limit: time.Minute, needed: true}, {name: "works", limit: time.Minute}}
	r := &runner{results: &results{}, deadline: time.Now().Add(time.Hour), self: os.Args[0], out: t.TempDir(),
		arguments: func(part, rows string, _ time.Duration) []string { return []string{part, rows} }}
	found, err := r.run(t.Context(), parts)
	if err != nil || found[1].Status != statusNotRun || !strings.Contains(found[1].Reason, "the part fails failed") {
		t.Errorf("%+v, %v", found[1], err)
	}
	if all := (&options{}).chosen(); !all[0].needed {
		t.Error("machine isn't needed")
	}
	if named := (&options{parts: []string{"machine", "answers"}}).chosen(); len(named) != 2 || named[0].needed {
		t.Errorf("named: %+v", named)
	}
}

// A server that never gets ready costs its part's time and tells its own reason.
func TestAServerThatIsNeverReady(t *testing.T) {
	for script, want := range map[string]string{
		"echo 'level=INFO msg=started'; echo 'level=ERROR msg=\"no kernel image\"'; exec sleep 1000": `the server isn't ready: level=ERROR msg="no kernel image"`,
		"echo \"version 'GLIBC_2.38' not found\"; exec sleep 1000":                                   "the server isn't ready: version 'GLIBC_2.38' not found",
		"echo 'no such library'; exit 1":                                                             "the engine ended: no such library",
	} {
		dir := t.TempDir()
		for name, content := range map[string]string{"tandem-proxy": "exec sleep 1000", "tandem-engine": script, "nvidia-smi": "exit 1"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+content+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		o := &options{programs: dir, out: dir, device: "cpu", part: "machine", rows: filepath.Join(dir, "rows"), limit: timeToEnd + 5*time.Second}
		if err := runPart(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		var found Part
		if found.read(o.rows); found.Reason != want || (found.Status == statusOutOfTime) == (strings.HasPrefix(want, "the engine ended")) {
			t.Errorf("%s: %+v", script, found)
		}
	}
}

func TestRowsOfOneFigureStandInOneLine(t *testing.T) {
	p := Part{Rows: []Row{
		{"1 stream", "speed", "tokens/s", "tandem", 151.26}, {"32 streams", "speed", "tokens/s", "tandem", 2000},
		{"1 stream", "speed", "tokens/s", "llama-server", 9.876},
	}}
	var table strings.Builder
	p.writeRows(&table)
	want := "\n| Work | Figure | tandem | llama-server |\n|---|---|---|---|\n" +
		"| 1 stream | speed, tokens/s | 151 | 9.88 |\n| 32 streams | speed, tokens/s | 2000 |  |\n"
	if table.String() != want {
		t.Errorf("%q, want\n%q", table.String(), want)
	}
}

// The events are our server's and llama-server's.
func TestLastOfCompletion(t *testing.T) {
	for _, c := range []struct {
		event  string
		tokens int
		last   bool
		err    bool
	}{
		{`{"id":"a","choices":[{"index":0,"text":" Paris","logprobs":null,"finish_reason":null}],"usage":null}`, 0, false, false},
		{`{"id":"a","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}`, 0, false, false},
		{`{"id":"a","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":8,"total_tokens":11}}`, 8, true, false},
		{`{"error":{"message":"full"}}`, 0, false, true},
		{`{"usage":{"completion_tokens":`, 0, true, true},
	} {
		if tokens, last, err := lastOfCompletion([]byte(c.event)); tokens != c.tokens || last != c.last || (err != nil) != c.err {
			t.Errorf("%s: %d, %v, %v", c.event, tokens, last, err)
		}
	}
}

func TestLookFindsASample(t *testing.T) {
	page := "# TYPE llm_gpu_power_watts gauge\nllm_gpu_power_watts{device=\"CUDA0\"} 101.5\nllm_gpu_power_watts{device=\"CUDA1\"} 3\n"
	if v := look(page, "llm_gpu_power_watts", `device="CUDA1"`); v != 3 {
		t.Errorf("CUDA1: %v", v)
	}
	if v := look(page, "llm_gpu_power_watts", ""); v != 101.5 {
		t.Errorf("any: %v", v)
	}
	if v := look(page, "llm_gpu", ""); !math.IsNaN(v) {
		t.Errorf("half a name: %v", v)
	}
}

func TestFlagsThatMakeNoSense(t *testing.T) {
	for _, args := range [][]string{{"-streams", "0"}, {"-streams", "1,x"}, {"-streams", "1000"}, {"-parts", "answers,nothing"}, {"-within", "soon"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	o, err := parse([]string{"-quick", "-tokens", "16", "-parts", "kill,answers"})
	if err != nil || o.tokens != 16 || o.shapes[0] != "tiny" || len(o.chosen()) != 2 || o.chosen()[0].name != "answers" {
		t.Errorf("%+v, %v", o, err)
	}
}
