package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/scripts/await"
)

const resumableBody = `{"messages":[{"role":"user","content":"Hi"}],"stream":true,"stream_options":{"resume":%d}}`

// readEvents reads n events of a stream, or all.
func readEvents(t *testing.T, r *bufio.Reader, n int) (events []string) {
	t.Helper()
	var event strings.Builder
	for n == 0 || len(events) < n {
		line, err := r.ReadString('\n')
		if err != nil {
			if n > 0 || event.Len() > 0 {
				t.Fatalf("after %d events and %q: %v", len(events), event.String(), err)
			}
			return events
		}
		switch {
		case line == "\n":
			events = append(events, event.String())
			event.Reset()
		case !strings.HasPrefix(line, ":"):
			event.WriteString(line)
		}
	}
	return events
}

func (ts *testServer) beginResumable(seconds int) (response *http.Response, body *bufio.Reader, disconnect func()) {
	ctx, disconnect := context.WithCancel(context.Background())
	response = ts.start(ctx, "POST", "/v1/chat/completions", fmt.Sprintf(resumableBody, seconds), openAIHeaders()...)
	return response, bufio.NewReader(response.Body), disconnect
}

func TestStreamIsResumedAfterTheLastEvent(t *testing.T) {
	table, asked := manualTable()
	const secondKey = "second-key"
	ts := startTestServer(t, table, func(o *Options) { o.Keys = openKeys(t, "demo:"+testKey+",second:"+secondKey) })
	started := make(chan *fakeAnswer, 1)
	go func() {
		a := <-asked
		a.addText("The capital")
		started <- a
	}()
	response, body, disconnect := ts.beginResumable(60)
	id := response.Header.Get("X-Stream-Id")
	first := readEvents(t, body, 2) // role, text
	disconnect()
	a := <-started
	a.addText(" of France")
	a.addText(" is Paris.")
	a.end(8)
	a.expectOutcome(t, 1)
	r := ts.do("GET", "/v1/streams/"+id, "", openAIHeaders("Last-Event-ID", "1")...)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != eventStream || r.Header.Get("X-Stream-Id") != id {
		t.Fatalf("status %d, header %v", r.StatusCode, r.Header)
	}
	rest := readEvents(t, bufio.NewReader(strings.NewReader(r.body)), 0)
	all := append(first, rest...)
	text := ""
	for i, event := range all {
		if !strings.HasPrefix(event, fmt.Sprintf("id: %d\ndata: ", i)) {
			t.Errorf("event %d: %q", i, event)
		}
		if _, after, ok := strings.Cut(event, `"delta":{"content":"`); ok {
			content, _, _ := strings.Cut(after, `"`)
			text += content
		}
	}
	if text != "The capital of France is Paris." || !strings.Contains(all[len(all)-1], "[DONE]") {
		t.Errorf("text %q, events\n%s", text, strings.Join(all, "\n"))
	}
	if again := ts.do("GET", "/v1/streams/"+id, "", openAIHeaders()...); strings.Count(again.body, "data: ") != len(all) {
		t.Errorf("from the beginning: %s", again.body)
	}
	for name, c := range map[string]struct {
		path, key, last string
		status          int
	}{
		"no key":         {id, "", "", 401},
		"unknown key":    {id, "nobody-has-it", "", 401},
		"another key":    {id, secondKey, "", 404}, // a good one: as if there were no such stream
		"its position":   {id, secondKey, "1", 404},
		"unknown stream": {"nope", testKey, "", 404},
		"no such event":  {id, testKey, "999", 400},
		"not a number":   {id, testKey, "x", 400},
	} {
		if r := ts.do("GET", "/v1/streams/"+c.path, "", "Authorization", "Bearer "+c.key, "Last-Event-ID", c.last); r.StatusCode != c.status {
			t.Errorf("%s: status %d, %s", name, r.StatusCode, r.body)
		}
	}
	await.Until(t, waitLimit, "the answer is counted", func() bool {
		return ts.metricValue("api_requests_total", "endpoint", "/v1/chat/completions", "status", "success", "model", "demo") == 1
	})
}

