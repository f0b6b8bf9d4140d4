package server

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/scripts/await"
)

const inferBody = `{"prompt":"What is the capital of France?","max_new_tokens":32,"adapter_version":"v1.0","base_model":"demo"}`

type inferReply struct {
	Result   string
	Metadata struct {
		Model, Version  string
		TokensGenerated int     `json:"tokens_generated"`
		ResponseTime    float64 `json:"response_time"`
		GenerationTime  float64 `json:"generation_time"`
		FinishReason    string  `json:"finish_reason"`
		PromptTokens    int     `json:"prompt_tokens"`
		CachedTokens    int     `json:"cached_tokens"`
		Seed            uint64
	}
}

func checkReply(t *testing.T, body string) {
	t.Helper()
	var got inferReply
	decodeExactly(t, body, &got)
	m := got.Metadata
	if got.Result != "The capital of France is Paris." || m.Model != "demo" || m.Version != "v1.0" || m.TokensGenerated != 8 ||
		m.FinishReason != "stop" || m.PromptTokens != 9 || m.Seed != 42 {
		t.Errorf("reply %s", body)
	}
	if m.ResponseTime <= 0 || m.ResponseTime > waitLimit.Seconds() || math.Abs(m.GenerationTime-0.005) > 1e-9 {
		t.Errorf("response_time %v, generation_time %v", m.ResponseTime, m.GenerationTime)
	}
}

func TestInferAnswers(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	go func() {
		a := <-asked
		a.accept()
		a.addText("The capital of France ")
		a.addText("is Paris.")
		a.end(8)
		a.settled <- <-a.settled
		request := a.request
		if request.Infer.Prompt != "What is the capital of France?" || request.Key != "demo" || request.ID != "my-id.1" || request.Timeout != 300*time.Second {
			t.Errorf("the request table got %+v", request)
		}
	}()
	r := ts.postInfer(inferBody, "X-Request-Id", "my-id.1")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Request-Id") != "my-id.1" {
		t.Errorf("status %d, header %v", r.StatusCode, r.Header)
	}
	checkReply(t, r.body)
	ts.expectMetric(1, "api_requests_total", "endpoint", "/infer", "status", "success", "model", "demo", "version", "v1.0")
	ts.expectMetric(1, "api_response_time_seconds", "endpoint", "/infer", "model", "demo")
	ts.expectMetric(0, "llm_requests_in_flight", "endpoint", "/infer")
}

func TestInferOverOneConnection(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	c, r := ts.dial()
	// Pipelined: all of it is sent before the first answer is read.
	ts.send(c, rawInfer(inferBody, "HTTP/1.1")+rawInfer(streamed(inferBody), "HTTP/1.1")+"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n"+rawInfer(inferBody, "HTTP/1.1"))
	checkReply(t, ts.readReply(r, "POST").body)
	checkStream(t, ts.readReply(r, "POST").body)
	if head := ts.readReply(r, "HEAD"); head.StatusCode != 200 || head.ContentLength <= 0 || head.body != "" {
		t.Errorf("HEAD: %d, length %d, %q", head.StatusCode, head.ContentLength, head.body)
	}
	checkReply(t, ts.readReply(r, "POST").body)
}

func streamed(body string) string { return strings.TrimSuffix(body, "}") + `,"stream":true}` }

func checkStream(t *testing.T, body string) {
	t.Helper()
	events := strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n")
	text := ""
	for _, e := range events[:len(events)-1] {
		if e+"\n\n" == api.KeepAlive {
			continue
		}
		var piece struct{ Text string }
		decodeExactly(t, strings.TrimPrefix(e, "data: "), &piece)
		text += piece.Text
	}
	if text != "The capital of France is Paris." {
		t.Errorf("pieces make %q", text)
	}
	checkReply(t, strings.TrimPrefix(events[len(events)-1], "data: "))
}

func TestStream(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	got := make(chan *http.Response, 1)
	go func() {
		got <- ts.start(context.Background(), "POST", "/infer", streamed(inferBody), "Content-Type", "application/json", "Authorization", "Bearer "+testKey)
	}()
	a := receiveWithin(t, "request", asked, waitLimit)
	a.accept()
	select {
	case <-got:
		t.Error("the status line came before the first token")
	case <-time.After(20 * time.Millisecond): // there is no event for what must not happen
	}
	a.addText("The capital of France ")
	response := receiveWithin(t, "status line", got, waitLimit)
	for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"} {
		if response.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, response.Header.Get(name), want)
		}
	}
	body := bufio.NewReader(response.Body)
	first := readEvent(t, body)
	if first != `data: {"text":"The capital of France "}` {
		t.Errorf("first event %q", first)
	}
	await.Until(t, waitLimit, "the first token counts as written", func() bool { return a.tokensWritten() == 1 })
	a.addText("is Paris.")
	a.end(8)
	rest, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	checkStream(t, first+"\n\n"+string(rest))
	a.expectOutcome(t, inflight.Delivered)
	if a.tokensWritten() != 2 {
		t.Errorf("%d tokens counted as written, want 2", a.tokensWritten())
	}
	ts.expectMetric(1, "api_requests_total", "endpoint", "/infer", "status", "success", "model", "demo")
	ts.expectMetric(0, "llm_requests_in_flight", "endpoint", "/infer")
}

