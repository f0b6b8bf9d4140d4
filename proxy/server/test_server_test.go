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

// testServer is a running server with its client.
type testServer struct {
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

// startTestServer starts a server on loopback. change may alter the options; without it keys are on and rate limits are
// off.
func startTestServer(t testing.TB, table Requests, change func(*Options)) *testServer {
	t.Helper()
	ts := &testServer{t: t, log: &logBuffer{}, served: make(chan error, 1)}
	ts.metrics = metrics.New(metrics.Options{DefaultModel: "demo", DefaultVersion: "v1.0"})
	o := Options{
		Requests: table, Metrics: ts.metrics, Keys: testKeys(t), Prometheus: true, DrainTimeout: 2 * time.Second, StreamHeaderWait: time.Minute,
		Log: slog.New(slog.NewTextHandler(ts.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ts.Server = s
	ln, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts.address = ln.Addr().String()
	ts.url = "http://" + ts.address
	ts.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: waitLimit}
	go func() { ts.served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ts.client.CloseIdleConnections()
		ts.shutdown()
	})
	return ts
}

// shutdown may be called twice.
func (ts *testServer) shutdown() {
	if ts.Server == nil {
		return
	}
	s := ts.Server
	ts.Server = nil
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		ts.t.Errorf("shutdown: %v", err)
	}
	select {
	case err := <-ts.served:
		if err != nil {
			ts.t.Errorf("serve: %v", err)
		}
	case <-ctx.Done():
		ts.t.Error("Serve didn't return after Shutdown")
	}
}

// reply is a response with its whole body.
type reply struct {
	*http.Response
	body string
}

func (ts *testServer) do(method, path, body string, headers ...string) reply {
	ts.t.Helper()
	return ts.read(ts.start(context.Background(), method, path, body, headers...))
}

// start sends a request and returns with the status line.
func (ts *testServer) start(ctx context.Context, method, path, body string, headers ...string) *http.Response {
	ts.t.Helper()
	response, err := ts.client.Do(ts.request(ctx, method, path, body, headers...))
	if err != nil {
		ts.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response
}

func (ts *testServer) request(ctx context.Context, method, path, body string, headers ...string) *http.Request {
	ts.t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, ts.url+path, strings.NewReader(body))
	if err != nil {
		ts.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return request
}

func (ts *testServer) read(response *http.Response) reply {
	ts.t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		ts.t.Fatalf("read body: %v", err)
	}
	return reply{response, string(body)}
}

// postInfer sends a valid inference request.
func (ts *testServer) postInfer(body string, headers ...string) reply {
	ts.t.Helper()
	return ts.do("POST", "/infer", body, append([]string{"Content-Type", "application/json", "X-API-Key", testKey}, headers...)...)
}

func (ts *testServer) get(path string) reply {
	ts.t.Helper()
	return ts.do("GET", path, "")
}

// dial opens a connection for requests that an HTTP client wouldn't send.
func (ts *testServer) dial() (*net.TCPConn, *bufio.Reader) {
	ts.t.Helper()
	c, err := net.Dial("tcp", ts.address)
	if err != nil {
		ts.t.Fatal(err)
	}
	ts.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(waitLimit))
	return c.(*net.TCPConn), bufio.NewReader(c)
}

func (ts *testServer) send(c net.Conn, text string) {
	ts.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		ts.t.Fatalf("send: %v", err)
	}
}

func (ts *testServer) readReply(r *bufio.Reader, method string) reply {
	ts.t.Helper()
	response, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		ts.t.Fatalf("read response: %v", err)
	}
	return ts.read(response)
}

// rawInfer is a valid inference request as text.
func rawInfer(body, protocol string) string {
	return "POST /infer " + protocol + "\r\nHost: x\r\nContent-Type: application/json\r\nX-API-Key: " + testKey +
		"\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
}

// decodeError reads the body of an error and checks what every error has.
func decodeError(t *testing.T, r reply) (typ, message, param string) {
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

// decodeExactly fails on fields that v doesn't have.
func decodeExactly(t testing.TB, text string, v any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// metricValue sums the series with these labels, 0 when there is none. labels are name, value, name, value …
func (ts *testServer) metricValue(name string, labels ...string) float64 {
	ts.t.Helper()
	families, err := ts.metrics.Gather()
	if err != nil {
		ts.t.Fatal(err)
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

// histogramSum adds up the observations of a histogram.
func (ts *testServer) histogramSum(name string) float64 {
	ts.t.Helper()
	families, err := ts.metrics.Gather()
	if err != nil {
		ts.t.Fatal(err)
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

func (ts *testServer) expectMetric(want float64, name string, labels ...string) {
	ts.t.Helper()
	if got := ts.metricValue(name, labels...); got != want {
		ts.t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}

var _ Requests = (*fakeTable)(nil)
var _ inflight.Answer = (*fakeAnswer)(nil)
