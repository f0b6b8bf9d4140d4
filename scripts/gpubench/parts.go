package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// part is a part of the whole.
type part struct {
	name   string
	limit  time.Duration
	run    func(*bench, context.Context) error
	needed bool // where it fails, the rest isn't worth its time
}

// allParts are in the order in which one would miss them least.
func allParts() []part {
	return []part{
		{name: "machine", limit: 30 * time.Second, run: (*bench).machine, needed: true},
		{name: "answers", limit: time.Minute, run: (*bench).answers},
		{name: "models", limit: 90 * time.Second, run: (*bench).writeModels},
		{name: "throughput", limit: 3 * time.Minute, run: (*bench).throughput},
		{name: "memory", limit: 90 * time.Second, run: (*bench).memory},
		{name: "seeds", limit: 30 * time.Second, run: (*bench).seeds},
		{name: "kill", limit: time.Minute, run: (*bench).kill},
		{name: "nvml", limit: 40 * time.Second, run: (*bench).nvml},
		{name: "kv-layout", limit: 75 * time.Second, run: (*bench).kvLayout},
		{name: "sampling", limit: 75 * time.Second, run: (*bench).sampling},
		{name: "adapters", limit: time.Minute, run: (*bench).adapters},
	}
}

func partNames() (names []string) {
	for _, p := range allParts() {
		names = append(names, p.name)
	}
	return names
}

// chosen are the parts that the flags ask for. Those that are named run whatever becomes of another.
func (o *options) chosen() (list []part) {
	if len(o.parts) == 0 {
		return allParts()
	}
	for _, p := range allParts() {
		if slices.Contains(o.parts, p.name) {
			p.needed = false
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
	Row       *Row   `json:"row,omitempty"`
	Note      string `json:"note,omitempty"`
	Failed    string `json:"failed,omitempty"`
	Skipped   string `json:"skipped,omitempty"`
	OutOfTime string `json:"out_of_time,omitempty"` // what it was at
}

// skipped is why a part measures nothing.
type skipped string

func (s skipped) Error() string { return string(s) }

// timeToEnd is what a part has to say how far it came, before its process is killed.
const timeToEnd = time.Second

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
	ctx, cancel := context.WithTimeout(ctx, o.limit-timeToEnd)
	defer cancel()
	b := &bench{options: o, name: o.part, file: file}
	err = allParts()[i].run(b, ctx)
	var skip skipped
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		b.tell(finding{OutOfTime: err.Error()})
	case errors.As(err, &skip):
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
