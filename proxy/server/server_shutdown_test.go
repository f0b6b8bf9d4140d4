package server

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
	"tandem/scripts/await"
)

func TestDrainLetsAnswersFinish(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.DrainTimeout = waitLimit; o.DrainDelay = 50 * time.Millisecond })
	got := make(chan reply, 2)
	for _, body := range []string{inferBody, streamed(inferBody)} {
		go func() { got <- ts.postInfer(body) }()
	}
	first, second := receiveWithin(t, "request", asked, waitLimit), receiveWithin(t, "request", asked, waitLimit)
	first.addText("x")
	second.addText("x")
	s := ts.Server
	stopped := make(chan struct{})
	go func() { ts.shutdown(); close(stopped) }()
	await.Until(t, waitLimit, "readiness is off", func() bool { return s.draining.Load() })
	await.Until(t, waitLimit, "the request table drains", func() bool { return table.Status().Draining })
	await.Until(t, waitLimit, "nobody new gets in", func() bool {
		c, err := net.Dial("tcp", ts.address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	first.end(1)
	second.end(1)
	for range 2 {
		if r := receiveWithin(t, "reply", got, waitLimit); r.StatusCode != 200 || !strings.Contains(r.body, "metadata") {
			t.Errorf("status %d, body %q", r.StatusCode, r.body)
		}
	}
	receiveWithin(t, "end of the drain", stopped, waitLimit)
	ts.expectMetric(1, "llm_draining")
}

func TestReadinessGoesFirst(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.DrainDelay = time.Hour })
	asking := []string{"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", rawInfer(inferBody, "HTTP/1.1"), "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"}
	conns, readers := make([]*net.TCPConn, len(asking)), make([]*bufio.Reader, len(asking))
	for i := range asking { // each on a connection that was used before
		conns[i], readers[i] = ts.dial()
		ts.send(conns[i], "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		ts.readReply(readers[i], "GET")
	}
	ts.Drain()
	for i, c := range conns {
		ts.send(c, asking[i])
	}
	if got := ts.readReply(readers[0], "GET"); got.StatusCode != 503 || !strings.Contains(got.body, "draining") {
		t.Errorf("/readyz: %d %s", got.StatusCode, got.body)
	}
	checkReply(t, ts.readReply(readers[1], "POST").body) // still served
	if got := ts.readReply(readers[2], "GET"); got.StatusCode != 200 || !strings.Contains(got.body, `"status":"draining"`) {
		t.Errorf("/health: %d %s", got.StatusCode, got.body)
	}
	ts.endDelay()
	ts.shutdown()
}

// A client that keeps its connection must learn with its next reply that it has to take another one: after DRAIN_DELAY
// it would be refused.
func TestRepliesCloseTheirConnectionsWhileDraining(t *testing.T) {
	for _, c := range []struct{ name, method, ask string }{
		{"answer", "POST", rawInfer(inferBody, "HTTP/1.1")},
		{"stream", "POST", rawInfer(streamed(inferBody), "HTTP/1.1")},
		{"stream that can be resumed", "POST", rawChat(`{"messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"resume":1}}`)},
		{"refused key", "POST", strings.Replace(rawInfer(inferBody, "HTTP/1.1"), testKey, "wrong", 1)},
		{"bad request", "POST", rawInfer(`{}`, "HTTP/1.1")},
		{"health", "GET", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"readiness", "GET", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"metrics", "GET", "GET /prometheus HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"metrics, HEAD", "HEAD", "HEAD /prometheus HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"unknown path", "GET", "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"preflight", "OPTIONS", "OPTIONS /infer HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\nAccess-Control-Request-Method: POST\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := startTestServer(t, instantTable(), func(o *Options) { o.DrainDelay, o.CORSOrigins = time.Hour, []string{"https://a"} })
			conn, r := ts.dial()
			for _, draining := range []bool{false, true} {
				if draining {
					ts.Drain()
				}
				ts.send(conn, c.ask)
				got := ts.readReply(r, c.method)
				if got.Close != draining {
					t.Errorf("draining %t: status %d, closes: %t", draining, got.StatusCode, got.Close)
				}
			}
			expectClosed(t, r)
			ts.endDelay()
		})
	}
}

// A stream whose head went out before the drain can't say so any more.
func TestStreamClosesItsConnectionWhileDraining(t *testing.T) {
	for name, ask := range map[string]string{
		"plain":     rawInfer(streamed(inferBody), "HTTP/1.1"),
		"resumable": rawChat(`{"messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"resume":1}}`),
	} {
		t.Run(name, func(t *testing.T) {
			table, asked := manualTable()
			ts := startTestServer(t, table, func(o *Options) { o.DrainDelay = time.Hour })
			conn, r := ts.dial()
			ts.send(conn, ask)
			a := receiveWithin(t, "request", asked, waitLimit)
			a.addText("x")
			response, err := http.ReadResponse(r, &http.Request{Method: "POST"})
			if err != nil {
				t.Fatal(err)
			}
			ts.Drain()
			a.end(1)
			if got := ts.read(response); got.Close || got.StatusCode != 200 || !strings.Contains(got.body, "x") {
				t.Errorf("status %d, closes: %t, body %q", got.StatusCode, got.Close, got.body)
			}
			expectClosed(t, r)
			ts.endDelay()
		})
	}
}