// A reader that comes while the answer is made gets what is there and then what comes.
func TestStreamIsResumedWhileItIsMade(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	started := make(chan *fakeAnswer, 1)
	go func() {
		a := <-asked
		a.addText("a")
		started <- a
	}()
	response, body, disconnect := ts.beginResumable(60)
	readEvents(t, body, 2)
	disconnect()
	a := <-started
	second := ts.start(context.Background(), "GET", "/v1/streams/"+response.Header.Get("X-Stream-Id"), "", openAIHeaders("Last-Event-ID", "0")...)
	reader := bufio.NewReader(second.Body)
	if got := readEvents(t, reader, 1); !strings.Contains(got[0], `"content":"a"`) {
		t.Errorf("first %q", got)
	}
	a.addText("b")
	if got := readEvents(t, reader, 1); !strings.Contains(got[0], `"content":"b"`) {
		t.Errorf("then %q", got)
	}
	a.end(2)
	if got := readEvents(t, reader, 0); len(got) != 2 {
		t.Errorf("at last %q", got)
	}
}

// A client that doesn't come back in time has left.
func TestAbandonedStreamIsCancelled(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	started := make(chan *fakeAnswer, 1)
	go func() {
		a := <-asked
		a.addText("a")
		started <- a
	}()
	response, body, disconnect := ts.beginResumable(1)
	readEvents(t, body, 2)
	left := time.Now()
	disconnect()
	a := <-started
	receiveWithin(t, "cancel", a.cancelled, waitLimit)
	if waited := time.Since(left); waited < time.Second {
		t.Errorf("cancelled after %s", waited)
	}
	a.expectOutcome(t, 2)
	path := "/v1/streams/" + response.Header.Get("X-Stream-Id")
	await.Until(t, waitLimit, "the stream is forgotten", func() bool { return ts.do("GET", path, "", openAIHeaders()...).StatusCode == 404 })
}

// Once a server has closed its connections nobody can come back to a stream.
func TestShutdownDoesntWaitForStreamsWithoutReaders(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.DrainTimeout = time.Minute })
	started := make(chan *fakeAnswer, 2)
	begin := func() {
		go func() {
			a := <-asked
			a.addText("a")
			started <- a
		}()
		_, body, disconnect := ts.beginResumable(600)
		readEvents(t, body, 2)
		disconnect()
	}
	begin()
	made, complete := <-started, (*fakeAnswer)(nil)
	begin()
	complete = <-started
	complete.end(1)
	complete.expectOutcome(t, inflight.Delivered)
	began := time.Now()
	ts.shutdown()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end took %s", took)
	}
	made.expectOutcome(t, inflight.ClientGone)
}

// Without resume nothing changes: the answer of a client that leaves is cancelled at once, and there are no ids.
func TestOrdinaryStreamsHaveNoIDs(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	r := ts.do("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}],"stream":true}`, openAIHeaders()...)
	if strings.Contains(r.body, "id: ") || r.Header.Get("X-Stream-Id") != "" {
		t.Errorf("header %v, body %s", r.Header, r.body)
	}
}

// What is there when the stream begins counts as written, like what comes later.
func TestFirstEventsOfAResumableStreamCount(t *testing.T) {
	table, asked := instantTable(), make(chan *fakeAnswer, 1)
	admit := table.admit
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		a, err := admit(r)
		asked <- a.(*fakeAnswer)
		return a, err
	}
	ts := startTestServer(t, table, nil)
	r := ts.do("POST", "/v1/chat/completions", fmt.Sprintf(resumableBody, 5), openAIHeaders()...)
	a := <-asked
	a.expectOutcome(t, inflight.Delivered)
	if n := a.tokensWritten(); n != 1 {
		t.Errorf("%d tokens count as written, want 1", n)
	}
	events := regexp.MustCompile(`(?m)^id: .*\n`).ReplaceAllString(r.body, "")
	await.Until(t, waitLimit, "the stream's bytes are counted", func() bool { return ts.histogramSum("api_response_size_bytes") > 0 })
	if n := ts.histogramSum("api_response_size_bytes"); n != float64(len(events)) {
		t.Errorf("%v bytes were sent, want %d", n, len(events))
	}
}

