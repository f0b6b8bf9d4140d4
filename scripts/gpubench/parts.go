package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// part is a part of the whole.
type part struct {
	name  string
	limit time.Duration
	run   func(*bench, context.Context) error
}

// allParts are in the order in which one would miss them least.
func allParts() []part {
	return []part{
		{"machine", 30 * time.Second, (*bench).machine},
		{"answers", time.Minute, (*bench).answers},
		{"models", 90 * time.Second, (*bench).writeModels},
		{"throughput", 3 * time.Minute, (*bench).throughput},
		{"memory", 90 * time.Second, (*bench).memory},
		{"seeds", 30 * time.Second, (*bench).seeds},
		{"kill", time.Minute, (*bench).kill},
		{"nvml", 40 * time.Second, (*bench).nvml},
		{"kv-layout", 75 * time.Second, (*bench).kvLayout},
		{"sampling", 75 * time.Second, (*bench).sampling},
		{"adapters", time.Minute, (*bench).adapters},
	}
}

func partNames() (names []string) {
	for _, p := range allParts() {
		names = append(names, p.name)
	}
	return names
}

// chosen are the parts that the flags ask for.
func (o *options) chosen() (list []part) {
	for _, p := range allParts() {
		if len(o.parts) == 0 || slices.Contains(o.parts, p.name) {
			list = append(list, p)
		}
	}
	return list
}

// bench is a part at work.
type bench struct {
	*options
	name string
	file *os.File // of its findings
}

// finding is a line of the file by which a part's process tells what it found.
type finding struct {
	Row     *Row   `json:"row,omitempty"`
	Note    string `json:"note,omitempty"`
	Failed  string `json:"failed,omitempty"`
	Skipped string `json:"skipped,omitempty"`
}

// skipped is why a part measures nothing.
type skipped string

func (s skipped) Error() string { return string(s) }

// runPart is the process of one part.
func runPart(ctx context.Context, o *options) error {
	i := slices.IndexFunc(allParts(), func(p part) bool { return p.name == o.part })
	if i < 0 {
		return fmt.Errorf("there is no part %q", o.part)
	}
	file, err := os.OpenFile(o.rows, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	b := &bench{options: o, name: o.part, file: file}
	switch err := allParts()[i].run(b, ctx).(type) {
	case nil:
	case skipped:
		b.tell(finding{Skipped: err.Error()})
	default:
		b.tell(finding{Failed: err.Error()})
	}
	return nil
}

// tell writes a finding at once, so that it counts whatever comes next.
func (b *bench) tell(f finding) {
	line, err := json.Marshal(f)
	if err == nil {
		_, err = b.file.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "write what the part %s found: %v\n", b.name, err)
	}
}

// add tells one value; column is what it is compared by.
func (b *bench) add(work, figure, unit, column string, value float64) {
	b.tell(finding{Row: &Row{Work: work, Figure: figure, Unit: unit, Column: column, Value: value}})
}

func (b *bench) note(format string, args ...any) { b.tell(finding{Note: fmt.Sprintf(format, args...)}) }
