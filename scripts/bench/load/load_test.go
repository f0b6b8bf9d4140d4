package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(100-i))
	}
	for _, c := range []struct {
		values  []float64
		percent float64
		want    float64
	}{
		{hundred, 99, 99}, {hundred, 50, 50}, {hundred, 100, 100}, {hundred, 0, 1},
		{[]float64{7}, 99, 7}, {[]float64{2, 1}, 99, 2}, {[]float64{2, 1}, 50, 1},
	} {
		if got := Percentile(c.values, c.percent); got != c.want {
			t.Errorf("%g %% of %d values: %g, want %g", c.percent, len(c.values), got, c.want)
		}
	}
	if !math.IsNaN(Percentile(nil, 50)) || !math.IsNaN(Median(nil)) {
		t.Error("no values have a percentile")
	}
	if m := Median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median %g", m)
	}
}

func TestPoissonArrivals(t *testing.T) {
	times := Poisson(50, 100*time.Second, 3)
	if n := len(times); n < 4700 || n > 5300 { // 5,000 with a deviation of 71
		t.Errorf("%d arrivals", n)
	}
	longer := 0 // gaps above the mean: 1/e of them
	for i := 1; i < len(times); i++ {
		if times[i]-times[i-1] > 20*time.Millisecond {
			longer++
		}
	}
	if share := float64(longer) / float64(len(times)); share < 0.34 || share > 0.40 {
		t.Errorf("%.3f of the gaps are above the mean", share)
	}
}

// testServer answers the prompt's words one by one; "refuse" is 503 and "cut" ends before the last event.
func testServer(t *testing.T) Server {
	h := func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		body.ReadFrom(r.Body)
		if body.String() == "refuse" {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "full", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		words := strings.Fields(body.String())
		for _, word := range words {
			fmt.Fprintf(w, ": a comment\n\ndata: %s\n\n", word)
			w.(http.Flusher).Flush()
		}
		if words[0] != "cut" {
			fmt.Fprintf(w, "data: end %d\n\n", len(words))
		}
	}
	s := httptest.NewServer(http.HandlerFunc(h))
	t.Cleanup(s.Close)
	return Server{
		Name: "test",
		Request: func(j Job) (*http.Request, error) {
			return http.NewRequest("POST", s.URL, strings.NewReader(j.Prompt))
		},
		Last: func(event []byte) (tokens int, last bool, err error) {
			if !bytes.HasPrefix(event, []byte("end ")) {
				return 0, false, nil
			}
			_, err = fmt.Sscanf(string(event), "end %d", &tokens)
			return tokens, true, err
		},
	}
}

// A server that closes a connection when its next request comes hasn't refused it.
func TestARequestOnAClosedConnectionIsSentAgain(t *testing.T) {
	s := testServer(t)
	var requests atomic.Int32
	closing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 2 {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				c.Close()
			}
			return
		}
		io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "data: word\n\ndata: end 1\n\n")
	}))
	t.Cleanup(closing.Close)
	s.Request = func(j Job) (*http.Request, error) {
		return http.NewRequest("POST", closing.URL, strings.NewReader(j.Prompt))
	}
	run := Closed(context.Background(), s, []Job{{Prompt: "a"}, {Prompt: "b"}}, 1)
	if err := run.Failure(); err != nil || run.Timelines[0].SentAgain || !run.Timelines[1].SentAgain || requests.Load() != 3 {
		t.Errorf("%v, sent again %v and %v, %d requests", err, run.Timelines[0].SentAgain, run.Timelines[1].SentAgain, requests.Load())
	}
}

func TestTimelinesOfReplies(t *testing.T) {
	jobs := []Job{{Prompt: "a b c"}, {Prompt: "refuse"}, {Prompt: "cut off"}, {Prompt: "d"}}
	run := Closed(context.Background(), testServer(t), jobs, 2)
	if n := run.Timelines[0].Tokens + run.Timelines[3].Tokens; n != 4 {
		t.Errorf("%d tokens", n)
	}
	if gaps := run.Gaps(); len(gaps) != 2 || len(run.FirstTokens()) != 2 || len(run.WholeReplies()) != 2 {
		t.Errorf("gaps %v, first tokens %v, whole replies %v", gaps, run.FirstTokens(), run.WholeReplies())
	}
	refused := run.Timelines[1]
	if refused.Status != 503 || refused.RetryAfter != "7" || refused.Err == nil {
		t.Errorf("refused: %+v", refused)
	}
	if !errors.Is(run.Timelines[2].Err, errCutOff) || run.Timelines[2].Tokens != 0 {
		t.Errorf("cut off: %+v", run.Timelines[2])
	}
	if run.Failure() == nil || run.TokensPerSecond() <= 0 || run.RequestsPerSecond() <= 0 {
		t.Errorf("failure %v, %g tokens/s, %g requests/s", run.Failure(), run.TokensPerSecond(), run.RequestsPerSecond())
	}
}

// Requests of an open loop come though earlier ones aren't answered.
func TestOpenLoopDoesNotWaitForReplies(t *testing.T) {
	const requests = 8
	var atOnce atomic.Int64
	all := make(chan struct{})
	s := testServer(t)
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if atOnce.Add(1) == requests {
			close(all)
		}
		<-all
		fmt.Fprint(w, "data: end 1\n\n")
	}))
	t.Cleanup(gate.Close)
	s.Request = func(Job) (*http.Request, error) { return http.NewRequest("POST", gate.URL, nil) }
	run := Open(context.Background(), s, make([]Job, requests), make([]time.Duration, requests))
	if err := run.Failure(); err != nil || len(run.FirstTokens()) != requests {
		t.Errorf("%v; %d replies", err, len(run.FirstTokens()))
	}
}

