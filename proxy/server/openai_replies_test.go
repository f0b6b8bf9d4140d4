package server

import (
	"context"
	"io"
	"strings"
	"testing"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/scripts/await"
)

func TestOpenAIWholeReply(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		r := ts.postOpenAI(e, e.body)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Request-Id") != "my-id" {
			t.Errorf("status %d, header %v", r.StatusCode, r.Header)
		}
		if got := hideCreated(t, r.body); got != e.whole {
			t.Errorf("got  %s\nwant %s", got, e.whole)
		}
		ts.expectMetric(1, "api_requests_total", "endpoint", e.path, "status", "success", "model", "demo", "version", "v1.0")
		ts.expectMetric(1, "api_response_time_seconds", "endpoint", e.path, "model", "demo")
		ts.expectMetric(0, "llm_requests_in_flight", "endpoint", e.path)
	})
	for _, want := range []string{"endpoint=/v1/chat/completions", "endpoint=/v1/completions"} {
		if line := lineWith(ts.log.String(), want); !strings.Contains(line, "level=INFO") || !strings.Contains(line, "tokens=8") || !strings.Contains(line, "trace_id=") {
			t.Errorf("access line %q", line)
		}
	}
}

func TestOpenAIStream(t *testing.T) {
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		table, asked := manualTable()
		ts := startTestServer(t, table, nil)
		go func() {
			a := <-asked
			a.addText("The capital")
			<-a.written
			a.addText(" of France is Paris.")
			endWithCache(a)
		}()
		r := ts.postOpenAI(e, streamed(e.body))
		want := e.start + e.text("The capital") + e.text(" of France is Paris.") + e.end
		if got := hideCreated(t, r.body); r.StatusCode != 200 || got != want {
			t.Errorf("status %d\ngot  %q\nwant %q", r.StatusCode, got, want)
		}
		for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Request-Id": "my-id"} {
			if r.Header.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, r.Header.Get(name), want)
			}
		}
		await.Until(t, waitLimit, "the stream is counted", func() bool {
			return ts.metricValue("api_requests_total", "endpoint", e.path, "status", "success", "model", "demo") == 1
		})
	})
}

func TestOpenAIStreamWithUsage(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		r := ts.postOpenAI(e, strings.TrimSuffix(e.body, "}")+`,"stream":true,"stream_options":{"include_usage":true}}`)
		var chunks []string
		for chunk := range strings.SplitSeq(strings.TrimSuffix(r.body, "\n\n"), "\n\n") {
			chunks = append(chunks, strings.TrimPrefix(chunk, "data: "))
		}
		if n := len(chunks); n < 4 || chunks[n-1] != "[DONE]" || !strings.Contains(chunks[n-2], `"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17`) {
			t.Fatalf("stream %q", r.body)
		}
		for _, chunk := range chunks[:len(chunks)-2] {
			if !strings.HasSuffix(chunk, `,"usage":null}`) {
				t.Errorf("chunk %s", chunk)
			}
		}
	})
}

func TestOpenAIClientDisconnect(t *testing.T) {
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		table, asked := manualTable()
		ts := startTestServer(t, table, nil)
		for _, body := range []string{e.body, streamed(e.body)} {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				response, err := ts.client.Do(ts.request(ctx, "POST", e.path, body, openAIHeaders()...))
				if err == nil {
					_, _ = io.ReadAll(response.Body)
					response.Body.Close()
				}
			}()
			a := receiveWithin(t, "request", asked, waitLimit)
			a.addText("The capital")
			if body != e.body {
				receiveWithin(t, "first write", a.written, waitLimit)
			}
			cancel()
			a.expectCancelled(t)
			a.expectCancelReason(t, api.TypeCancelled)
			a.expectOutcome(t, inflight.ClientGone)
			<-done
		}
		await.Until(t, waitLimit, "both are counted", func() bool {
			return ts.metricValue("api_requests_total", "endpoint", e.path, "status", "cancelled") == 2
		})
	})
}

// A misspelt field has no effect, as clients of OpenAI's API expect, but an operator can see that there are some.
func TestUnknownFieldsAreCounted(t *testing.T) {
	ts := startTestServer(t, capitalTable(), nil)
	forEachOpenAIEndpoint(t, func(t *testing.T, e openAIEndpoint) {
		before := ts.metricValue("llm_unknown_fields_total")
		r := ts.postOpenAI(e, strings.TrimSuffix(e.body, "}")+`,"temprature":1,"from_the_future":[],"user":"u","metadata":{}}`)
		if r.StatusCode != 200 {
			t.Fatalf("status %d, %s", r.StatusCode, r.body)
		}
		ts.expectMetric(before+2, "llm_unknown_fields_total")
	})
}
