package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
)

// A client may leave at any time; the engine must hear of it within a second.
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
		"in decode":  func(a *fakeAnswer) { a.say("The capital ") },
	}
	table, asked := answers()
	d := openDoor(t, table, nil)
	for stageName, stage := range stages {
		for how, body := range map[string]string{"unary": question, "stream": streamed(question)} {
			for leaveName, leave := range leave {
				t.Run(stageName+"/"+how+"/"+leaveName, func(t *testing.T) {
					c, r := d.raw()
					// After one request, since a kept-alive connection is registered only once.
					d.send(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
					d.receive(r, "GET")
					d.send(c, rawInfer(body, "HTTP/1.1"))
					a := await(t, "request", asked, waitLimit)
					stage(a)
					if stageName == "in decode" && how == "stream" {
						if _, err := r.ReadString('{'); err != nil { // the first event
							t.Fatal(err)
						}
					}
					if err := leave(c); err != nil {
						t.Fatal(err)
					}
					a.expectCancel(t)
					a.expectOutcome(t, inflight.ClientGone)
				})
			}
		}
	}
	eventually(t, "all are counted", func() bool { return d.count("api_requests_total", "endpoint", "/infer", "status", "cancelled") == 24 })
	d.expectCount(0, "llm_requests_in_flight", "endpoint", "/infer")
	d.expectCount(0, "api_response_time_seconds", "endpoint", "/infer")
	eventually(t, "all connections are closed", func() bool { return d.connections() == 0 })
}

func TestSlowReaderIsCutOff(t *testing.T) {
	table, asked := answers()
	d := openDoor(t, table, func(o *Options) { o.WriteTimeout = 200 * time.Millisecond })
	c, _ := d.raw()
	_ = c.SetReadBuffer(4 << 10)
	d.send(c, rawInfer(streamed(question), "HTTP/1.1"))
	a := await(t, "request", asked, waitLimit)
	for deadline := time.Now().Add(waitLimit); ; {
		a.say(strings.Repeat("a lot of text ", 1000))
		select {
		case <-a.cancelled:
			a.expectOutcome(t, inflight.ClientGone)
			return
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("a client that doesn't read is served forever")
		}
	}
}

// A stream may take longer than WriteTimeout as long as each event is taken in time.
func TestLongStreamIsNotCutOff(t *testing.T) {
	table, asked := answers()
	d := openDoor(t, table, func(o *Options) { o.WriteTimeout = 100 * time.Millisecond })
	response := d.start(d.streamContext(asked), "POST", "/infer", streamed(question), "Content-Type", "application/json", "X-API-Key", testKey)
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || strings.Count(string(body), `"text"`) != 8 {
		t.Errorf("%v after %q", err, body)
	}
	if r := d.get("/health"); r.StatusCode != 200 {
		t.Errorf("the request after it: %d", r.StatusCode)
	}
}

// streamContext writes eight events over 400 ms to the next answer.
func (d *door) streamContext(asked <-chan *fakeAnswer) context.Context {
	go func() {
		a := <-asked
		for range 8 {
			a.say("x")
			time.Sleep(50 * time.Millisecond)
		}
		a.end(8)
	}()
	return context.Background()
}

func TestPanicsAreAnswered(t *testing.T) {
	table, asked := answers()
	d := openDoor(t, table, nil)
	wait := make(chan reply, 1)
	go func() { wait <- d.ask(question) }()
	a := await(t, "request", asked, waitLimit)
	a.onTake = func() { panic("a fault in here") }
	a.accept()
	r := await(t, "reply", wait, waitLimit)
	if typ, message, _ := failure(t, r); r.StatusCode != 500 || typ != "internal" || strings.Contains(message, "fault") {
		t.Errorf("status %d, type %s, message %q", r.StatusCode, typ, message)
	}
	a.expectCancel(t)
	a.expectOutcome(t, inflight.Failed)
	a.expectBecause(t, api.TypeInternal)

	c, reader := d.raw()
	d.send(c, rawInfer(streamed(question), "HTTP/1.1"))
	a = await(t, "request", asked, waitLimit)
	a.say("The ")
	if _, err := reader.ReadString('{'); err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.onTake = func() { panic("a fault in a stream") }
	a.mu.Unlock()
	a.say("capital")
	a.expectOutcome(t, inflight.Failed)
	rest, _ := io.ReadAll(reader)
	if strings.Contains(string(rest), "0\r\n\r\n") {
		t.Error("a stream that broke off ends as if it were whole")
	}
	eventually(t, "both are counted", func() bool { return d.count("api_requests_total", "endpoint", "/infer", "status", "error") == 2 })
	d.expectCount(0, "llm_requests_in_flight", "endpoint", "/infer")
	if r := d.get("/livez"); r.StatusCode != 200 {
		t.Errorf("after the panics /livez says %d", r.StatusCode)
	}
	if !strings.Contains(d.log.String(), "a fault in a stream") {
		t.Error("the log doesn't say what happened")
	}
}

