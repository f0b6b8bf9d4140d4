package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	leastTime = 2 * time.Second // what a part must have left to be begun
	// settleTime is what a driver gets to give back the memory of servers that were killed: the next part looks at it.
	settleTime = 2 * time.Second
)

// runner runs each part as a process and collects what it found.
type runner struct {
	results   *results
	deadline  time.Time
	self      string
	arguments func(part, rows string, limit time.Duration) []string
	out       string
	settle    time.Duration
	over      string // why no more parts are run
}

// run runs the parts one after the other and writes the results after each. Only results that can't be written are an
// error.
func (r *runner) run(ctx context.Context, parts []part) (all []*Part, err error) {
	for i, p := range parts {
		fmt.Printf("%s: part %d of %d ...\n", p.name, i+1, len(parts))
		found := r.one(ctx, p)
		all = append(all, found)
		r.results.put(found)
		fmt.Printf("%s: %s\n", p.name, found.verdict())
		if err := r.results.write(r.out); err != nil {
			return all, err
		}
		if p.needed && failure([]*Part{found}) != nil {
			r.over = "the part " + p.name + " failed; -parts runs others all the same"
		}
		if found.Status == statusOutOfTime {
			pause(ctx, r.settle)
		}
	}
	fmt.Printf("written to %s\n", filepath.Join(r.out, "results.md"))
	return all, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (r *runner) one(ctx context.Context, p part) *Part {
	found := &Part{Name: p.name, Began: now()}
	limit := min(p.limit, time.Until(r.deadline))
	switch {
	case ctx.Err() != nil:
		found.Status, found.Reason = statusNotRun, "interrupted"
		return found
	case r.over != "":
		found.Status, found.Reason = statusNotRun, r.over
		return found
	case limit < leastTime:
		found.Status, found.Reason = statusNotRun, "no time was left"
		return found
	}
	began := time.Now()
	rows := filepath.Join(r.out, p.name+".rows")
	end := r.process(ctx, p.name, rows, limit)
	found.Seconds = time.Since(began).Seconds()
	found.read(rows)
	switch ended := fmt.Sprintf("ended after its %v", limit.Round(time.Second)); {
	case found.Status == statusOutOfTime:
		found.Reason = ended + ": " + found.Reason
	case errors.Is(end, context.DeadlineExceeded):
		found.Status, found.Reason = statusOutOfTime, ended
	case end != nil:
		found.Status, found.Reason = statusFailed, "its process ended: "+end.Error()
	}
	return found
}

// process runs a part to its end, which is nil, how its process ended, or that it ran out of time.
func (r *runner) process(ctx context.Context, name, rows string, limit time.Duration) error {
	if err := os.Remove(rows); err != nil && !os.IsNotExist(err) {
		return err
	}
	log, err := os.Create(filepath.Join(r.out, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.self, r.arguments(name, rows, limit)...)
	cmd.Stdout, cmd.Stderr = log, log
	// Its own group, so that its servers end with it; a server's children are of other groups and end with the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// read takes over what the part's process told, however it ended.
func (p *Part) read(rows string) {
	p.Status = statusDone
	file, err := os.Open(rows)
	if err != nil {
		p.Status, p.Reason = statusFailed, "it told nothing"
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var f finding
		if json.Unmarshal(lines.Bytes(), &f) != nil {
			continue // cut off by the time limit
		}
		switch {
		case f.Row != nil:
			p.Rows = append(p.Rows, *f.Row)
		case f.Note != "":
			p.Notes = append(p.Notes, f.Note)
		case f.Failed != "":
			p.Status, p.Reason = statusFailed, f.Failed
		case f.Skipped != "":
			p.Status, p.Reason = statusSkipped, f.Skipped
		case f.OutOfTime != "":
			p.Status, p.Reason = statusOutOfTime, f.OutOfTime
		}
	}
}
