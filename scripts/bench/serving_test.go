package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"
)

// answersOf is a server whose answers have as many tokens as are told for each of its requests in turn.
func answersOf(t *testing.T, name string, tokens ...int) load.Server {
	next := make(chan int, len(tokens))
	for _, n := range tokens {
		next <- n
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "data: {\"result\":\"\",\"metadata\":{\"tokens_generated\":%d}}\n\n", <-next)
	}))
	t.Cleanup(s.Close)
	request := func(load.Job) (*http.Request, error) { return http.NewRequest(http.MethodPost, s.URL, nil) }
	return load.Server{Name: name, Request: request, Last: lastOfInfer}
}

// A server that answers at half the length, as one with another prompt does, isn't twice as fast.
func TestServersDoTheSameWork(t *testing.T) {
	answers := func(n, tokens int) []int { return slices.Repeat([]int{tokens}, n) }
	for _, c := range []struct {
		name         string
		ours, theirs []int
		rounds       int
		equal        bool
	}{
		{"equal", answers(40, 16), answers(40, 16), 1, true},
		{"half as long", answers(40, 8), answers(40, 16), 1, false},
		{"twice as long", answers(40, 16), answers(40, 8), 2, false},
		{"all a little shorter", answers(40, 16), answers(40, 15), 1, false},
		{"one ends early in one round of two", answers(40, 64), append(answers(39, 64), 1), 2, true},
		{"one of a few ends early", []int{16, 16, 16}, []int{16, 9, 16}, 3, true},
		{"all of a few end early", []int{16, 16, 16}, []int{8, 9, 8}, 3, false},
		{"no tokens told", []int{16, 16, 16}, []int{0, 0, 0}, 3, false},
	} {
		servers := []load.Server{answersOf(t, "tandem", c.ours...), answersOf(t, peerName, c.theirs...)}
		b := &serving{ctx: context.Background(), rounds: c.rounds, began: time.Now()}
		runs, err := b.alternate(c.name, servers, func(s load.Server, round int) (load.Run, error) {
			return b.closed(s, make([]load.Job, len(c.ours)/c.rounds), 1)
		})
		if errors.Is(err, errUnequalWork) == c.equal || c.equal && (err != nil || len(runs) != 2) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A refusal is one that came before the answer began; a server that breaks isn't quick to refuse.
func TestFiguresOfOverload(t *testing.T) {
	second := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	broken := errors.New("status 500")
	answer := load.Timeline{Status: 200, Events: []time.Duration{second(1)}, Ended: second(2)}
	refusal := load.Timeline{Status: 503, RetryAfter: "2", Err: errors.New("full"), Ended: second(0.004)}
	backInTime, backInVain := answer, refusal
	backInTime.Returned, backInVain.Returned = true, true
	afterwards := backInTime
	afterwards.Sent, afterwards.Ended = second(11), second(12)
	run := load.Run{Timelines: []load.Timeline{answer, refusal, {Err: context.DeadlineExceeded}, backInTime, backInVain, afterwards}}
	b := &serving{report: &report.Report{}, began: time.Now()}
	b.addOverload("work", [][]load.Run{{run}}, second(10), 0.5)
	var got []string
	for _, row := range b.report.Rows {
		got = append(got, row.String())
	}
	want := `work, answers in time a second: 0.2
work, answers in time, of capacity: 0.4 (asked: at least 0.9; met: no)
work, refusals (2) p99: 4.00 ms (asked: at most 10; met: yes)
work, let in (4): not answered in time: 0.25
work, Retry-After, median: 2.00 s
work, came back after Retry-After, during the overload (2): in time: 0.5
work, came back after Retry-After, when it was over (1): in time: 1.00 (asked: at least 0.9; met: yes)`
	if strings.Join(got, "\n") != want || failedRequests(run) != nil || len(b.report.Notes) != 0 {
		t.Errorf("got\n%s\n%v %v", strings.Join(got, "\n"), failedRequests(run), b.report.Notes)
	}
	run.Timelines = append(run.Timelines, load.Timeline{Status: 500, Err: broken})
	if took, _ := refused(run); len(took) != 2 {
		t.Errorf("%d refusals", len(took))
	}
	if err := failedRequests(run); !errors.Is(err, errFailedRequests) || !errors.Is(err, broken) {
		t.Errorf("a request that failed: %v", err)
	}
}

func TestNotesAreBrokenIntoLines(t *testing.T) {
	long := strings.Repeat("x", pageWidth+1)
	for text, want := range map[string]string{
		"":                           "",
		"two  words":                 "two words",
		"a " + long + " b":           "a\n" + long + "\nb",
		strings.Repeat("12345 ", 20): strings.TrimSpace(strings.Repeat("12345 ", 19)) + "\n12345",
	} {
		if got := wrapped(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// A stream may say of a request that was let in that its time won't be enough: that is late, and no failure.
func TestEventsThatSayThatTimeRunsOut(t *testing.T) {
	for event, late := range map[string]bool{
		`{"error":{"type":"queue_full","message":"not complete within 20s"}}`: true,
		`{"error":{"type":"deadline_exceeded"}}`:                              true,
		`{"error":{"type":"queue_timeout"}}`:                                  true,
		`{"error":{"type":"internal"}}`:                                       false,
	} {
		if err := refusal([]byte(event)); err == nil || errors.Is(err, load.ErrLate) != late {
			t.Errorf("%s: %v", event, err)
		}
	}
	if err := refusal([]byte(`{"token":"queue_full"}`)); err != nil {
		t.Errorf("a token: %v", err)
	}
}

// How much longer the small key's answers take is told of all rounds together, with its parts and what it costs the
// other key.
func TestFiguresOfTwoKeys(t *testing.T) {
	answers := func(ttft, gap time.Duration) load.Run {
		first := load.Timeline{Events: []time.Duration{ttft, ttft + gap}, Ended: ttft + gap, Tokens: 5}
		return load.Run{Timelines: []load.Timeline{first, first}, Elapsed: time.Second}
	}
	b := &serving{report: &report.Report{}, began: time.Now()}
	ms := time.Millisecond
	b.addTwoKeys("work", &twoKeysRuns{
		alone:      []load.Run{answers(100*ms, 100*ms), answers(200*ms, 100*ms), answers(100*ms, 100*ms)},
		beside:     []load.Run{answers(200*ms, 300*ms), answers(200*ms, 400*ms), answers(150*ms, 300*ms)},
		largeAlone: []float64{300, 400, 300}, largeBeside: []float64{150, 300, 240},
	})
	var got []string
	for _, row := range b.report.Rows {
		got = append(got, row.String())
	}
	want := `work, whole answer p95 of the small key alone, of all rounds: 0.3 s
work, the same beside the other key ÷ alone: 2.00 (asked: at most 1.5; met: no)
work, TTFT p95 of all rounds beside the other key ÷ alone: 1.00
work, gap between tokens beside the other key ÷ alone: 3.00
work, tokens/s of the small key beside the other: 10.0
work, tokens/s of the other key, beside the small one ÷ alone: 0.75`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestOtherAPIKey(t *testing.T) {
	s := load.Server{Request: func(load.Job) (*http.Request, error) {
		r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1/infer", nil)
		r.Header.Set("X-API-Key", "bench-key")
		return r, err
	}}
	other, _ := withAPIKey(s, "large-key").Request(load.Job{})
	same, _ := s.Request(load.Job{})
	if other.Header.Get("X-API-Key") != "large-key" || same.Header.Get("X-API-Key") != "bench-key" {
		t.Errorf("%v, %v", other.Header, same.Header)
	}
}
