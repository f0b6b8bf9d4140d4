package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// How a part ended.
const (
	statusDone      = "done"
	statusFailed    = "failed"
	statusSkipped   = "skipped"
	statusOutOfTime = "out of time"
	statusNotRun    = "not run"
)

// Row is one value. Those of equal work and figure stand in one line of the table, by their columns.
type Row struct {
	Work   string  `json:"work"`
	Figure string  `json:"figure"`
	Unit   string  `json:"unit,omitempty"`
	Column string  `json:"column"`
	Value  float64 `json:"value"`
}

// Part is what a part found.
type Part struct {
	Name    string   `json:"name"`
	Status  string   `json:"status"`
	Reason  string   `json:"reason,omitempty"`
	Began   string   `json:"began"`
	Seconds float64  `json:"seconds"`
	Rows    []Row    `json:"rows"`
	Notes   []string `json:"notes,omitempty"`
}

type results struct {
	Version string   `json:"version"`
	Began   string   `json:"began"`
	Command string   `json:"command"`
	Notes   []string `json:"notes,omitempty"`
	Parts   []*Part  `json:"parts"`
}

func newResults(o *options) *results {
	return &results{Version: version, Began: now(),
		Command: fmt.Sprintf("bench-gpu -device %s -shapes %s -streams %s -tokens %d -questions %d",
			o.device, strings.Join(o.shapes, ","), o.streamList(), o.tokens, o.questions)}
}

func now() string { return time.Now().UTC().Format(time.RFC3339) }

// takeOver takes over the parts of an earlier run of the same build with the same flags, so that a run of some parts
// adds to it. Results of anything else go aside, named by when they were written.
func (r *results) takeOver(dir string) error {
	path := filepath.Join(dir, "results.json")
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var old results
	if json.Unmarshal(raw, &old) == nil && old.Version == r.Version && old.Command == r.Command {
		r.Parts = old.Parts
		return nil
	}
	file, err := os.Stat(path)
	if err != nil {
		return err
	}
	aside := filepath.Join(dir, "results-"+file.ModTime().UTC().Format("20060102-150405"))
	if err := os.Rename(filepath.Join(dir, "results.md"), aside+".md"); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Rename(path, aside+".json")
}

// put puts a part in its place, over that of an earlier run, which stays if this one wasn't run.
func (r *results) put(p *Part) {
	named := func(other *Part) bool { return other.Name == p.Name }
	if p.Status == statusNotRun && slices.ContainsFunc(r.Parts, named) {
		return
	}
	r.Parts = append(slices.DeleteFunc(r.Parts, named), p)
	place := func(p *Part) int { return slices.Index(partNames(), p.Name) }
	slices.SortStableFunc(r.Parts, func(a, b *Part) int { return place(a) - place(b) })
}

func (p *Part) verdict() string {
	if p.Reason == "" {
		return fmt.Sprintf("%s in %.0f s", p.Status, p.Seconds)
	}
	return fmt.Sprintf("%s after %.0f s: %s", p.Status, p.Seconds, p.Reason)
}

// failure names the parts that failed or weren't finished; what was skipped is no failure.
func failure(parts []*Part) error {
	var names []string
	for _, p := range parts {
		if p.Status != statusDone && p.Status != statusSkipped {
			names = append(names, p.Name+" ("+p.Status+")")
		}
	}
	if names == nil {
		return nil
	}
	return errors.New("not all parts were done: " + strings.Join(names, ", "))
}

// write writes both files, each by way of another, so that what is there is whole.
func (r *results) write(dir string) error {
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the results: %w", err)
	}
	var table strings.Builder
	r.writeTable(&table)
	for name, content := range map[string][]byte{"results.json": append(encoded, '\n'), "results.md": []byte(table.String())} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".part", content, 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".part", path); err != nil {
			return err
		}
	}
	return nil
}

func (r *results) writeTable(w io.Writer) {
	fmt.Fprintf(w, "# Results on a GPU\n\nWritten by `%s` (%s), begun %s. Every value: `results.json`.\n", r.Command, r.Version, r.Began)
	writeNotes(w, r.Notes)
	for _, p := range r.Parts {
		fmt.Fprintf(w, "\n## %s\n\n%s\n", p.Name, p.verdict())
		if p.Began < r.Began {
			fmt.Fprintf(w, "\nOf an earlier run with the same build and flags, begun %s.\n", p.Began)
		}
		p.writeRows(w)
		writeNotes(w, p.Notes)
	}
}

func writeNotes(w io.Writer, notes []string) {
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n- %s\n", strings.Join(notes, "\n- "))
	}
}

// line is one line of a part's table.
type line struct {
	work, figure, unit string
	values             map[string]float64 // by column
}

// lines gathers the rows into lines, in the order in which they were told.
func (p *Part) lines() (lines []*line, columns []string) {
	place, seen := map[[2]string]*line{}, map[string]bool{}
	for _, row := range p.Rows {
		if !seen[row.Column] {
			seen[row.Column] = true
			columns = append(columns, row.Column)
		}
		key := [2]string{row.Work, row.Figure}
		if place[key] == nil {
			place[key] = &line{work: row.Work, figure: row.Figure, unit: row.Unit, values: map[string]float64{}}
			lines = append(lines, place[key])
		}
		place[key].values[row.Column] = row.Value
	}
	return lines, columns
}

func (p *Part) writeRows(w io.Writer) {
	lines, columns := p.lines()
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| Work | Figure | %s |\n|---|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, l := range lines {
		figure := l.figure
		if l.unit != "" {
			figure += ", " + l.unit
		}
		fmt.Fprintf(w, "| %s | %s |", l.work, figure)
		for _, c := range columns {
			text := ""
			if v, ok := l.values[c]; ok {
				text = number(v)
			}
			fmt.Fprintf(w, " %s |", text)
		}
		fmt.Fprintln(w)
	}
}

// number shows three digits that count, and whole numbers as they are.
func number(v float64) string {
	switch {
	case v == math.Trunc(v), math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