func TestClientLeavesAtItsDeadline(t *testing.T) {
	never := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(never.Close)
	s := testServer(t)
	s.Request = func(Job) (*http.Request, error) { return http.NewRequest("POST", never.URL, nil) }
	run := Open(context.Background(), s, []Job{{Deadline: 20 * time.Millisecond}}, []time.Duration{0})
	if !errors.Is(run.Failure(), context.DeadlineExceeded) {
		t.Errorf("%v", run.Failure())
	}
}

// Clients are kept busy until the one request beside them is answered, and what they then leave is no failure.
func TestBesideEndsWithTheOneReply(t *testing.T) {
	var clients atomic.Int64
	secondRound := make(chan struct{})
	s := testServer(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := clients.Load(); {
		case r.Header.Get("Prompt") == "one":
			<-secondRound // the clients have had replies, and wait for others
			fmt.Fprint(w, "data: end 3\n\n")
		case n < 2:
			clients.Add(1)
			fmt.Fprint(w, "data: a\n\ndata: end 1\n\n")
		default:
			if clients.Add(1) == 4 {
				close(secondRound)
			}
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	s.Request = func(j Job) (*http.Request, error) {
		r, err := http.NewRequest("POST", server.URL, nil)
		r.Header.Set("Prompt", j.Prompt)
		return r, err
	}
	busy, reply := Beside(context.Background(), s, 2, func(i int) Job { return Job{Prompt: "busy"} }, Job{Prompt: "one"}, 0)
	if reply.Err != nil || reply.Tokens != 3 {
		t.Errorf("the one: %+v", reply)
	}
	if err := busy.Failure(); err != nil || len(busy.Timelines) != 4 {
		t.Errorf("%v; %d timelines", err, len(busy.Timelines))
	}
}

// Others are busy from before the first request to after the last reply, each with its own requests.
func TestMeasuredWhileOthersAreBusy(t *testing.T) {
	othersAsked := make(chan struct{}, 100)
	s := testServer(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Prompt") != "other" {
			<-othersAsked // one of theirs for each of ours
			fmt.Fprint(w, "data: end 3\n\n")
			return
		}
		othersAsked <- struct{}{}
		fmt.Fprint(w, "data: end 1\n\n")
	}))
	t.Cleanup(server.Close)
	s.Request = func(j Job) (*http.Request, error) {
		r, err := http.NewRequest("POST", server.URL, nil)
		r.Header.Set("Prompt", j.Prompt)
		return r, err
	}
	ours := func() Run { return Closed(context.Background(), s, make([]Job, 6), 2) }
	run, busy := WhileBusy(context.Background(), s, 3, func(int) Job { return Job{Prompt: "other"} }, 0, ours)
	if err := errors.Join(run.Failure(), busy.Failure()); err != nil {
		t.Fatal(err)
	}
	if len(run.Timelines) != 6 || run.TokensPerAnswer() != 3 || len(busy.Timelines) < 6 {
		t.Errorf("%d of 6 with %v tokens, beside %d", len(run.Timelines), run.TokensPerAnswer(), len(busy.Timelines))
	}
}

func TestEventsPerSecond(t *testing.T) {
	r := Run{Elapsed: 9 * time.Second, Timelines: []Timeline{
		{Events: []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}},
		{Events: []time.Duration{3 * time.Second, 4 * time.Second}, Err: context.Canceled},
	}}
	if got := r.EventsPerSecond(2*time.Second, 4*time.Second); got != 1.5 {
		t.Errorf("%g, want 3 in two seconds", got)
	}
}

// A refused client comes back once, not before it was told to.
func TestRefusedClientComesBack(t *testing.T) {
	s := testServer(t)
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		fmt.Fprint(w, "data: end 3\n\n")
	}))
	t.Cleanup(server.Close)
	s.Request = func(Job) (*http.Request, error) { return http.NewRequest("POST", server.URL, nil) }
	run := Open(context.Background(), s, []Job{{ComesBack: true}}, []time.Duration{0})
	if len(run.Timelines) != 2 {
		t.Fatalf("%+v", run.Timelines)
	}
	first, again := run.Timelines[0], run.Timelines[1]
	if !first.Refused() || first.Returned || again.Err != nil || !again.Returned || again.Tokens != 3 || again.Sent < first.Ended+time.Second {
		t.Errorf("%+v", run.Timelines)
	}
}

func TestWhatBecameOfARequest(t *testing.T) {
	broken, some := errors.New("broken"), make([]time.Duration, 2)
	left := fmt.Errorf("read: %w", context.DeadlineExceeded)
	late := fmt.Errorf("after two tokens: %w", ErrLate)
	for _, c := range []struct {
		name                  string
		timeline              Timeline
		refused, late, failed bool
	}{
		{"answered", Timeline{Status: 200, Events: some}, false, false, false},
		{"503", Timeline{Status: 503, Err: broken}, true, false, false},
		{"429", Timeline{Status: 429, Err: broken}, true, false, false},
		{"500", Timeline{Status: 500, Err: broken}, false, false, true},
		{"reset", Timeline{Err: broken}, false, false, true},
		{"an error event", Timeline{Status: 200, Err: broken}, false, false, true},
		{"cut off", Timeline{Status: 200, Events: some, Err: errCutOff}, false, false, true},
		{"504", Timeline{Status: 504, Err: broken}, false, true, false},
		{"504 as an event", Timeline{Status: 200, Events: some, Err: late}, false, true, false},
		{"the client left", Timeline{Status: 200, Err: left}, false, true, false},
	} {
		if r, l, f := c.timeline.Refused(), c.timeline.Late(), c.timeline.Failed(); r != c.refused || l != c.late || f != c.failed {
			t.Errorf("%s: refused %v, late %v, failed %v", c.name, r, l, f)
		}
	}
}
