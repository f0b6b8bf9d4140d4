package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// status is how a case ended.
type status string

const (
	passed  status = "ok"
	failed  status = "fail"
	skipped status = "skip"    // the client has no such thing
	pending status = "pending" // the server has no such endpoint
)

// result is what a suite tells about one case of one client.
type result struct {
	Client  string  `json:"client"`
	Version string  `json:"version"`
	Case    string  `json:"case"`
	Status  status  `json:"status"`
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
}

// report collects results.
type report struct {
	cases        []string
	allowPending bool
	clients      []string // in the order of the table
	results      []result
}

// readCases returns the names in cases.txt.
func readCases(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the list of cases: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if name, _, found := strings.Cut(line, " "); found && name != "#" {
			names = append(names, name)
		}
	}
	return names, nil
}

// add takes one result, as JSON.
func (r *report) add(s *suite, line []byte) error {
	var n result
	if err := json.Unmarshal(line, &n); err != nil {
		return fmt.Errorf("read a result of the suite %s, %q: %w", s.name, line, err)
	}
	if !slices.Contains([]status{passed, failed, skipped, pending}, n.Status) {
		return fmt.Errorf("the suite %s has the status %q for %s", s.name, n.Status, n.Case)
	}
	if !slices.Contains(s.clients, n.Client) || !slices.Contains(r.cases, n.Case) || r.find(n.Client, n.Case) != nil {
		return fmt.Errorf("the suite %s has an unknown or second result: client %s, case %s", s.name, n.Client, n.Case)
	}
	r.keep(n)
	return nil
}

// keep enters a result and says it.
func (r *report) keep(n result) {
	r.results = append(r.results, n)
	fmt.Fprintf(os.Stderr, "test-clients: %-20s %-17s %-8s %5.2f s  %s\n", n.Client, n.Case, n.Status, n.Seconds, firstLine(n.Detail))
}

// endSuite makes failures of the cases of which a suite told nothing.
func (r *report) endSuite(s *suite, err error) {
	r.clients = append(r.clients, s.clients...)
	for _, client := range s.clients {
		for _, c := range r.cases {
			if r.find(client, c) == nil {
				r.keep(result{Client: client, Case: c, Status: failed, Detail: fmt.Sprintf("the suite told nothing of it (end: %v); see out/clients.log", err)})
			}
		}
	}
}

func (r *report) find(client, c string) *result {
	for i := range r.results {
		if n := &r.results[i]; n.Client == client && n.Case == c {
			return n
		}
	}
	return nil
}

// good reports whether there were results and none is a failure.
func (r *report) good() bool {
	bad := r.count(failed)
	if !r.allowPending {
		bad += r.count(pending)
	}
	return bad == 0 && r.count(passed) > 0
}

func (r *report) count(s status) int {
	n := 0
	for i := range r.results {
		if r.results[i].Status == s {
			n++
		}
	}
	return n
}

// print prints a table of cases and clients, and below it what isn't ok and why.
func (r *report) print(to io.Writer) {
	fmt.Fprintln(to)
	for i, client := range r.clients {
		fmt.Fprintf(to, "%3d  %s %s\n", i+1, client, r.version(client))
	}
	fmt.Fprintf(to, "\n%-17s", "")
	for i := range r.clients {
		fmt.Fprintf(to, " %7d", i+1)
	}
	for _, c := range r.cases {
		fmt.Fprintf(to, "\n%-17s", c)
		for _, client := range r.clients {
			fmt.Fprintf(to, " %7s", r.cell(client, c))
		}
	}
	fmt.Fprintln(to)
	for _, s := range []status{skipped, pending, failed} {
		r.printReasons(to, s)
	}
	fmt.Fprintf(to, "\n%d passed, %d failed, %d pending, %d skipped\n", r.count(passed), r.count(failed), r.count(pending), r.count(skipped))
}

func (r *report) cell(client, c string) string {
	n := r.find(client, c)
	if n.Status == failed || n.Status == pending {
		return strings.ToUpper(string(n.Status))
	}
	return string(n.Status)
}

func (r *report) version(client string) string {
	for i := range r.results {
		if n := &r.results[i]; n.Client == client && n.Version != "" {
			return n.Version
		}
	}
	return "?"
}

func (r *report) printReasons(to io.Writer, s status) {
	if r.count(s) == 0 {
		return
	}
	fmt.Fprintf(to, "\n%s:\n", s)
	for i := range r.results {
		if n := &r.results[i]; n.Status == s {
			fmt.Fprintf(to, "  %s %s: %s\n", n.Client, n.Case, firstLine(n.Detail))
		}
	}
}

// firstLine is the beginning of a detail; all of it is in the log.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if characters := []rune(line); len(characters) > 300 {
		line = string(characters[:300]) + " …"
	}
	return line
}
