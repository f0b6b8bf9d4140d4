package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"
)

const (
	servedModel  = "smollm2"
	adapterCount = 8
	peerName     = "llama-server"
)

// serving is a comparison of Tandem with llama-server on a real model, scenario by scenario.
type serving struct {
	ctx      context.Context
	models   string   // directory of models
	model    string   // the real model's file
	adapters []string // files
	demo     string   // the demo model's file
	peers    string   // directory of the programs to compare with; empty: nothing to compare with
	threads  string
	quick    bool
	rounds   int
	report   *report.Report
	began    time.Time
}

// A scenario is a kind of work that users have.
type scenario struct {
	name string
	run  func(*serving) error
}

var scenarios = []scenario{
	{"throughput", (*serving).throughput},
	{"short-answers", (*serving).shortAnswers},
	{"adapters", (*serving).mixedAdapters},
	{"shared-prefix", (*serving).sharedPrefix},
	{"long-prompt", (*serving).longPrompt},
	{"long-beside-streams", (*serving).longBesideStreams},
	{"overload", (*serving).overload},
	{"two-keys", (*serving).twoKeys},
	{"demo", (*serving).demoModel},
	{"owner-stack", (*serving).ownerStack},
}

// benchServing runs all scenarios, or those that BENCH_SCENARIOS lists, and writes the results to BENCH_RESULTS.
func benchServing() error {
	b, err := newServing()
	if err != nil {
		return err
	}
	wanted := os.Getenv("BENCH_SCENARIOS")
	var failed []error
	for i, s := range scenarios {
		if wanted != "" && !strings.Contains(","+wanted+",", ","+s.name+",") {
			continue
		}
		b.say("scenario %d of %d: %s", i+1, len(scenarios), s.name)
		if err := s.run(b); err != nil { // what the others measure counts
			b.say("%s failed: %v", s.name, err)
			b.report.Notes = append(b.report.Notes, fmt.Sprintf("The scenario %s failed: %v", s.name, err))
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
		}
		if err := b.write(); err != nil { // after each, since all take half an hour
			return errors.Join(append(failed, err)...)
		}
	}
	if len(b.report.Rows) == 0 {
		failed = append(failed, fmt.Errorf("BENCH_SCENARIOS=%s: %w", wanted, errNothingMeasured))
		return errors.Join(failed...)
	}
	return errors.Join(append(failed, b.report.WriteMarkdown(os.Stdout))...)
}

func newServing() (*serving, error) {
	file := os.Getenv("SMOLLM2")
	if file == "" {
		return nil, errors.New("SMOLLM2 names no model; scripts/models/fetch.sh smollm2 prints the path of one")
	}
	root := filepath.Join(envOr("BENCH_DIR", filepath.Join(os.TempDir(), "tandem-bench")), "serving")
	b := &serving{ctx: context.Background(), models: root, peers: os.Getenv("PEERS"), threads: envOr("THREADS", "2"),
		quick: os.Getenv("QUICK") == "1", rounds: 3, began: time.Now()}
	if b.quick {
		b.rounds = 1
	}
	dir := filepath.Join(root, servedModel)
	b.model = filepath.Join(dir, "model.gguf")
	var err error
	if b.adapters, err = ensureAdapters(filepath.Join(dir, "versions"), adapterCount); err != nil {
		return nil, err
	}
	settings, err := withoutTemplate(dir)
	if err != nil {
		return nil, err
	}
	if err := linkOrCopyModel(file, b.model); err != nil {
		return nil, err
	}
	if err := makeOld(append([]string{b.model, settings}, b.adapters...)); err != nil {
		return nil, err
	}
	if b.demo, err = ensureDemoModel(filepath.Join(root, demoModelName)); err != nil {
		return nil, err
	}
	b.report = &report.Report{Machine: machine(), Date: time.Now().UTC().Format(time.DateOnly), Revision: revision(),
		Model: "SmolLM2-135M-Instruct Q4_1", Command: b.command()}
	return b, nil
}

// withoutTemplate lets prompts of a directory's model go to it as they are, as llama-server's /completion does.
func withoutTemplate(dir string) (path string, err error) {
	path = filepath.Join(dir, "model.yaml")
	return path, os.WriteFile(path, []byte("template: off\n"), 0o644)
}

// makeOld sets files' times back: a model whose files changed a moment ago isn't served yet.
func makeOld(paths []string) error {
	before := time.Now().Add(-time.Minute)
	for _, path := range paths {
		if err := os.Chtimes(path, before, before); err != nil {
			return err
		}
	}
	return nil
}

func (b *serving) command() string {
	if b.quick {
		return "make bench QUICK=1"
	}
	return "make bench"
}

