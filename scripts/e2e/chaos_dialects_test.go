package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// dialectStream is a streamed request of some dialect.
type dialectStream struct {
	name, path string
	read       takeEvent
	body       map[string]any
	says       []string // kinds of what its transcript must have, so that it tests what its name says
	resumed    bool     // the connection breaks off with each kill, and another one asks for the rest
}

// openStream posts a body, or gets the rest of a stream where there is none.
func (s *testServer) openStream(ctx context.Context, path string, body map[string]any, headers ...string) (*http.Response, error) {
	method, content := http.MethodGet, io.Reader(http.NoBody)
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		method, content = http.MethodPost, strings.NewReader(string(raw))
	}
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, content)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-API-Key", s.key)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("status %d, %w: %s", resp.StatusCode, err, answer)
	}
	return resp, nil
}

// follow streams to the end and kills the engine after each of the events whose numbers are in cuts.
func (d *dialectStream) follow(s *testServer, requestID string, cuts []int) (*transcript, error) {
	t := newTranscript()
	next := d.body
	path, headers := d.path, []string{"X-Request-Id", requestID}
	for {
		resp, err := s.openStream(s.t.Context(), path, next, headers...)
		if err != nil {
			return t, err
		}
		broken := false
		lastID := ""
		err = readEvents(resp.Body, func(e event) bool {
			if d.resumed && e.id != strconv.Itoa(t.events) {
				t.problem("event %d has the id %q", t.events, e.id)
			}
			t.take(e, d.read)
			lastID = e.id
			if len(cuts) == 0 || t.events < cuts[0] {
				return true
			}
			cuts = cuts[1:]
			s.signalEngine(syscall.SIGKILL)
			broken = d.resumed
			return !broken
		})
		resp.Body.Close()
		if err != nil || !broken {
			return t, err
		}
		path, next, headers = "/v1/streams/"+resp.Header.Get("X-Stream-Id"), nil, []string{"Last-Event-ID", lastID}
	}
}

var sentAgainLine = regexp.MustCompile(`msg="request is sent again" request_id=(\S+) .* tokens=(\d+) `)

// replaysOf counts how often a request was sent again so far, and how often with tokens of its answer.
func (s *testServer) replaysOf(requestID string) (all, midAnswer int) {
	for _, m := range sentAgainLine.FindAllStringSubmatch(s.proxy.log.String(), -1) {
		if m[1] != requestID {
			continue
		}
		all++
		if m[2] != "0" {
			midAnswer++
		}
	}
	return all, midAnswer
}

// cutPlans says after which events engines are killed, a list for each time that the stream is followed. In the short
// form that is once, with three kills; in the long one many times with one kill, each at another place, and once with
// four.
func cutPlans(events int, long bool) [][]int {
	last := events - 8 // up to five events come with the last token, and that may have come before the kill
	if !long {
		return [][]int{{2, events / 2, last}}
	}
	var plans [][]int
	for at := 1; at <= last; at += max(1, last/longCuts) {
		plans = append(plans, []int{at})
	}
	return append(plans, []int{2, events / 3, events / 2, last})
}

const longCuts = 24 // single kills of each stream in the long form

// undisturbed follows a stream without kills.
func (d *dialectStream) undisturbed(s *testServer, requestID string) *transcript {
	s.t.Helper()
	want, err := d.follow(s, requestID, nil)
	if err != nil {
		s.t.Fatalf("undisturbed: %v", err)
	}
	if len(want.problems) > 0 || want.events < 14 || !want.ended {
		s.t.Fatalf("undisturbed: %d events, problems %q, in\n%s", want.events, want.problems, strings.Join(want.lines(), "\n"))
	}
	kinds := want.kinds()
	for _, kind := range d.says {
		if kinds[kind] == 0 {
			s.t.Fatalf("undisturbed: no %s in\n%s", kind, strings.Join(want.lines(), "\n"))
		}
		kinds[kind]--
	}
	return want
}

// checkKills follows a stream undisturbed, then through kills, and compares what was said.
func (d *dialectStream) checkKills(s *testServer, long bool) {
	t := s.t
	t.Helper()
	requestID := "dialect-" + strings.NewReplacer(" ", "-", "=", "-").Replace(d.name)
	want := d.undisturbed(s, requestID)
	if long {
		again := d.undisturbed(s, requestID)
		if diff := differences(again, want); diff != "" {
			t.Errorf("undisturbed, twice:\n%s", diff)
		}
	}
	kills := 0
	for _, cuts := range cutPlans(want.events, long) {
		_, before := s.replaysOf(requestID)
		got, err := d.follow(s, requestID, cuts)
		if err != nil {
			t.Errorf("killed after events %v: %v", cuts, err)
		}
		if diff := differences(got, want); diff != "" {
			t.Errorf("killed after events %v:\n%s", cuts, diff)
		}
		kills += len(cuts)
		if _, after := s.replaysOf(requestID); after == before {
			t.Errorf("killed after events %v: no kill fell into the answer", cuts)
		}
	}
	all, midAnswer := s.replaysOf(requestID)
	t.Logf("%d events, %d kills, %d replays, %d of them in mid-answer; %v", want.events, kills, all, midAnswer, want.kinds())
	if midAnswer < kills*3/4 {
		t.Errorf("only %d replays in mid-answer of %d kills", midAnswer, kills)
	}
}

// TestStreamsOfAllDialectsGoOnWhenTheEngineIsKilled kills in the middle of streams of every dialect. A short form runs
// with the other tests; CHAOS_KILLS makes it longer.
func TestStreamsOfAllDialectsGoOnWhenTheEngineIsKilled(t *testing.T) {
	t.Parallel()
	s := startDialectServer(t)
	long := os.Getenv("CHAOS_KILLS") != ""
	for _, d := range dialectStreams() {
		t.Run(d.name, func(t *testing.T) {
			inner := *s
			inner.t = t
			d.checkKills(&inner, long)
		})
	}
	checkInvariants(t, s.waitIdle())
}

// with is a body with further fields.
func with(body map[string]any, more ...any) map[string]any {
	out := maps.Clone(body)
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i].(string)] = more[i+1]
	}
	return out
}
