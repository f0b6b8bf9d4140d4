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
	"slices"
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
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
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

func (d *dialectStream) requestID(prefix string) string {
	return prefix + "-" + strings.NewReplacer(" ", "-", "=", "-").Replace(d.name)
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
// form that is once, with two kills; in the long one many times with one kill, each at another place, and once with
// four.
func cutPlans(events int, long bool) [][]int {
	last := events - 8 // up to five events come with the last token, and that may have come before the kill
	if !long {
		return [][]int{{events / 3, last}}
	}
	var plans [][]int
	for at := 1; at <= last; at += (last + longCuts - 1) / longCuts {
		plans = append(plans, []int{at})
	}
	return append(plans, []int{2, events / 3, events / 2, last})
}

const longCuts = 12 // single kills of each stream in the long form

// leastEvents are enough to kill at different places. On a busy machine an answer may have fewer, since tokens that the
// proxy finds together become one event.
const leastEvents = 14

// undisturbed follows a stream without kills.
func (d *dialectStream) undisturbed(s *testServer, requestID string) *transcript {
	s.t.Helper()
	var want *transcript
	for range mostKills {
		var err error
		if want, err = d.follow(s, requestID, nil); err != nil {
			s.t.Fatalf("undisturbed: %v", err)
		}
		if len(want.problems) > 0 || !want.ended || want.events >= leastEvents {
			break
		}
	}
	if len(want.problems) > 0 || want.events < leastEvents || !want.ended {
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
	requestID := d.requestID("stream")
	want := d.undisturbed(s, requestID)
	if long {
		again := d.undisturbed(s, requestID)
		if diff := differences(again, want); diff != "" {
			t.Errorf("undisturbed, twice:\n%s", diff)
		}
	}
	kills := 0
	follow := func(cuts []int) {
		got, err := d.follow(s, requestID, cuts)
		if err != nil {
			t.Errorf("killed after events %v: %v", cuts, err)
		}
		if diff := differences(got, want); diff != "" {
			t.Errorf("killed after events %v:\n%s", cuts, diff)
		}
		kills += len(cuts)
	}
	for _, cuts := range cutPlans(want.events, long) {
		follow(cuts)
	}
	wanted := max(1, kills*2/3) // what a grammar forces at the end may come at once, with many events
	all, midAnswer := s.replaysOf(requestID)
	for range mostKills {
		if midAnswer >= wanted || t.Failed() {
			break
		}
		follow([]int{want.events / 3}) // in place of a kill that a busy machine did too late
		all, midAnswer = s.replaysOf(requestID)
	}
	t.Logf("%d events, %d kills, %d replays, %d of them in mid-answer; %v", want.events, kills, all, midAnswer, want.kinds())
	if midAnswer < wanted {
		t.Errorf("only %d replays in mid-answer of %d kills, want %d", midAnswer, kills, wanted)
	}
}

// TestStreamsOfAllDialectsGoOnWhenTheEngineIsKilled kills in the middle of streams of every dialect. A short form runs
// with the other tests; CHAOS_KILLS makes it longer.
func TestStreamsOfAllDialectsGoOnWhenTheEngineIsKilled(t *testing.T) {
	t.Parallel()
	s := startDialectServer(t, "12ms")
	long := os.Getenv("CHAOS_KILLS") != ""
	for _, d := range append(dialectStreams(), modelStreams()...) {
		t.Run(d.name, func(t *testing.T) {
			inner := *s
			inner.t = t
			d.checkKills(&inner, long)
		})
	}
	checkInvariants(t, s.waitIdle())
}

// wholeReply asks for the same without a stream. What the reply says is compared as text: times and the cache's share
// are left out.
func (d *dialectStream) wholeReply(s *testServer, requestID string) (string, error) {
	body := with(d.body, "stream", false)
	delete(body, "stream_options")
	resp, err := s.openStream(s.t.Context(), d.path, body, "X-Request-Id", requestID)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	decoder := json.NewDecoder(resp.Body)
	decoder.UseNumber()
	var reply map[string]any
	if err := decoder.Decode(&reply); err != nil {
		return "", err
	}
	for _, key := range []string{"created", "created_at", "completed_at"} {
		delete(reply, key)
	}
	if usage := object(reply["usage"]); usage != nil {
		if d.path == "/v1/messages" {
			usage["input_tokens"] = whole(usage["input_tokens"]) + whole(usage["cache_read_input_tokens"])
		}
		for _, key := range []string{"prompt_tokens_details", "input_tokens_details", "cache_read_input_tokens"} {
			delete(usage, key)
		}
	}
	text, err := json.Marshal(reply)
	return string(text), err
}

// shortWholeReplies are those of the short form.
var shortWholeReplies = []string{"chat n=2", "completions logprobs", "responses auto tools", "messages auto tools", "demo chat sampled"}

// TestWholeRepliesOfAllDialectsAreTheSameWhenTheEngineIsKilled kills while the tokens of a whole reply are made.
func TestWholeRepliesOfAllDialectsAreTheSameWhenTheEngineIsKilled(t *testing.T) {
	t.Parallel()
	s := startDialectServer(t, "40ms")
	long := os.Getenv("CHAOS_KILLS") != ""
	for _, d := range append(dialectStreams(), modelStreams()...) {
		if d.resumed || !long && !slices.Contains(shortWholeReplies, d.name) {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			inner := *s
			inner.t = t
			d.checkWholeReply(&inner)
		})
	}
	checkInvariants(t, s.waitIdle())
}

// mostKills is how often an answer is asked for again until a kill falls into it: on a busy machine it may be complete
// before its first tokens are seen.
const mostKills = 10

func (d *dialectStream) checkWholeReply(s *testServer) {
	requestID := d.requestID("whole")
	want, err := d.wholeReply(s, requestID)
	if err != nil {
		s.t.Fatal(err)
	}
	for range mostKills {
		if got, err := d.wholeReplyWithKill(s, requestID); err != nil || got != want {
			s.t.Errorf("with a kill %v\n  got  %s\n  want %s", err, got, want)
		}
		if _, midAnswer := s.replaysOf(requestID); midAnswer > 0 || s.t.Failed() {
			return
		}
	}
	s.t.Errorf("none of %d kills fell into the answer", mostKills)
}

// wholeReplyWithKill kills the engine once the reply's first tokens are counted.
func (d *dialectStream) wholeReplyWithKill(s *testServer, requestID string) (reply string, err error) {
	before := s.scrape().sum("tokens_generated_total")
	replied := make(chan struct{})
	go func() {
		defer close(replied)
		reply, err = d.wholeReply(s, requestID)
	}()
	s.waitFor(failureLimit, "tokens", func() bool { return s.scrape().sum("tokens_generated_total") >= before+2 })
	s.signalEngine(syscall.SIGKILL)
	<-replied
	return reply, err
}

// TestEmbeddingsAreTheSameWhenTheEngineIsKilled kills the engine while it has texts.
func TestEmbeddingsAreTheSameWhenTheEngineIsKilled(t *testing.T) {
	t.Parallel()
	s := startDialectServer(t, "6ms")
	texts := make([]string, 90)
	for i := range texts {
		texts[i] = strings.Repeat("a fox in a forest ", 1+i%7) + strconv.Itoa(i)
	}
	model, _ := asks(plainAnswer)
	const requestID = "embeddings"
	ask := func() string {
		resp, err := s.openStream(t.Context(), "/v1/embeddings", map[string]any{"model": model, "input": texts}, "X-Request-Id", requestID)
		if err != nil {
			t.Error(err)
			return ""
		}
		defer resp.Body.Close()
		reply, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return string(reply)
	}
	want := ask()
	if n := strings.Count(want, `"index":`); n != len(texts) {
		t.Fatalf("%d embeddings in %.200s", n, want)
	}
	kills := max(2, envNumber("CHAOS_KILLS", 0)/10)
	for range kills {
		pid := s.signalEngine(syscall.SIGSTOP) // so that the texts are there when it is killed
		replied := make(chan string, 1)
		go func() { replied <- ask() }()
		s.waitFor(failureLimit, "texts at the engine", func() bool { return s.scrape().sum("llm_requests_in_flight", "endpoint", "/v1/embeddings") > 0 })
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := <-replied; got != want {
			t.Errorf("with a kill %d bytes that differ from %d bytes without", len(got), len(want))
		}
	}
	all, _ := s.replaysOf(requestID)
	t.Logf("%d texts, %d kills, %d texts sent again", len(texts), kills, all)
	if all < kills {
		t.Errorf("only %d texts were sent again in %d kills", all, kills)
	}
}

// with is a body with further fields.
func with(body map[string]any, more ...any) map[string]any {
	out := maps.Clone(body)
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i].(string)] = more[i+1]
	}
	return out
}