func TestDrainLetsAnswersFinish(t *testing.T) {
	table, asked := answers()
	d := openDoor(t, table, func(o *Options) { o.DrainTimeout = waitLimit; o.DrainDelay = 50 * time.Millisecond })
	got := make(chan reply, 2)
	for _, body := range []string{question, streamed(question)} {
		go func() { got <- d.ask(body) }()
	}
	first, second := await(t, "request", asked, waitLimit), await(t, "request", asked, waitLimit)
	first.say("x")
	second.say("x")
	s := d.Server
	stopped := make(chan struct{})
	go func() { d.shutdown(); close(stopped) }()
	eventually(t, "readiness is off", func() bool { return s.draining.Load() })
	eventually(t, "the request table drains", func() bool { return table.Status().Draining })
	eventually(t, "nobody new gets in", func() bool {
		c, err := net.Dial("tcp", d.address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	first.end(1)
	second.end(1)
	for range 2 {
		if r := await(t, "reply", got, waitLimit); r.StatusCode != 200 || !strings.Contains(r.body, "metadata") {
			t.Errorf("status %d, body %q", r.StatusCode, r.body)
		}
	}
	await(t, "end of the drain", stopped, waitLimit)
	d.expectCount(1, "llm_draining")
}

func TestReadinessGoesFirst(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.DrainDelay = 200 * time.Millisecond })
	s := d.Server
	c, r := d.raw()
	stopped := make(chan struct{})
	go func() { d.shutdown(); close(stopped) }()
	eventually(t, "readiness is off", func() bool { return s.draining.Load() })
	d.send(c, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"+rawInfer(question, "HTTP/1.1")+"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := d.receive(r, "GET"); got.StatusCode != 503 || !strings.Contains(got.body, "draining") {
		t.Errorf("/readyz: %d %s", got.StatusCode, got.body)
	}
	checkReply(t, d.receive(r, "POST").body) // still served
	if got := d.receive(r, "GET"); got.StatusCode != 200 || !strings.Contains(got.body, `"status":"draining"`) {
		t.Errorf("/health: %d %s", got.StatusCode, got.body)
	}
	await(t, "end of the drain", stopped, waitLimit)
}

// A pod's preStop hook begins the drain; the signal may come much later, when the engine has ended.
func TestDrainBeginsBeforeShutdown(t *testing.T) {
	table := instant()
	d := openDoor(t, table, func(o *Options) { o.DrainDelay = time.Second })
	d.Drain()
	d.Drain()
	if got := d.get("/readyz"); got.StatusCode != 503 {
		t.Errorf("/readyz: %d", got.StatusCode)
	}
	checkReply(t, d.ask(question).body) // still served
	eventually(t, "the request table takes nothing new", func() bool { return table.Status().Draining })
	if got := d.get("/livez"); got.StatusCode != 200 {
		t.Errorf("/livez: %d", got.StatusCode)
	}
	began := time.Now()
	d.shutdown()
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("the delay passed before the signal, and yet the end took %s", took)
	}
}

func TestDrainLeft(t *testing.T) {
	for _, c := range []struct{ passed, timeout, want time.Duration }{
		{0, 2 * time.Minute, 2 * time.Minute},
		{time.Minute, 2 * time.Minute, time.Minute},
		{5 * time.Minute, 2 * time.Minute, closingTime},
		{time.Second, time.Millisecond, time.Millisecond},
		{time.Second, 0, 0},
	} {
		if got := drainLeft(c.passed, c.timeout); got != c.want {
			t.Errorf("%s of %s have passed: %s are left, want %s", c.passed, c.timeout, got, c.want)
		}
	}
}

func TestDrainBreaksOffWhatTakesTooLong(t *testing.T) {
	table, asked := answers()
	d := openDoor(t, table, func(o *Options) { o.DrainTimeout = 300 * time.Millisecond })
	got := make(chan reply, 2)
	var brokenOff []*fakeAnswer
	for _, body := range []string{question, streamed(question)} {
		go func() { got <- d.ask(body) }()
		a := await(t, "request", asked, waitLimit)
		a.say("x")
		brokenOff = append(brokenOff, a)
	}
	d.raw()
	silent, _ := d.raw() // nor does a client that says nothing, or too little, hold the drain up
	d.send(silent, "GET /hea")
	d.shutdown()
	for range 2 {
		r := await(t, "reply", got, waitLimit)
		switch r.Header.Get("Content-Type") {
		case "text/event-stream; charset=utf-8":
			if !strings.Contains(r.body, "event: error\ndata: {\"error\":{\"type\":\"draining\"") {
				t.Errorf("stream ends with %q", r.body)
			}
		default:
			if typ, _, _ := failure(t, r); r.StatusCode != 503 || typ != "draining" {
				t.Errorf("status %d, type %s", r.StatusCode, typ)
			}
		}
	}
	for _, a := range brokenOff {
		a.expectBecause(t, api.TypeDraining) // so that no metric says the client left
	}
}

// A server that is told to stop as it starts must not serve for ever.
func TestServeAfterShutdownReturns(t *testing.T) {
	for _, serve := range []func(*Server, net.Listener) error{(*Server).Serve, (*Server).ServeMetrics} {
		s, err := New(Options{Requests: instant(), Metrics: metrics.New(metrics.Options{}), Log: slog.New(slog.DiscardHandler)})
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
		if err := await(t, "end of Serve", served, waitLimit); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

func TestSilentConnectionDoesntHoldTheDrainUp(t *testing.T) {
	d := openDoor(t, instant(), func(o *Options) { o.DrainTimeout = time.Hour })
	c, r := d.raw()
	d.get("/livez") // behind it, so that it was accepted
	began := time.Now()
	d.shutdown()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the drain took %s", took)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("something came over a silent connection")
	}
	c.Close()
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certFile, keyFile, 1)
	table, asked := answers()
	d := openDoor(t, table, func(o *Options) { o.CertFile, o.KeyFile, o.ReadTimeout = certFile, keyFile, 200*time.Millisecond })
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", d.address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := dial()
	if _, err := io.WriteString(c, rawInfer(question, "HTTP/1.1")); err != nil {
		t.Fatal(err)
	}
	a := await(t, "request", asked, waitLimit)
	a.say("The capital of France is Paris.")
	a.end(8)
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	checkReply(t, d.read(response).body)

	if _, err := io.WriteString(c, rawInfer(question, "HTTP/1.1")); err != nil {
		t.Fatal(err)
	}
	a = await(t, "request", asked, waitLimit)
	c.Close()
	a.expectCancel(t)

	_, silent := d.raw()
	if _, err := silent.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("a client that never shakes hands: %v", err)
	}

	writeCertificate(t, certFile, keyFile, 2)
	s := d.Server
	s.certs.mu.Lock()
	s.certs.checked = time.Time{}
	s.certs.mu.Unlock()
	eventually(t, "the new certificate is in use", func() bool {
		return dial().ConnectionState().PeerCertificates[0].SerialNumber.Int64() == 2
	})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"x"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{keyFile: {Type: "PRIVATE KEY", Bytes: secret}, certFile: {Type: "CERTIFICATE", Bytes: cert}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever happened to the requests, the sums agree.
func TestEveryRequestIsCountedOnce(t *testing.T) {
	table := instant()
	admit := table.admit
	n := 0
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		if n++; n%3 == 0 {
			return nil, api.QueueFull(1, time.Second)
		}
		return admit(r)
	}
	d := openDoor(t, table, nil)
	for i := range 30 {
		body := question
		if i%2 == 0 {
			body = streamed(question)
		}
		d.ask(body)
	}
	d.ask("{")
	d.expectCount(31, "api_requests_total", "endpoint", "/infer")
	d.expectCount(20, "api_requests_total", "endpoint", "/infer", "status", "success")
	d.expectCount(10, "api_requests_total", "endpoint", "/infer", "status", "error")
	d.expectCount(10, "llm_requests_rejected_total", "reason", "queue_full")
	d.expectCount(31, "api_request_size_bytes", "endpoint", "/infer")
	d.expectCount(31, "api_response_size_bytes", "endpoint", "/infer")
	d.expectCount(0, "llm_requests_in_flight")
}