func readEvent(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	event := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("read event: %v after %q", err, event)
		}
		if line == "\n" {
			return strings.TrimSuffix(event, "\n")
		}
		event += line
	}
}

func TestErrorsOfAnswers(t *testing.T) {
	for _, c := range []struct {
		name     string
		accepted bool
		err      *api.Error
		status   int
		label    string
		model    string
	}{
		{"waited too long", false, api.QueueTimeout(time.Second), 504, "error", "none"},
		{"engine away", false, api.EngineUnavailable(3 * time.Second), 503, "error", "none"},
		{"not installed after all", false, api.NewError(api.TypeModelNotFound, "no"), 404, "client_error", "unknown"},
		{"engine died", true, api.EngineCrashed(time.Second), 503, "error", "demo"},
		{"prompt too long", true, api.ContextExceeded(9000, 8192), 400, "client_error", "demo"},
		{"quarantined", true, api.Quarantined(), 422, "client_error", "demo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := &fakeTable{}
			settled := make(chan inflight.Outcome, 1)
			table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
				a := newAnswer(r)
				a.settled = settled
				a.fail(c.err, c.accepted)
				return a, nil
			}
			ts := startTestServer(t, table, nil)
			for _, body := range []string{inferBody, streamed(inferBody)} {
				r := ts.postInfer(body)
				if typ, _, _ := decodeError(t, r); r.StatusCode != c.status || typ != string(c.err.Type) {
					t.Errorf("status %d, type %s; want %d, %s", r.StatusCode, typ, c.status, c.err.Type)
				}
				if wait := r.Header.Get("Retry-After"); (wait != "") != (c.err.RetryAfter > 0) {
					t.Errorf("Retry-After %q", wait)
				}
				if got := receiveWithin(t, "settle", settled, waitLimit); got != inflight.Failed {
					t.Errorf("settled with %d", got)
				}
			}
			ts.expectMetric(2, "api_requests_total", "endpoint", "/infer", "status", c.label, "model", c.model)
		})
	}
}

func TestErrorInsideAStreamIsAnEvent(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	go func() {
		a := <-asked
		a.addText("The capital")
		<-a.written
		a.fail(api.EngineCrashed(time.Second), true)
		a.settled <- <-a.settled
	}()
	r := ts.postInfer(streamed(inferBody))
	events := strings.Split(r.body, "\n\n")
	if r.StatusCode != 200 || len(events) != 3 || events[0] != `data: {"text":"The capital"}` {
		t.Fatalf("status %d, body %q", r.StatusCode, r.body)
	}
	name, data, _ := strings.Cut(events[1], "\n")
	var body struct {
		Error struct {
			Type      string
			RequestID string `json:"request_id"`
		}
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(data, "data: ")), &body); err != nil {
		t.Fatal(err)
	}
	if name != "event: error" || body.Error.Type != "engine_crashed" || body.Error.RequestID != r.Header.Get("X-Request-Id") {
		t.Errorf("last event %q", events[1])
	}
	await.Until(t, waitLimit, "the stream is counted", func() bool {
		return ts.metricValue("api_requests_total", "endpoint", "/infer", "status", "error", "model", "demo") == 1
	})
}

func TestStreamNeedsHTTP11(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	c, r := ts.dial()
	ts.send(c, rawInfer(streamed(inferBody), "HTTP/1.0"))
	got := ts.readReply(r, "POST")
	if typ, _, _ := decodeError(t, got); got.StatusCode != 426 || typ != "upgrade_required" || got.Header.Get("Upgrade") != "HTTP/1.1" {
		t.Errorf("status %d, type %s, Upgrade %q", got.StatusCode, typ, got.Header.Get("Upgrade"))
	}
	c, r = ts.dial()
	ts.send(c, rawInfer(inferBody, "HTTP/1.0"))
	checkReply(t, ts.readReply(r, "POST").body)
}