// A client that keeps a connection and doesn't use it during DRAIN_DELAY learns in this way that it has to take
// another one.
func TestIdleConnectionsAreClosedWhenRequestsAreRefused(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.DrainDelay = 50 * time.Millisecond })
	const ask = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
	idle, fromIdle := ts.dial()
	busy, fromBusy := ts.dial()
	ts.send(idle, ask)
	ts.readReply(fromIdle, "GET")
	ts.send(busy, ask)
	ts.readReply(fromBusy, "GET")
	ts.send(busy, rawInfer(inferBody, "HTTP/1.1"))
	a := receiveWithin(t, "request", asked, waitLimit)
	await.Until(t, waitLimit, "one of the connections is idle", func() bool { return ts.countConns(isIdle) == 1 })
	ts.Drain()
	await.Until(t, waitLimit, "requests are refused", func() bool { return table.Status().Draining })
	expectClosed(t, fromIdle)
	a.addText("x")
	a.end(1)
	if got := ts.readReply(fromBusy, "POST"); got.StatusCode != 200 || !got.Close {
		t.Errorf("the answer in hand: status %d, closes: %t", got.StatusCode, got.Close)
	}
}

// countConns counts the open connections that which selects.
func (ts *testServer) countConns(which func(*conn) bool) int {
	n := 0
	for _, l := range ts.allListeners() {
		l.mu.Lock()
		for c := range l.open {
			if which(c) {
				n++
			}
		}
		l.mu.Unlock()
	}
	return n
}

// rawChat is a request to /v1/chat/completions as text.
func rawChat(body string) string {
	return strings.Replace(rawInfer(body, "HTTP/1.1"), "/infer", "/v1/chat/completions", 1)
}

// expectClosed expects that the server closes a connection without a further byte and without a reset.
func expectClosed(t *testing.T, r *bufio.Reader) {
	t.Helper()
	if b, err := r.ReadByte(); err != io.EOF {
		t.Errorf("byte %q, error %v instead of the connection's end", b, err)
	}
}

// endDelay lets the server end although its DRAIN_DELAY isn't over.
func (ts *testServer) endDelay() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.drainStarted = ts.drainStarted.Add(-ts.opts.DrainDelay)
}

// A pod's preStop hook begins the drain; the signal may come much later, when the engine has ended.
func TestDrainBeginsBeforeShutdown(t *testing.T) {
	table := instantTable()
	ts := startTestServer(t, table, func(o *Options) { o.DrainDelay = time.Hour })
	ts.Drain()
	ts.Drain()
	if got := ts.get("/readyz"); got.StatusCode != 503 {
		t.Errorf("/readyz: %d", got.StatusCode)
	}
	checkReply(t, ts.postInfer(inferBody).body) // still served
	ts.endDelay()
	ts.refuseTimer.Reset(0) // as when the delay has passed
	await.Until(t, waitLimit, "the request table takes nothing new", func() bool { return table.Status().Draining })
	if got := ts.get("/livez"); got.StatusCode != 200 {
		t.Errorf("/livez: %d", got.StatusCode)
	}
	began := time.Now()
	ts.shutdown()
	if took := time.Since(began); took > 4*time.Second { // one that waits again takes until waitLimit
		t.Errorf("the delay passed before the signal, and yet the end took %s", took)
	}
}

func TestDrainLeft(t *testing.T) {
	for _, c := range []struct{ passed, timeout, want time.Duration }{
		{0, 2 * time.Minute, 2 * time.Minute},
		{time.Minute, 2 * time.Minute, time.Minute},
		{5 * time.Minute, 2 * time.Minute, breakOffReserve},
		{time.Second, time.Millisecond, time.Millisecond},
		{time.Second, 0, 0},
	} {
		if got := drainTimeLeft(c.passed, c.timeout); got != c.want {
			t.Errorf("%s of %s have passed: %s are left, want %s", c.passed, c.timeout, got, c.want)
		}
	}
}

func TestDrainBreaksOffWhatTakesTooLong(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.DrainTimeout = 4 * time.Second })
	got := make(chan reply, 2)
	var brokenOff []*fakeAnswer
	for _, body := range []string{inferBody, streamed(inferBody)} {
		go func() { got <- ts.postInfer(body) }()
		a := receiveWithin(t, "request", asked, waitLimit)
		a.addText("x")
		brokenOff = append(brokenOff, a)
	}
	ts.dial()
	silent, _ := ts.dial() // a client that sends nothing, or too little, doesn't hold up the drain either
	ts.send(silent, "GET /hea")
	ts.shutdown()
	for range 2 {
		r := receiveWithin(t, "reply", got, waitLimit)
		switch r.Header.Get("Content-Type") {
		case "text/event-stream; charset=utf-8":
			if !strings.Contains(r.body, "event: error\ndata: {\"error\":{\"type\":\"draining\"") {
				t.Errorf("stream ends with %q", r.body)
			}
		default:
			if typ, _, _ := decodeError(t, r); r.StatusCode != 503 || typ != "draining" {
				t.Errorf("status %d, type %s", r.StatusCode, typ)
			}
		}
	}
	for _, a := range brokenOff {
		a.expectCancelReason(t, api.TypeDraining) // so that it isn't counted as a disconnect
	}
}

// A server that is shut down while it starts must not serve for ever.
func TestServeAfterShutdownReturns(t *testing.T) {
	for _, serve := range []func(*Server, net.Listener) error{(*Server).Serve, (*Server).ServeMetrics} {
		s, err := New(Options{Requests: instantTable(), Metrics: metrics.New(metrics.Options{}), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := Listen(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- serve(s, ln) }()
		if err := receiveWithin(t, "end of Serve", served, waitLimit); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

func TestSilentConnectionDoesntHoldTheDrainUp(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) { o.DrainTimeout = time.Hour })
	c, r := ts.dial()
	ts.get("/livez") // behind it, so that it was accepted
	began := time.Now()
	ts.shutdown()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the drain took %s", took)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("something came over a silent connection")
	}
	c.Close()
}