func revision() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func (b *serving) say(format string, args ...any) {
	fmt.Printf("%5.0fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// add appends a copy of a row, which the caller may go on to change, and shows it.
func (b *serving) add(r *report.Row) {
	own := *r
	b.report.Rows = append(b.report.Rows, &own)
	b.say("%s", r)
}

// full is a number of requests, or the smaller one of a quick run.
func (b *serving) full(n, quick int) int {
	if b.quick {
		return quick
	}
	return n
}

// write writes table, values and picture of what was measured so far into BENCH_RESULTS, if it is set.
func (b *serving) write() error {
	dir := os.Getenv("BENCH_RESULTS")
	if dir == "" || len(b.report.Rows) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range map[string]func(*os.File) error{
		"results.md":   func(f *os.File) error { return b.writePage(f) },
		"results.json": func(f *os.File) error { return b.report.WriteJSON(f) },
		"results.svg":  func(f *os.File) error { return b.report.WritePicture(f) },
	} {
		if err := writeFile(filepath.Join(dir, name), write); err != nil {
			return err
		}
	}
	b.say("written to %s", dir)
	return nil
}

func writeFile(path string, write func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func (b *serving) writePage(f *os.File) error {
	r := b.report
	fmt.Fprintf(f, "# Results\n\nWritten by `%s` on %s: %s, %s threads,\nrevision %s, %s. Medians of as many alternating rounds as a row\n"+
		"says; a ratio is the median of the rounds' own. What each piece of work is: [README.md](README.md). Every round's\n"+
		"value: `results.json`.\n\n", r.Command, r.Date, r.Machine, b.threads, r.Revision, r.Model)
	if err := r.WriteMarkdown(f); err != nil {
		return err
	}
	for _, note := range r.Notes {
		fmt.Fprintf(f, "\n%s\n", wrapped(note))
	}
	return nil
}

// pageWidth is how long the lines of a page may be.
const pageWidth = 118

// wrapped breaks a text at its spaces into lines of a page; a longer word has a line of its own.
func wrapped(text string) string {
	var b strings.Builder
	width := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case width == 0:
		case width+1+n > pageWidth:
			b.WriteByte('\n')
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String()
}

// alternate runs the same work on each server, round by round, and returns the runs by server and round.
func (b *serving) alternate(what string, servers []load.Server, work func(s load.Server, round int) (load.Run, error)) ([][]load.Run, error) {
	runs := make([][]load.Run, len(servers))
	for round := range b.rounds {
		for i, s := range servers {
			b.say("%s: round %d of %d, %s", what, round+1, b.rounds, s.Name)
			run, err := work(s, round)
			if err != nil {
				return nil, err
			}
			b.say("    %s", summary(run))
			runs[i] = append(runs[i], run)
		}
	}
	return runs, sameWork(servers, runs)
}

// mostUnequal is how far apart the mean lengths of two servers' answers may be, by the longer; where there are fewer
// than twenty, as far as one answer can move them. The kernels of two servers add up in different orders, so now and
// then a greedy answer goes another way and ends earlier. Another prompt, template or limit changes most of them.
const mostUnequal = 0.05

var errUnequalWork = errors.New("the servers don't do the same work")

// sameWork fails if a server's answers, of all rounds together, are longer or shorter than ours.
func sameWork(servers []load.Server, runs [][]load.Run) error {
	ours := together(runs[0])
	most := max(mostUnequal, 1/float64(len(ours.Timelines)))
	for i, s := range servers[1:] {
		a, b := ours.TokensPerAnswer(), together(runs[1+i]).TokensPerAnswer()
		if math.Abs(a-b) <= most*max(a, b) { // not so where one is NaN
			continue
		}
		return fmt.Errorf("%w: answers have %.2f tokens of %s and %.2f of %s, more than %.0f %% apart", errUnequalWork,
			a, servers[0].Name, b, s.Name, 100*most)
	}
	return nil
}

func together(rounds []load.Run) load.Run {
	var all load.Run
	for _, r := range rounds {
		all.Timelines = append(all.Timelines, r.Timelines...)
	}
	return all
}

// summary is a run as a line of progress.
func summary(run load.Run) string {
	line := fmt.Sprintf("%.1f tokens/s, %.1f an answer; medians: TTFT %.0f ms", run.TokensPerSecond(),
		run.TokensPerAnswer(), 1000*load.Median(run.FirstTokens()))
	if gaps := run.Gaps(); len(gaps) > 0 {
		line += fmt.Sprintf(", gap %.1f ms", 1000*load.Median(gaps))
	}
	again := 0
	for i := range run.Timelines {
		if run.Timelines[i].SentAgain {
			again++
		}
	}
	if again > 0 {
		line += fmt.Sprintf("; %d requests were sent again, since their connections were closed", again)
	}
	return line
}

// closed is a closed loop in which every request must be answered.
func (b *serving) closed(s load.Server, jobs []load.Job, clients int) (load.Run, error) {
	run := load.Closed(b.ctx, s, jobs, clients)
	return run, run.Failure()
}

// each computes a figure of each round.
func each(runs []load.Run, figure func(load.Run) float64) []float64 {
	var values []float64
	for _, r := range runs {
		values = append(values, figure(r))
	}
	return values
}

// compare makes a row of a figure of our runs and the peer's; theirs may be missing.
func compare(row report.Row, runs [][]load.Run, figure func(load.Run) float64) *report.Row {
	row.Ours = each(runs[0], figure)
	if len(runs) > 1 {
		row.Peer, row.Theirs = peerName, each(runs[1], figure)
	}
	return &row
}

func ttftP99(r load.Run) float64  { return load.Percentile(r.FirstTokens(), 99) }
func wholeP99(r load.Run) float64 { return load.Percentile(r.WholeReplies(), 99) }
