package main

import (
	"fmt"
	"strings"
	"testing"
)

// told is a report to which one suite told these results, given as client, case and status.
func told(t *testing.T, lines ...string) (*report, error) {
	t.Helper()
	r := &report{cases: []string{"chat", "stream"}}
	s := &suite{name: "s", clients: []string{"one"}}
	for _, line := range lines {
		f := strings.Fields(line)
		if err := r.add(s, fmt.Appendf(nil, `{"client":%q,"version":"1.0","case":%q,"status":%q,"detail":"why"}`, f[0], f[1], f[2])); err != nil {
			return r, err
		}
	}
	r.endSuite(s, nil)
	return r, nil
}

func TestWhatCountsAsGood(t *testing.T) {
	for name, c := range map[string]struct {
		results      []string
		allowPending bool
		good         bool
	}{
		"all passed":               {results: []string{"one chat ok", "one stream ok"}, good: true},
		"one skipped":              {results: []string{"one chat ok", "one stream skip"}, good: true},
		"all skipped":              {results: []string{"one chat skip", "one stream skip"}},
		"one failed":               {results: []string{"one chat ok", "one stream fail"}},
		"pending":                  {results: []string{"one chat ok", "one stream pending"}},
		"pending, which may be":    {results: []string{"one chat ok", "one stream pending"}, allowPending: true, good: true},
		"the suite ended early":    {results: []string{"one chat ok"}},
		"it ended, pending may be": {results: []string{"one chat ok"}, allowPending: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := told(t, c.results...)
			if err != nil {
				t.Fatal(err)
			}
			r.allowPending = c.allowPending
			if r.good() != c.good {
				t.Errorf("good: %v, results %+v", r.good(), r.results)
			}
		})
	}
}

func TestResultsThatNoSuiteMayTell(t *testing.T) {
	for _, last := range []string{"two chat ok", "one other ok", "one chat fine", "one stream ok"} {
		if _, err := told(t, "one stream ok", last); err == nil {
			t.Errorf("%s was taken", last)
		}
	}
}

func TestTableShowsEveryCase(t *testing.T) {
	r, err := told(t, "one chat skip")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	r.print(&b)
	for _, want := range []string{"1  one 1.0\n", "chat                 skip\n", "stream               FAIL\n", "one chat: why\n", "0 passed, 1 failed, 0 pending, 1 skipped\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}
