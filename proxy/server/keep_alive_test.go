package server

import (
	"bufio"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/scripts/await"
)

// streamingEndpoints are a body for each endpoint that streams.
var streamingEndpoints = []struct{ path, body string }{
	{"/infer", inferBody},
	{"/v1/chat/completions", openAIEndpoints[0].body},
	{"/v1/completions", openAIEndpoints[1].body},
	{"/v1/responses", responsesBody},
	{"/v1/messages", messagesBody},
}

// timesInEvents are the members that differ between two replies to one request.
var timesInEvents = regexp.MustCompile(`"(created|created_at|completed_at|response_time)":[0-9.]+`)

// While nothing flows there are keep-alives, before the first event, too, and they change nothing of the events.
func TestSilentStreamsAreKeptAlive(t *testing.T) {
	table, asked := manualTable()
	silent := startTestServer(t, table, func(o *Options) { o.StreamHeaderWait, o.StreamHeartbeat = 10*time.Millisecond, 10*time.Millisecond })
	table, soon := manualTable()
	busy := startTestServer(t, table, nil)
	for _, e := range streamingEndpoints {
		t.Run(e.path, func(t *testing.T) {
			response := silent.start(t.Context(), "POST", e.path, streamed(e.body), openAIHeaders()...)
			defer response.Body.Close()
			a := receiveWithin(t, "request", asked, waitLimit)
			body := bufio.NewReader(response.Body)
			for range 3 {
				if got := readEvent(t, body) + "\n\n"; got != api.KeepAlive {
					t.Errorf("before the first event came %q", got)
				}
			}
			a.addText("The capital ")
			await.Until(t, waitLimit, "the first text is written", func() bool { return a.tokensWritten() == 1 })
			events := ""
			for event := ""; event != strings.TrimSuffix(api.KeepAlive, "\n\n"); events += event + "\n\n" {
				event = readEvent(t, body)
			}
			a.addText("is Paris.")
			endWithCache(a)
			rest, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(events+string(rest), api.KeepAlive, "")

			go func() {
				a := <-soon
				a.addText("The capital ")
				<-a.written
				a.addText("is Paris.")
				endWithCache(a)
			}()
			want := busy.do("POST", e.path, streamed(e.body), openAIHeaders()...).body
			if got, want := timesInEvents.ReplaceAllString(got, "$1"), timesInEvents.ReplaceAllString(want, "$1"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// While events flow there are none, however long that is.
func TestFlowingStreamsHaveNoKeepAlives(t *testing.T) {
	const heartbeat = 100 * time.Millisecond
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.StreamHeartbeat = heartbeat })
	for _, e := range streamingEndpoints {
		t.Run(e.path, func(t *testing.T) {
			for range 5 { // a machine that is busy may make a pause
				response := make(chan *http.Response, 1)
				go func() { response <- ts.start(t.Context(), "POST", e.path, streamed(e.body), openAIHeaders()...) }()
				a := receiveWithin(t, "request", asked, waitLimit)
				longest := flowFor(t, a, 3*heartbeat)
				r := ts.read(receiveWithin(t, "status line", response, waitLimit))
				if longest > heartbeat/2 {
					continue
				}
				if strings.Contains(r.body, api.KeepAlive) || !strings.Contains(r.body, "a") {
					t.Errorf("pauses of %s at most, and %s in %q…", longest, api.KeepAlive, r.body[:min(len(r.body), 200)])
				}
				return
			}
			t.Skip("this machine is too busy to let events flow")
		})
	}
}

// flowFor writes texts for a time, each when the one before has reached the client, and returns the longest pause.
func flowFor(t *testing.T, a *fakeAnswer, total time.Duration) (longest time.Duration) {
	t.Helper()
	start := time.Now()
	last := start
	for n := 1; time.Since(start) < total; n++ {
		a.addText("a")
		await.Until(t, waitLimit, "the text is written", func() bool { return a.tokensWritten() == n })
		longest, last = max(longest, time.Since(last)), time.Now()
	}
	endWithCache(a)
	return longest
}

// Once the header went out an error can only be an event, here the only one; before, it has a status.
func TestErrorsBeforeAndAfterTheHeaderWait(t *testing.T) {
	table, asked := manualTable()
	hasty := startTestServer(t, table, func(o *Options) { o.StreamHeaderWait = time.Millisecond })
	table, waiting := manualTable()
	patient := startTestServer(t, table, nil)
	for _, e := range streamingEndpoints {
		t.Run(e.path, func(t *testing.T) {
			response := hasty.start(t.Context(), "POST", e.path, streamed(e.body), openAIHeaders()...)
			receiveWithin(t, "request", asked, waitLimit).fail(api.EngineUnavailable(time.Second), false)
			got := hasty.read(response)
			if got.StatusCode != 200 || strings.Count(got.body, "no inference engine is ready") != 1 {
				t.Errorf("after the wait: status %d, %s", got.StatusCode, got.body)
			}
			go func() { (<-waiting).fail(api.EngineUnavailable(time.Second), false) }()
			got = patient.do("POST", e.path, streamed(e.body), openAIHeaders()...)
			if got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" || strings.Count(got.body, "no inference engine is ready") != 1 {
				t.Errorf("before: status %d, header %v, %s", got.StatusCode, got.Header, got.body)
			}
		})
	}
}
