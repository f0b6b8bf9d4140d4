package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's clock, one a process, and its sweeper of idle workers, which ends at its next tick.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// door is a running server with its client.
type door struct {
	*Server
	t       testing.TB
	url     string
	address string
	client  *http.Client
	metrics *metrics.Metrics
	log     *logBuffer
	served  chan error
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const testKey = "demo-key"

// openDoor starts a server on loopback. change may alter the options, among which keys are on and limits are off.
func openDoor(t testing.TB, table Requests, change func(*Options)) *door {
	t.Helper()
	d := &door{t: t, log: &logBuffer{}, served: make(chan error, 1)}
	d.metrics = metrics.New(metrics.Options{DefaultModel: "demo", DefaultVersion: "v1.0"})
	o := Options{
		Requests: table, Metrics: d.metrics, Keys: testKeys(t), Prometheus: true, DrainTimeout: 2 * time.Second, StreamHeaderWait: time.Minute,
		Log: slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.Server = s
	ln, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.address = ln.Addr().String()
	d.url = "http://" + d.address
	d.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: waitLimit}
	go func() { d.served <- s.Serve(ln) }()
	t.Cleanup(func() {
		d.client.CloseIdleConnections()
		d.shutdown()
	})
	return d
}

// shutdown may be called twice.
func (d *door) shutdown() {
	if d.Server == nil {
		return
	}
	s := d.Server
	d.Server = nil
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		d.t.Errorf("shutdown: %v", err)
	}
	select {
	case err := <-d.served:
		if err != nil {
			d.t.Errorf("serve: %v", err)
		}
	case <-ctx.Done():
		d.t.Error("Serve didn't return after Shutdown")
	}
}

// reply is a response that was read to its end.
type reply struct {
	*http.Response
	body string
}

func (d *door) do(method, path, body string, headers ...string) reply {
	d.t.Helper()
	return d.read(d.start(context.Background(), method, path, body, headers...))
}

// start sends a request and returns with the status line.
func (d *door) start(ctx context.Context, method, path, body string, headers ...string) *http.Response {
	d.t.Helper()
	response, err := d.client.Do(d.request(ctx, method, path, body, headers...))
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response
}

func (d *door) request(ctx context.Context, method, path, body string, headers ...string) *http.Request {
	d.t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return request
}

func (d *door) read(response *http.Response) reply {
	d.t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Fatalf("read body: %v", err)
	}
	return reply{response, string(body)}
}

// ask is a good inference request.
func (d *door) ask(body string, headers ...string) reply {
	d.t.Helper()
	return d.do("POST", "/infer", body, append([]string{"Content-Type", "application/json", "X-API-Key", testKey}, headers...)...)
}

func (d *door) get(path string) reply {
	d.t.Helper()
	return d.do("GET", path, "")
}

// raw opens a connection for what an HTTP client wouldn't do.
func (d *door) raw() (*net.TCPConn, *bufio.Reader) {
	d.t.Helper()
	c, err := net.Dial("tcp", d.address)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(waitLimit))
	return c.(*net.TCPConn), bufio.NewReader(c)
}

func (d *door) send(c net.Conn, text string) {
	d.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		d.t.Fatalf("send: %v", err)
	}
}

func (d *door) receive(r *bufio.Reader, method string) reply {
	d.t.Helper()
	response, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		d.t.Fatalf("read response: %v", err)
	}
	return d.read(response)
}

// rawInfer is a good inference request as text.
func rawInfer(body, protocol string) string {
	return "POST /infer " + protocol + "\r\nHost: x\r\nContent-Type: application/json\r\nX-API-Key: " + testKey +
		"\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
}

// failure reads the body of an error and checks what every error has.
func failure(t *testing.T, r reply) (typ, message, param string) {
	t.Helper()
	var body struct {
		Error struct {
			Type, Message string
			Param         *string
			RequestID     string `json:"request_id"`
		}
	}
	decodeExactly(t, r.body, &body)
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q on an error", got)
	}
	id := r.Header.Get("X-Request-Id")
	if id == "" || id != body.Error.RequestID {
		t.Errorf("X-Request-Id %q, request_id %q", id, body.Error.RequestID)
	}
	if body.Error.Message == "" {
		t.Error("an error without a message")
	}
	if body.Error.Param != nil {
		param = *body.Error.Param
	}
	return body.Error.Type, body.Error.Message, param
}

func itoa(n int) string { return strconv.Itoa(n) }

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// decodeExactly refuses fields that v doesn't have.
func decodeExactly(t testing.TB, text string, v any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// count reads one series, 0 when it doesn't exist. labels are name, value, name, value …
func (d *door) count(name string, labels ...string) float64 {
	d.t.Helper()
	families, err := d.metrics.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			for i := 0; i < len(labels); i += 2 {
				if have[labels[i]] != labels[i+1] {
					continue series
				}
			}
			switch {
			case m.Counter != nil:
				sum += m.Counter.GetValue()
			case m.Gauge != nil:
				sum += m.Gauge.GetValue()
			case m.Histogram != nil:
				sum += float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return sum
}

// seconds adds up a histogram of times.
func (d *door) seconds(name string) float64 {
	d.t.Helper()
	families, err := d.metrics.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetHistogram().GetSampleSum()
			}
		}
	}
	return sum
}

func (d *door) expectCount(want float64, name string, labels ...string) {
	d.t.Helper()
	if got := d.count(name, labels...); got != want {
		d.t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}

// eventually waits for what follows a reply: the end of a stream is counted after its last byte.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(waitLimit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, waitLimit)
		}
		time.Sleep(time.Millisecond)
	}
}

var _ Requests = (*fakeTable)(nil)
var _ inflight.Answer = (*fakeAnswer)(nil)