func TestErrorBeforeAResumableStreamIsAStatus(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	r := ts.do("POST", "/v1/chat/completions", `{"model":"full",`+fmt.Sprintf(resumableBody, 5)[1:], openAIHeaders()...)
	if r.StatusCode != 503 || len(ts.resumable.streams) != 0 {
		t.Errorf("status %d, %d streams are kept", r.StatusCode, len(ts.resumable.streams))
	}
}

func TestBufferOfAStreamIsBounded(t *testing.T) {
	st := newResumableStream("", time.Minute)
	event := []byte("data: " + strings.Repeat("x", 1000) + "\n\n")
	n := 3 * maxResumableBytes / len(event)
	for range n {
		st.append(event)
	}
	if len(st.events) > maxResumableBytes {
		t.Errorf("%d bytes are kept", len(st.events))
	}
	if st.attach(0) || !st.attach(n) {
		t.Error("the first event is kept, or the next one can't be waited for")
	}
	events, next, _, ok, _ := st.eventsFrom(nil, n-1, 1<<20)
	if !ok || next != n || !strings.HasPrefix(string(events), fmt.Sprintf("id: %d\n", n-1)) {
		t.Errorf("last event %.40q, next %d", events, next)
	}
}

// While nothing flows a stream that can be resumed has comments of one line, before the first event, after one, and for
// a reader that came back. With a blank line after them, some clients would take the id before for that of an event
// without data.
func TestSilentResumableStreamsAreKeptAlive(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.StreamHeaderWait, o.StreamHeartbeat = 10*time.Millisecond, 10*time.Millisecond })
	for _, e := range streamingEndpoints {
		if e.path == "/infer" {
			continue // has no stream_options
		}
		t.Run(e.path, func(t *testing.T) {
			ctx, disconnect := context.WithCancel(t.Context())
			defer disconnect()
			text := strings.TrimSuffix(streamed(e.body), "}") + `,"stream_options":{"resume":60}}`
			response := ts.start(ctx, "POST", e.path, text, openAIHeaders()...)
			a := receiveWithin(t, "request", asked, waitLimit)
			body := bufio.NewReader(response.Body)
			expectComments(t, body, "before the first event")
			a.addText("The capital ")
			id := readIDOf(t, body, "The capital ")
			expectComments(t, body, "after an event")
			disconnect()

			path := "/v1/streams/" + response.Header.Get("X-Stream-Id")
			response = ts.start(t.Context(), "GET", path, "", openAIHeaders("Last-Event-ID", strconv.Itoa(id))...)
			defer response.Body.Close()
			body = bufio.NewReader(response.Body)
			expectComments(t, body, "for a reader that came back")
			a.addText("is Paris.")
			if next := readIDOf(t, body, "is Paris."); next != id+1 {
				t.Errorf("event %d comes after event %d", next, id)
			}
			endWithCache(a)
			if _, err := io.ReadAll(body); err != nil {
				t.Error(err)
			}
		})
	}
}

// expectComments reads some lines, of which each is a comment.
func expectComments(t *testing.T, r *bufio.Reader, where string) {
	t.Helper()
	for range 3 {
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, ":") {
			t.Fatalf("%s came %q, %v, instead of a comment", where, line, err)
		}
	}
}

// readIDOf reads until the event that has this text and returns its id.
func readIDOf(t *testing.T, r *bufio.Reader, text string) int {
	t.Helper()
	for {
		event := readEvents(t, r, 1)[0]
		if !strings.Contains(event, text) {
			continue
		}
		line, _, _ := strings.Cut(event, "\n")
		id, err := strconv.Atoi(strings.TrimPrefix(line, "id: "))
		if err != nil {
			t.Fatalf("no id before %q: %v", event, err)
		}
		return id
	}
}

// The last event of a response has all of its text: it may be larger than what is kept of the others.
func TestLastEventOfAStreamIsKept(t *testing.T) {
	st := newResumableStream("", time.Minute)
	st.append([]byte("data: first\n\n"))
	st.attach(0)
	st.append([]byte("data: " + strings.Repeat("x", maxResumableBytes) + "\n\n"))
	events, next, _, ok, _ := st.eventsFrom(nil, 1, 1)
	if !ok || next != 2 || len(events) < maxResumableBytes {
		t.Errorf("%d bytes, the next event is %d", len(events), next)
	}
}
