package server

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tandem/proxy/inflight"
	"tandem/scripts/await"
)

// A client may disconnect at any time; its answer must be cancelled within a second.
func TestClientLeaves(t *testing.T) {
	leave := map[string]func(*net.TCPConn) error{
		"close":      func(c *net.TCPConn) error { return c.Close() },
		"reset":      func(c *net.TCPConn) error { _ = c.SetLinger(0); return c.Close() },
		"half-close": func(c *net.TCPConn) error { return c.CloseWrite() },
		"close behind unread bytes": func(c *net.TCPConn) error {
			_, _ = io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
			return c.Close()
		},
	}
	stages := map[string]func(*fakeAnswer){
		"in queue":   func(*fakeAnswer) {},
		"in prefill": func(a *fakeAnswer) { a.accept() },
		"in decode":  func(a *fakeAnswer) { a.addText("The capital ") },
	}
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	for stageName, stage := range stages {
		for how, body := range map[string]string{"unary": inferBody, "stream": streamed(inferBody)} {
			for leaveName, leave := range leave {
				t.Run(stageName+"/"+how+"/"+leaveName, func(t *testing.T) {
					c, r := ts.dial()
					// After one request, since a kept-alive connection is registered only once.
					ts.send(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
					ts.readReply(r, "GET")
					ts.send(c, rawInfer(body, "HTTP/1.1"))
					a := receiveWithin(t, "request", asked, waitLimit)
					stage(a)
					if stageName == "in decode" && how == "stream" {
						if _, err := r.ReadString('{'); err != nil { // the first event
							t.Fatal(err)
						}
					}
					if err := leave(c); err != nil {
						t.Fatal(err)
					}
					a.expectCancelled(t)
					a.expectOutcome(t, inflight.ClientGone)
				})
			}
		}
	}
	await.Until(t, waitLimit, "all are counted", func() bool {
		return ts.metricValue("api_requests_total", "endpoint", "/infer", "status", "cancelled") == 24 &&
			ts.metricValue("llm_requests_in_flight", "endpoint", "/infer") == 0
	})
	ts.expectMetric(0, "api_response_time_seconds", "endpoint", "/infer")
	await.Until(t, waitLimit, "all connections are closed", func() bool { return ts.connections() == 0 })
}

func TestSlowReaderIsCutOff(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.WriteTimeout = 200 * time.Millisecond })
	c, _ := ts.dial()
	_ = c.SetReadBuffer(4 << 10)
	ts.send(c, rawInfer(streamed(inferBody), "HTTP/1.1"))
	a := receiveWithin(t, "request", asked, waitLimit)
	steps := time.NewTicker(time.Millisecond) // an engine that takes a millisecond a step
	defer steps.Stop()
	tooLate := time.After(waitLimit)
	for {
		a.addText(strings.Repeat("a lot of text ", 1000))
		select {
		case <-a.cancelled:
			a.expectOutcome(t, inflight.ClientGone)
			return
		case <-steps.C:
		case <-tooLate:
			t.Fatal("a client that doesn't read is served forever")
		}
	}
}

// A stream may take longer than WriteTimeout as long as each event is taken in time.
func TestLongStreamIsNotCutOff(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.WriteTimeout = time.Second })
	go answerSlowly(asked)
	response := ts.start(context.Background(), "POST", "/infer", streamed(inferBody), "Content-Type", "application/json", "X-API-Key", testKey)
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || strings.Count(string(body), `"text"`) != 8 {
		t.Errorf("%v after %q", err, body)
	}
	if r := ts.get("/health"); r.StatusCode != 200 {
		t.Errorf("the request after it: %d", r.StatusCode)
	}
}

// answerSlowly is an engine that takes 200 ms a token: eight tokens for the next request, in 1.6 s of real time.
func answerSlowly(asked <-chan *fakeAnswer) {
	a := <-asked
	for n := range 8 {
		a.addText("x")
		await.For(waitLimit, func() bool { return a.tokensWritten() == n+1 }) // or two become one event
		time.Sleep(200 * time.Millisecond)
	}
	a.end(8)
}
